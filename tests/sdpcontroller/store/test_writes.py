"""Writes that are sent together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scheduler.breath import BREATH
from sdpcontroller.store.writes import Writes

COUNT = 200


class Client:
    """Takes what is sent in one exchange, and numbers it."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def pipeline(self, *, transaction: bool) -> Client:
        assert not transaction
        return self

    async def __aenter__(self) -> Client:
        self.sent = []
        return self

    async def __aexit__(self, *reason: object) -> None:
        """Nothing is held."""

    def execute_command(self, *words: str) -> None:
        self.sent.append("load")

    def evalsha(self, digest: str, number: int, *words: str) -> None:
        self.sent.append(words[-1])

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        return [ValueError(word) if word == "bad" else word for word in self.sent]


async def test_hundreds_of_callers_go_on_some_at_a_time() -> None:
    writes = Writes(Client(), "return 1", lambda seconds: None)
    callers = [asyncio.create_task(writes.run(["k"], [str(n)])) for n in range(COUNT)]
    before, most = 0, 0
    while not all(caller.done() for caller in callers):
        await asyncio.sleep(0)
        done = sum(caller.done() for caller in callers)
        before, most = done, max(most, done - before)
    assert most <= BREATH
    assert [await caller for caller in callers] == [str(n) for n in range(COUNT)]


async def test_whoever_was_cancelled_or_refused_concerns_no_other() -> None:
    writes = Writes(Client(), "return 1", lambda seconds: None)
    words = ["a", "bad", "c"]
    callers = [asyncio.create_task(writes.run(["k"], [word])) for word in words]
    await asyncio.sleep(0)
    callers[0].cancel()
    with pytest.raises(ValueError, match="bad"):
        await callers[1]
    assert await callers[2] == "c"
    await writes.finish()


async def test_callers_that_have_no_answer_yet_are_cancelled_with_the_sender() -> None:
    writes = Writes(Client(), "return 1", lambda seconds: None)
    callers = [asyncio.create_task(writes.run(["k"], [str(n)])) for n in range(COUNT)]
    while not any(caller.done() for caller in callers):  # noqa: ASYNC110  # in mid-way
        await asyncio.sleep(0)
    sender = writes._sending
    assert sender is not None
    sender.cancel()
    ends = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(ends[-1], asyncio.CancelledError)
    assert ends[0] == "0"
