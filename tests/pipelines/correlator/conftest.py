"""A receiver of correlator heaps over real UDP multicast, and a recording."""

from __future__ import annotations

import asyncio
import itertools
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import spead2
import spead2.recv
import spead2.recv.asyncio
from numpy.typing import NDArray

from pipelines.common import spead
from pipelines.common.endpoints import Endpoint
from tests.conftest import PATIENCE

OBSERVATION = Path("../shared/data/observations/J1008+0730_evla_ka.ms.tar.gz")


@dataclass
class Received:
    """What a receiver got, decoded by hand from the ids of the interface."""

    heaps: dict[tuple[int, int], NDArray[np.int32]] = field(default_factory=dict)
    """Counts by (timestamp, first channel), flat."""
    counts: list[int] = field(default_factory=list)
    """Heap counts, of data and descriptors."""
    endpoint: dict[int, int] = field(default_factory=dict)
    """Which endpoint brought a first channel."""
    descriptors: list[dict[str, object]] = field(default_factory=list)

    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was received meets a condition."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def take(self, heap: spead2.recv.Heap, endpoint: int) -> None:
        self.counts.append(heap.cnt)
        items = {item.id: item for item in heap.get_items()}
        if not items:
            group = spead2.ItemGroup()
            group.update(heap)
            self.descriptors.append(dict(group.items()))
            return
        assert set(items) == {spead.TIMESTAMP_ID, spead.FREQUENCY_ID, spead.XENG_RAW_ID}
        timestamp = items[spead.TIMESTAMP_ID].immediate_value
        channel = items[spead.FREQUENCY_ID].immediate_value
        assert (timestamp, channel) not in self.heaps
        data = np.frombuffer(bytes(items[spead.XENG_RAW_ID]), np.int32)  # type: ignore[arg-type]  # buffer
        self.heaps[timestamp, channel] = data
        self.endpoint[channel] = endpoint


Receiving = Callable[[tuple[Endpoint, ...]], AbstractAsyncContextManager[Received]]


@pytest.fixture
def receiving() -> Receiving:
    """Context that listens on endpoints; what it yields fills up as heaps come in."""

    @asynccontextmanager
    async def listen(endpoints: tuple[Endpoint, ...]) -> AsyncIterator[Received]:
        received = Received()
        streams = []
        for endpoint in endpoints:
            stream = spead2.recv.asyncio.Stream(
                spead2.ThreadPool(),
                spead2.recv.StreamConfig(max_heaps=32),
                spead2.recv.RingStreamConfig(heaps=64),
            )
            spead.add_reader(stream, endpoint)
            streams.append(stream)

        async def collect(number: int, stream: spead2.recv.asyncio.Stream) -> None:
            async for heap in stream:
                received.take(heap, number)
                received.changed.set()

        async with asyncio.TaskGroup() as tasks:
            for number, stream in enumerate(streams):
                tasks.create_task(collect(number, stream))
            try:
                yield received
            finally:
                for stream in streams:
                    stream.stop()

    return listen


_GROUPS = itertools.count(1)


@pytest.fixture
def groups() -> Callable[[int], tuple[Endpoint, ...]]:
    """Multicast groups of the test's own."""

    def make(n: int) -> tuple[Endpoint, ...]:
        number = next(_GROUPS)
        return tuple(
            Endpoint(f"239.{100 + os.getpid() % 100}.{number}.{i + 1}", 7148) for i in range(n)
        )

    return make


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The real observation, unpacked."""
    if not OBSERVATION.exists():
        pytest.skip(f"{OBSERVATION} is not there")
    pytest.importorskip("casacore.tables")
    directory = tmp_path_factory.mktemp("observation")
    with tarfile.open(OBSERVATION) as archive:
        archive.extractall(directory, filter="data")
    yield next(directory.glob("*.ms"))
