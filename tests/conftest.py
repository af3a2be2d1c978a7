"""Fixtures that several packages' tests share."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from sdpcontroller.children import with_parent

# Examples have no deadlines: a machine that others use, too, is no fault of ours.
settings.register_profile("sdp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI must say the same twice; everybody else looks at new examples every time.
settings.register_profile("ci", settings.get_profile("sdp"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "sdp")

PATIENCE = 60.0
"""Seconds in which everything happens that a test waits for; most take none, but others may use the machine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the contract tests speak to a Mesos that somebody has."""
    group = parser.getgroup("mesos")
    group.addoption("--mesos-master", metavar="HOST:PORT", help="a Mesos master to be compared")
    group.addoption("--mesos-agents", metavar="HOST:PORT,…", help="its agents, in their order")


class Said:
    """Says of each failure at once what it is: a run that ends by force comes to no summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell a failure in a line."""
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and reporter is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message.splitlines()[0] if crash and crash.message else "see below"
            reporter.ensure_newline()
            reporter.write_line(f"FAILED {report.nodeid} ({report.when}): {why}")


def pytest_configure(config: pytest.Config) -> None:
    """Tell failures as they come."""
    config.pluginmanager.register(Said(config))


@dataclass(frozen=True)
class RedisServer:
    """A real Redis server of the test's own."""

    host: str
    port: int

    @property
    def endpoint(self) -> str:
        """``HOST:PORT``."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """``redis://HOST:PORT``."""
        return f"redis://{self.endpoint}"


def wait_for_port(
    host: str, port: int, process: subprocess.Popen[bytes], timeout: float = 2 * PATIENCE
) -> None:
    """Return when something listens, or fail when the process ends or time is up."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    pytest.fail(f"nothing listens on {host}:{port} (exit status {process.poll()})")


# Below those that the kernel gives to whoever asks for any: no connection of somebody else gets one of these.
FREE_PORTS = range(10_000, 20_000)
FREE_BLOCKS = range(20_000, 32_000)
_given: set[int] = set()
"""What this process was given: of its own locks a process sees nothing."""


@functools.cache
def _registry() -> int:
    """A file in which each process of tests on this machine locks the byte of every port that it was given."""
    path = Path(tempfile.gettempdir()) / f"sdp-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(first: int, count: int, host: str = "127.0.0.1") -> bool:
    """Take ports in a row on which nobody listens, and which nobody was given; whether that was so."""
    ports = range(first, first + count)
    if not _given.isdisjoint(ports):
        return False
    try:
        fcntl.lockf(_registry(), fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except OSError:
        return False
    if not _can_listen(ports, host):
        fcntl.lockf(_registry(), fcntl.LOCK_UN, count, first)
        return False
    _given.update(ports)
    return True


def _can_listen(ports: Iterable[int], host: str = "127.0.0.1") -> bool:
    try:
        with contextlib.ExitStack() as stack:
            for port in ports:
                stack.enter_context(socket.create_server((host, port)))
    except OSError:
        return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which nobody listens. No other test gets it, in whichever process, while this one lives."""
    candidates = random.Random().sample(FREE_PORTS, len(FREE_PORTS))
    return next(port for port in candidates if _take(port, 1, host))


def free_ports(count: int) -> int:
    """The first of TCP ports in a row, which nobody else gets while this process lives."""
    firsts = random.Random().choices(FREE_BLOCKS[:-count], k=20)
    deadline = time.monotonic() + PATIENCE
    while (found := next((first for first in firsts if _take(first, count)), None)) is None:
        # Of the blocks between the ports in use few may be long enough: all are looked for.
        busy = {port for port in FREE_BLOCKS if port in _given or not _can_listen([port])}
        blocks = [p for p in FREE_BLOCKS[:-count] if busy.isdisjoint(range(p, p + count))]
        firsts = random.Random().sample(blocks, min(len(blocks), 100))
        if time.monotonic() > deadline:
            pytest.fail(
                f"no {count} ports in a row are free: {len(busy)} of {FREE_BLOCKS} are taken"
            )
        time.sleep(0.5)  # another process of tests ends
    return found


@contextlib.contextmanager
def port_block(count: int) -> Iterator[int]:
    """As :func:`free_ports`, for a while only."""
    first = free_ports(count)
    try:
        yield first
    finally:
        _given.difference_update(range(first, first + count))
        fcntl.lockf(_registry(), fcntl.LOCK_UN, count, first)


@pytest.fixture(scope="session")
def compiled() -> None:
    """Compile the packing before any clock runs: after a change of it that takes half a minute."""
    from scheduler import packing  # most tests need nothing of it

    packing.warm_up()


@pytest.fixture
def unused_port() -> int:
    """A TCP port on loopback on which nobody listens."""
    return free_port()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A real Redis server, empty, on loopback."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    directory = tmp_path / "redis"
    directory.mkdir()
    process = subprocess.Popen(
        with_parent(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]),
        cwd=directory,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for_port("127.0.0.1", port, process)
        yield RedisServer("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def docker_refusal() -> str | None:
    """Why no Docker container can be started here; None when it can."""
    if shutil.which("docker") is None:
        return "the docker command is not installed"
    told = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60)
    return None if told.returncode == 0 else f"no Docker engine: {told.stderr.strip()[:200]}"


@pytest.fixture(scope="session")
def busybox_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small Docker image of our own: a static busybox under all its names. Removed at the end."""
    if (refusal := docker_refusal()) is not None:
        pytest.skip(refusal)
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox-static is not installed")
    root = tmp_path_factory.mktemp("busybox")
    for folder in ("bin", "tmp", "etc"):
        (root / folder).mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    subprocess.run([root / "bin/busybox", "--install", "-s", root / "bin"], check=True)
    for link in (root / "bin").iterdir():
        if link.is_symlink():
            link.unlink()
            link.symlink_to("busybox")
    name = f"sdp-test-busybox:{os.getpid()}"
    archive = subprocess.run(["tar", "-C", root, "-c", "."], check=True, capture_output=True).stdout
    subprocess.run(["docker", "import", "-", name], input=archive, check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rmi", "-f", name], check=True, capture_output=True)
