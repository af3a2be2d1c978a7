"""One client's connection, for clients that watch tens of thousands of sensors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

import aiokatcp
from aiokatcp.sensor import SensorSampler
from aiokatcp.server import ClientConnection

SAMPLERS_AT_ONCE: Final = 2000
"""Subscriptions of a client that has gone that are ended before others have their turn."""


class WatchingClient(ClientConnection):
    """As aiokatcp's, with the news of one turn of the loop sent together.

    The sensors of a task change together, a hundred at a time, and each call of the system takes longer than
    all else that is done for one of them.
    """

    news: list[aiokatcp.Message]
    _gone = False

    @classmethod
    def adopt(cls, conn: ClientConnection) -> None:
        """Make one of a connection that was just made: aiokatcp's server makes them, of its own class."""
        conn.__class__ = cls
        assert isinstance(conn, cls)  # noqa: S101 - for the type checker
        conn.news = []

    def sensor_update(self, s: aiokatcp.Sensor[Any], reading: aiokatcp.Reading[Any]) -> None:
        """Report a reading soon, and before anything that is written later."""
        if self._gone:
            return
        inform = aiokatcp.Message.inform
        message = inform(
            "sensor-status", reading.timestamp, 1, s.name, reading.status, reading.value
        )
        self.news.append(message)
        if len(self.news) == 1:
            asyncio.get_running_loop().call_soon(self._tell_news)

    def write_messages(self, msgs: Iterable[aiokatcp.Message]) -> None:
        """Write messages, after the news that came before them."""
        news, self.news = self.news, []
        super().write_messages((*news, *msgs))

    def _tell_news(self) -> None:
        if self.news and not self._gone:  # else they went along with something else
            self.write_messages(())
            if not self.samplers_lock.locked():  # who has just subscribed to many is waited for
                self.owner.cut_off_if_slow(self)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        """End all that was done for the client; of many subscriptions, some at a time."""
        self._gone = True
        samplers, self._samplers = tuple(self._samplers.values()), {}
        super().connection_lost(exc)
        _close(samplers)


def _close(samplers: Sequence[SensorSampler[Any]]) -> None:
    for sampler in samplers[:SAMPLERS_AT_ONCE]:
        sampler.close()
    if rest := samplers[SAMPLERS_AT_ONCE:]:
        asyncio.get_running_loop().call_soon(_close, rest)
