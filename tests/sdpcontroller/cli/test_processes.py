from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdpcontroller.cli import processes
from sdpcontroller.cli.processes import (
    ProcessError,
    Processes,
    free_block,
    free_ports,
    need_command,
    tail,
)
from tests.conftest import PATIENCE, free_port, port_block

# A server with a child of its own; it says when it is told to end.
SERVER = """
import os, signal, socket, subprocess, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
diary = open(options["--diary"], "a", buffering=1)
def end(*_):
    diary.write(options["--name"] + " told\\n")
    if options["--deaf"] == "no":
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
child = subprocess.Popen(["sleep", "1000"])
diary.write(f"{options['--name']} child {child.pid}\\n")
listener = socket.create_server(("127.0.0.1", int(options["--port"])))
while True:
    time.sleep(1)
"""


class Children:
    """What the test's servers wrote down."""

    def __init__(self, folder: Path) -> None:
        self.diary = folder / "diary"
        self.diary.touch()
        self.log = folder / "logs"
        self.run = Processes(self.log)

    async def start(self, name: str, *, deaf: bool = False, patience: float = PATIENCE) -> int:
        port = free_port()
        options = {
            "name": name, "port": port, "diary": self.diary, "deaf": "yes" if deaf else "no",
            "unused": None,
        }  # fmt: skip
        await self.run.start(
            name,
            [sys.executable, "-c", SERVER],
            options,
            port=port,
            timeout=PATIENCE,
            patience=patience,
        )
        return port

    def told(self) -> list[str]:
        lines = self.diary.read_text().splitlines()
        return [line.split()[0] for line in lines if line.endswith("told")]

    def grandchildren(self) -> list[int]:
        lines = self.diary.read_text().splitlines()
        return [int(line.split()[2]) for line in lines if " child " in line]


@pytest.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    made = Children(tmp_path)
    yield made
    for pid in made.grandchildren():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def ended(pid: int) -> bool:
    """Whether a process has ended, or does so soon: SIGKILL acts soon, not at once."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, over.set)  # readable when it has ended
    try:
        async with asyncio.timeout(PATIENCE):
            await over.wait()
    except TimeoutError:
        return False
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
    return True


async def test_they_are_ended_last_first_with_all_that_they_started(children: Children) -> None:
    async with children.run:
        ports = [await children.start(name) for name in ("redis", "cluster", "master")]
        for port in ports:
            socket.create_connection(("127.0.0.1", port)).close()
        for pid in children.grandchildren():
            os.kill(pid, 0)  # it runs
    assert children.told() == ["master", "cluster", "redis"]
    assert len(children.grandchildren()) == 3
    assert all([await ended(pid) for pid in children.grandchildren()])


async def test_one_that_does_not_hear_is_killed_when_patience_ends(children: Children) -> None:
    async with children.run:
        await children.start("polite")
        port = await children.start("deaf", deaf=True, patience=0.2)
    assert children.told() == ["deaf", "polite"]
    assert all([await ended(pid) for pid in children.grandchildren()])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_they_are_ended_when_something_goes_wrong(children: Children) -> None:
    with pytest.raises(RuntimeError, match="a fault"):
        async with children.run:
            await children.start("one")
            raise RuntimeError("a fault")
    assert children.told() == ["one"]


async def test_they_are_ended_however_often_one_presses_ctrl_c(children: Children) -> None:
    up = asyncio.Event()

    async def demo() -> None:
        async with children.run:
            await children.start("slow", deaf=True, patience=0.3)
            up.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(demo())
    await up.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.01)
    assert task.cancelled()
    assert children.told() == ["slow"]
    assert all([await ended(pid) for pid in children.grandchildren()])


async def test_one_that_dies_at_once_is_told_with_its_last_words(children: Children) -> None:
    script = "print(*range(9), sep='\\n'); raise SystemExit(3)"
    async with children.run:
        with pytest.raises(
            ProcessError, match=r"ended with status 3; its last words: 4 . 5"
        ) as why:
            await children.run.start(
                "bad", [sys.executable, "-c", script], {}, port=free_port(), timeout=PATIENCE
            )
    assert "\n" not in str(why.value)


async def test_one_that_does_not_listen_is_told_and_ended(children: Children) -> None:
    async with children.run:
        with pytest.raises(ProcessError, match=r"does not listen on port \d+ after 0\.2 s"):
            await children.run.start("mute", ["sleep", "1000"], {}, port=free_port(), timeout=0.2)
        (child,) = children.run._children
    assert child.process.returncode == -signal.SIGTERM


async def test_a_port_that_is_taken_is_no_success(children: Children) -> None:
    """Somebody else's server is not ours."""
    async with children.run:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(ProcessError, match=f"something listens on port {port} already"):
                await children.run.start("late", ["sleep", "1000"], {}, port=port, timeout=5)
    assert children.run._children == []


async def test_a_program_that_is_not_there(children: Children) -> None:
    async with children.run:
        with pytest.raises(ProcessError, match=r"x cannot be started: .*no-such-program"):
            await children.run.start(
                "x", ["no-such-program"], {}, port=free_port(), timeout=PATIENCE
            )
    with pytest.raises(ProcessError, match="try: sudo apt-get install nothing"):
        need_command("no-such-program", "nothing")
    assert Path(need_command("sh", "dash")).is_absolute()


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "cannot be read" in tail(log)
    log.write_bytes(b"")
    assert "said nothing" in tail(log)
    log.write_bytes(b"one\n\xfftwo\n")
    assert tail(log, 1) == "its last words: \ufffdtwo"


def test_a_block_is_one_in_which_nobody_listens() -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(port_block(15))
        ports = range(first, first + 15)
        for number, kind in ((0, socket.SOCK_STREAM), (14, socket.SOCK_DGRAM)):
            sock = stack.enter_context(socket.socket(type=kind))
            sock.bind(("127.0.0.1", ports[number]))
            if kind is socket.SOCK_STREAM:
                sock.listen()
        assert {free_block(ports, 5) for _ in range(20)} == {ports[5]}
        with pytest.raises(
            ProcessError, match=f"no 8 ports in a row .* {ports[0]} and {ports[-1]}"
        ):
            free_block(ports, 8)


def test_free_ports_differ() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(0 < port < 65536 for port in ports)
    assert processes._POLL > 0


async def test_what_runs_to_its_end_is_waited_for(tmp_path: Path) -> None:
    async with Processes(tmp_path) as processes:
        done = tmp_path / "done"
        await processes.finish("good", [sys.executable, "-c", f"open({str(done)!r}, 'w')"])
        assert done.exists()
        with pytest.raises(ProcessError, match=r"bad ended with status 3; .*last words: no luck"):
            await processes.finish("bad", [sys.executable, "-c", "print('no luck'); exit(3)"])
        with pytest.raises(ProcessError, match="cannot be started"):
            await processes.finish("none", [str(tmp_path / "none")])
