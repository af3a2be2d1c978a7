"""A service ends when it is told to, whatever its threads do."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, sys, time
from sdpcontroller.cli.service import run_until_signal
from sdpcontroller.errors import StoreError

async def serve(stop):
    busy = asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    print("ends", flush=False)
    if sys.argv[1] == "badly":
        raise StoreError("it is gone")

sys.exit(run_until_signal(serve, abandon_threads=True))
"""


@pytest.mark.parametrize(("how", "status"), [("well", 0), ("badly", 1)])
def test_threads_that_compute_are_not_waited_for(how: str, status: int) -> None:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=300
    )
    assert (process.returncode, process.stdout) == (status, "ends\n")
    assert process.stderr == ("error: it is gone\n" if status else "")
