"""What is started for a process ends with it, also when it is killed."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sdpcontroller import children
from sdpcontroller.children import SETPRIV, with_parent
from tests.conftest import PATIENCE, free_port, wait_for_port

SDP = Path(sys.executable).with_name("sdp")
here = pytest.mark.skipif(shutil.which(SETPRIV) is None, reason="there is no setpriv")


class Watched:
    """A process that is somebody else's child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def ends(self) -> bool:
        """Wait for its end; whether it came. One that lives on is killed."""
        try:
            if select.select([self._fd], [], [], PATIENCE)[0]:
                return True
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
            return False
        finally:
            os.close(self._fd)


PARENT = """
import signal, subprocess, sys, time
from sdpcontroller.children import with_parent
child = subprocess.Popen(with_parent(sys.argv[2:], signal.Signals[sys.argv[1]]))
print(child.pid, flush=True)
time.sleep(1000)
"""
CHILD = "trap 'echo told > {told}; exit' TERM; echo up > {up}; while :; do sleep 0.1; done"


@here
@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_a_child_is_sent_the_signal_when_its_parent_is_killed(tmp_path, number) -> None:
    up, told = tmp_path / "up", tmp_path / "told"
    os.mkfifo(up)  # read when the child is there, signals and all
    command = ["sh", "-c", CHILD.format(up=up, told=told)]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, number, *command], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        child = Watched(int(parent.stdout.readline()))
        assert up.read_text() == "up\n"
        parent.kill()
    assert child.ends()
    assert told.exists() is (number == "SIGTERM")


@here
def test_the_command_has_the_process_id_of_what_was_started() -> None:
    told = subprocess.run(
        with_parent([sys.executable, "-c", "import os; print(os.getppid())"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) == os.getpid()


DEMONSTRATION = """
import asyncio, sys
from pathlib import Path
from sdpcontroller.cli.processes import Processes
async def main():
    async with Processes(Path(sys.argv[1])) as processes:
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", sys.argv[2]]
        await processes.start("it", command, {}, port=int(sys.argv[2]), timeout=60)
        print("up", flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""


@here
def test_what_the_demonstration_starts_ends_with_it(tmp_path) -> None:
    words = [sys.executable, "-c", DEMONSTRATION, str(tmp_path), str(free_port())]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as demonstration:
        assert demonstration.stdout is not None
        assert demonstration.stdout.readline() == b"up\n"
        (server,) = psutil.Process(demonstration.pid).children()
        watched = Watched(server.pid)
        demonstration.kill()
    assert watched.ends()


def test_a_program_that_there_is_not_is_missed_by_whoever_starts_it() -> None:
    with pytest.raises(FileNotFoundError):
        subprocess.Popen(with_parent(["no-such-program"]))


def test_where_there_is_no_setpriv_the_command_is_as_it_was(monkeypatch) -> None:
    monkeypatch.setattr(children.shutil, "which", lambda name: None)
    assert with_parent(("redis-server", "--port", "1")) == ["redis-server", "--port", "1"]


@here
def test_the_redis_of_interface_mode_ends_with_a_controller_that_is_killed(tmp_path) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    master = subprocess.Popen(
        [SDP, "master", "--interface-mode", "--port", str(port)], cwd=tmp_path
    )
    with master:
        wait_for_port("127.0.0.1", port, master)
        (redis,) = psutil.Process(master.pid).children()
        assert redis.name() == "redis-server"
        watched = Watched(redis.pid)
        master.kill()
    assert watched.ends()


@here
def test_controllers_of_the_bench_end_with_the_process_that_has_forked_them(tmp_path) -> None:
    port, log = free_port(), tmp_path / "log"
    order = {
        "argv": ["master", "--interface-mode", "--port", str(port)],
        "env": {},
        "log": str(log),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.bench.zygote"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as zygote:
        assert zygote.stdin is not None and zygote.stdout is not None
        assert zygote.stdout.readline() == "ready\n"
        zygote.stdin.write(json.dumps(order) + "\n")
        zygote.stdin.flush()
        controller = Watched(int(zygote.stdout.readline()))
        wait_for_port("127.0.0.1", port, zygote)
        redis = Watched(psutil.Process(controller.pid).children()[0].pid)
        zygote.kill()
    assert controller.ends()
    assert redis.ends()
