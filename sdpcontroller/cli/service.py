"""What the long-running commands share: logging, and an end in order on the first signal."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine

from scheduler.errors import SchedulerError
from sdpcontroller import logs
from sdpcontroller.errors import ControllerError
from sdpcontroller.logs import LOG_FORMATS

LOG_LEVELS = ("debug", "info", "warning", "error")

Serve = Callable[[asyncio.Event], Coroutine[None, None, None]]
"""Runs until the event is set, then ends in order."""


def add_log_level(parser: argparse.ArgumentParser) -> None:
    """Add the options of logging."""
    parser.add_argument(
        "--log-level", choices=LOG_LEVELS, default="info", help="least grave lines to log"
    )
    parser.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default="text",
        help="text for people, or json with product, task and capture block in fields of their own",
    )


def set_up_logging(options: argparse.Namespace) -> None:
    """Log to standard error as the options say, one line each."""
    logs.set_up(options.log_level, options.log_format)


def run_until_signal(serve: Serve) -> int:
    """Run a service until SIGTERM or SIGINT, and return its exit status.

    The end may take as long as what the service has to take down; a further signal changes nothing.
    """

    async def body() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(stop)

    try:
        asyncio.run(body())
    except (ControllerError, SchedulerError, OSError) as exc:
        return fail(exc)
    except ExceptionGroup as group:
        expected, rest = group.split((ControllerError, SchedulerError, OSError))
        if rest is not None or expected is None:
            raise
        return fail(_first(expected))
    return 0


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def fail(exc: BaseException) -> int:
    """Say in one line on standard error what went wrong; return the exit status for it."""
    sys.stderr.write(f"error: {exc}\n")
    return 1
