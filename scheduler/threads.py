"""Threads that compute beside an event loop.

Building a graph, writing one down and reading records are done in threads, in Python: then the loop shares the
interpreter with them. It gives it up with every call of the system, and a thread that computes keeps it for
the whole switch interval. At Python's 5 ms, ten replies of which each is sent by a call of its own take 50 ms;
and with three such threads three times that, because each may have its turn before the loop has.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SWITCH: Final = 0.0005
"""Seconds that a thread keeps the interpreter while another one wants it."""

_computing: Final = ThreadPoolExecutor(1, thread_name_prefix="computing")


def share_interpreter() -> None:
    """Let threads that compute give way to the event loop soon.

    It is for programs, not for libraries: it concerns the whole process.
    """
    sys.setswitchinterval(SWITCH)


async def compute(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Compute something in Python beside the loop: one thing at a time, which takes no longer than all at once.

    What waits, or computes without the interpreter, is for ``asyncio.to_thread``.
    """
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_computing, lambda: context.run(function, *args, **kwargs))
