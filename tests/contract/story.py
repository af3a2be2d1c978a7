"""What is known while a recorded scene is repeated: where we are, whose ids are whose, what was different."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from scheduler.embedded.allocator import Grant
from scheduler.embedded.recordio import Decoder
from tests.contract import compare
from tests.contract.compare import Difference, Names
from tests.contract.recording import Line, Recording

PATIENCE = 2.5
"""Seconds that an event may come later than recorded."""
SLACK = 1.0
"""Seconds, besides one allocation interval, after which a real master has offered what it could."""


@dataclass
class Inbox:
    """What has come on one stream and was not recorded yet."""

    response: aiohttp.ClientResponse
    stream_id: str
    events: list[dict[str, Any]] = field(default_factory=list)
    offers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Offers that have come, by id."""
    heartbeats: int = 0
    opened: int = 0
    """Line of the subscription."""
    ended: str | None = None
    """``clean`` or ``broken``, once nothing more comes."""
    reader: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Take what comes, until the end."""
        decoder = Decoder()
        try:
            async for chunk in self.response.content.iter_any():
                for record in decoder.feed(chunk):
                    self._take(json.loads(record))
            self.ended = "clean"
        except (aiohttp.ClientError, ConnectionError):
            self.ended = "broken"

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "HEARTBEAT":
            self.heartbeats += 1
        elif event["type"] == "OFFERS":
            self.offers |= {o["id"]["value"]: o for o in event["offers"]["offers"]}
        else:
            self.events.append(event)


@dataclass
class Story:
    """How far a scene has been repeated."""

    recording: Recording
    names: Names = field(default_factory=Names)
    inboxes: dict[str, Inbox] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    compared: int = 0
    interval: float = 1.0
    """Seconds between two allocation runs of the recorded master."""
    matched: set[str] = field(default_factory=set)
    """Recorded offers that came to us together with an earlier one."""
    _line: Line | None = None

    @property
    def line(self) -> Line:
        """The recorded line that is being repeated."""
        return self.recording.lines[0] if self._line is None else self._line

    def turn_to(self, line: Line) -> None:
        """Go on to a line."""
        self._line = line

    def differ(self, what: str, recorded: object, ours: object) -> None:
        """Note a difference."""
        if ours == compare.NOTHING:
            what += " (missing)"
        elif recorded == compare.NOTHING:
            what += " (surplus)"
        name = self.recording.name
        difference = Difference(name, self.line.number, what, str(recorded), str(ours))
        self.differences.append(difference)


class Scene(Protocol):
    """The cluster with which a scene is repeated."""

    @property
    def base(self) -> str:
        """Where the master is reached: ``http://HOST:PORT``."""
        ...

    @property
    def now(self) -> float:
        """Seconds since the beginning of the scene."""
        ...

    def address_of(self, line: Line) -> str:
        """Return where a recorded request goes."""
        ...

    def path_of(self, text: str) -> str:
        """Put our folders in the place of recorded ones."""
        ...

    async def advance(self, until: float) -> None:
        """Let time pass, with everything that happens in it."""
        ...

    async def settle(self) -> None:
        """Return when everything that can happen now has happened, and has reached us."""
        ...

    async def wait_a_little(self, deadline: float) -> bool:
        """Let the next thing happen; False when nothing will before the deadline."""
        ...

    async def process(self, line: Line) -> None:
        """Do with processes what was done in the recording."""
        ...

    async def note(self, line: Line) -> None:
        """Heed what only a note tells."""
        ...

    def foresee(self, line: Line) -> None:
        """Take notice of a call before it is made."""
        ...

    async def forget(self, stream_id: str) -> None:
        """Return when the master has noticed that a stream's connection is gone."""
        ...

    async def offer_now(self) -> None:
        """Let the master offer what it can, as it did in the recording at this moment."""
        ...

    def offerable(self) -> Sequence[Grant]:
        """Return what the master would offer now, as far as one can know."""
        ...

    async def close(self) -> None:
        """End it."""
        ...
