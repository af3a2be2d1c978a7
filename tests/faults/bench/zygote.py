"""A process that has loaded the controller, and forks one whenever it is told to: 20 ms instead of two seconds.

One JSON object a line on standard input: ``{"argv": […], "env": {…}, "log": PATH}``. On standard output:
``PID`` of each controller that was begun, ``-PID STATUS`` when it has ended (negative status: by that signal).
When standard input ends, as it does with whoever gave the orders, the controllers die with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any

import sdpcontroller.cli.leading  # noqa: F401 - what each controller would load
from scheduler.collector import calm
from scheduler.packing.solve import warm_up
from sdpcontroller.cli.main import main

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
"""See prctl(2)."""
STALL = 0.1
"""Seconds of computing at a stretch that no event loop should see: oracle (g)."""


def _watch_stalls() -> None:
    """Write down each callback that computes for too long. Computing, because others compute here too."""
    run = asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        if (spent := time.thread_time() - began) > STALL:
            sys.stderr.write(f"STALL {spent:.3f} {handle!r:.300}\n")

    asyncio.events.Handle._run = timed  # type: ignore[method-assign]


def _become(order: dict[str, Any], zygote: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote:  # it died before that
        os._exit(70)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(order["env"])
    _watch_stalls()
    status = 70
    try:
        status = main(order["argv"])
    except SystemExit as exc:
        status = int(exc.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _say(f"-{pid} {os.waitstatus_to_exitcode(status)}")


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def serve() -> None:
    """Fork for each order, until standard input ends."""
    zygote = os.getpid()
    warm_up()
    calm()  # what is there is not looked at again, and so stays one for all
    _say("ready")
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.01)
        _reap()
        if not ready:
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if (pid := os.fork()) == 0:
                _become(order, zygote)
            _say(str(pid))


if __name__ == "__main__":
    serve()
