"""A cluster of three small agents, and a scheduler on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.embedded import Cluster
from scheduler.journal import MemoryJournal
from scheduler.service import Scheduler
from tests.scheduler.programs import agent, scheduler_on


@pytest.fixture
async def cluster(tmp_path: Path, compiled: None) -> AsyncIterator[Cluster]:
    """Three agents."""
    agents = [agent(number) for number in range(3)]
    async with Cluster(
        agents, work_dir=tmp_path / "cluster", port=0, allocation_interval=0.1
    ) as running:
        yield running


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
async def scheduler(cluster: Cluster, journal: MemoryJournal) -> AsyncIterator[Scheduler]:
    """A scheduler whose tasks end with it."""
    async with scheduler_on(cluster, journal, teardown=True) as scheduler:
        yield scheduler
