"""Threads that compute beside the loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from scheduler.threads import compute

MARK: contextvars.ContextVar[str] = contextvars.ContextVar("MARK", default="")


async def test_what_is_computed_is_computed_one_after_the_other() -> None:
    going_on, most = 0, 0
    gate = threading.Event()

    def work() -> None:
        nonlocal going_on, most
        going_on += 1
        most = max(most, going_on)
        gate.wait(10)
        going_on -= 1

    several = asyncio.gather(*(compute(work) for _ in range(5)))
    await asyncio.sleep(0)
    gate.set()
    await several
    assert most == 1


async def test_it_has_the_caller_s_context_and_fails_as_the_function_does() -> None:
    MARK.set("p0")  # log lines of a thread tell of which product they are
    assert await compute(MARK.get) == "p0"
    with pytest.raises(ZeroDivisionError):
        await compute(divmod, 1, 0)
