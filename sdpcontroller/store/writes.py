"""Writes of many callers, sent together: one exchange with Redis for all that is asked for meanwhile.

A product of two hundred tasks writes a thousand records while it comes up. One by one, each would cost an
exchange, and there would be as many connections as there are writers at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any, Final

from scheduler.breath import Breath

MAX_TOGETHER: Final = 256
"""Writes of one exchange."""


@dataclass(frozen=True, slots=True)
class _Write:
    keys: Sequence[str]
    args: Sequence[Any]
    reply: asyncio.Future[Any]


class Writes:
    """Runs one Lua script, for everybody, in the order in which it was asked for.

    Parameters
    ----------
    client
        Connection to Redis.
    script
        Takes keys and arguments; each run is atomic by itself, the runs of one exchange are not.
    timed
        Is called with the seconds of each exchange.
    """

    def __init__(self, client: Any, script: str, timed: Callable[[float], None]) -> None:
        self._client = client
        self._script = script
        self._digest = sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._timed = timed
        self._waiting: deque[_Write] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def run(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script; when the caller is cancelled, it is run all the same.

        Raises
        ------
        RedisError
            What Redis answered, or that it did not: then it may have been run.
        """
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append(_Write(keys, args, reply))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await reply

    async def finish(self) -> None:
        """Wait until everything asked for is answered."""
        if self._sending is not None:
            await asyncio.wait({self._sending})

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                count = min(MAX_TOGETHER, len(self._waiting))
                await self._send([self._waiting.popleft() for _ in range(count)])
        finally:
            self._sending = None
            for write in self._waiting:  # of a loop that ends
                write.reply.cancel()

    async def _send(self, writes: Sequence[_Write]) -> None:
        begun = time.monotonic()
        try:
            answers = await self._exchange(writes)
        except Exception as exc:  # all of them must hear of it, also of a fault of ours
            answers = [exc for _ in writes]
        except BaseException:
            for write in writes:
                write.reply.cancel()
            raise
        self._timed(time.monotonic() - begun)
        await self._answer(writes, answers)

    async def _answer(self, writes: Sequence[_Write], answers: Sequence[Any]) -> None:
        """Tell the callers, some at a time: each goes on with what it wrote for, a whole product's together."""
        breath = Breath()
        try:
            for write, answer in zip(writes, answers, strict=True):
                if write.reply.done():  # its caller was cancelled
                    continue
                if isinstance(answer, Exception):
                    write.reply.set_exception(answer)
                else:
                    write.reply.set_result(answer)
                await breath.step()
        except BaseException:  # of a loop that ends
            for write in writes:
                write.reply.cancel()
            raise

    async def _exchange(self, writes: Sequence[_Write]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            # Redis forgets scripts when it restarts. Loaded in the same exchange, there is no run that fails
            # for want of it while a later one of the same record does not.
            pipe.execute_command("SCRIPT LOAD", self._script)
            for write in writes:
                pipe.evalsha(self._digest, len(write.keys), *write.keys, *write.args)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers[1:]
