"""What the long-running commands share: logging, and an end in order on the first signal."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import NoReturn

from scheduler.errors import SchedulerError
from sdpcontroller import logs
from sdpcontroller.errors import ControllerError
from sdpcontroller.logs import LOG_FORMATS

LOG_LEVELS = ("debug", "info", "warning", "error")

Serve = Callable[[asyncio.Event], Coroutine[None, None, None]]
"""Runs until the event is set, then ends in order."""


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help with the default of each option, where it has one that tells something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        empty = action.default is None or action.default is False or action.default == []
        return action.help if empty else super()._get_help_string(action)


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


def run_until_signal(serve: Serve, *, abandon_threads: bool = False) -> int:
    """Run a service until SIGTERM or SIGINT, and return its exit status.

    The end may take as long as what the service has to take down; a further signal changes nothing.

    Parameters
    ----------
    abandon_threads
        End the process there and then when the service has ended in an expected way, and do not return: threads
        that compute (a compiler does, for half a minute after the very first start) are not waited for. Whoever
        is told to end, or has lost the leadership, must not be seen alive after it.
    """
    end = _end_process if abandon_threads else _return

    async def body() -> int:
        """Serve until a signal or an expected failure; return the exit status."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            await serve(stop)
        except (ControllerError, SchedulerError, OSError) as exc:
            return end(fail(exc))
        except ExceptionGroup as group:
            expected, rest = group.split((ControllerError, SchedulerError, OSError))
            if rest is not None or expected is None:
                raise
            return end(fail(_first(expected)))
        return end(0)

    return asyncio.run(body())


def _return(status: int) -> int:
    return status


def _end_process(status: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def fail(exc: BaseException) -> int:
    """Say in one line on standard error what went wrong; return the exit status for it."""
    sys.stderr.write(f"error: {exc}\n")
    return 1
