"""Fixtures of the end-to-end tests: the whole system in real processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import Run, Stack


@pytest.fixture(autouse=True, scope="session")
def system_packages() -> None:
    """The programs that the system is made of, or a reason why not."""
    for command in ("redis-server", "lstopo"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")


@pytest.fixture(autouse=True, scope="session")
def compiled(system_packages: None) -> None:
    """On a fresh machine compiling takes longer than the deadlines of what is tested."""
    subprocess.run(
        [sys.executable, "-m", "sdpcontroller.cli.main", "warm-up"], check=True, timeout=1800
    )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A folder whose processes are known; whatever a failed test leaves in it is ended."""
    run = Run(tmp_path)
    try:
        yield run
    finally:
        run.kill_all()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, cluster and controller, for all tests of a module."""
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack
