"""A recorded scene with a master that is there already, in real time.

Only what needs nothing but calls can be repeated: nobody's processes are killed here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import aiohttp

from scheduler.embedded.allocator import Grant
from tests.contract.recording import Line, Recording
from tests.contract.story import Story


class RemoteScene:
    """Leaves everything as it is, and waits.

    Parameters
    ----------
    story
        How far we are.
    master
        ``HOST:PORT``.
    agents
        ``HOST:PORT`` of the agents, in the order of the recorded ones; what is asked of an agent goes there.
    longest_pause
        Seconds; the pauses of a scene in which time plays no part can be cut short.
    """

    def __init__(
        self,
        story: Story,
        master: str,
        agents: Sequence[str] = (),
        longest_pause: float = 1e9,
    ) -> None:
        self.story = story
        self._master = master
        self._agents = agents
        self._longest_pause = longest_pause
        self._began = time.monotonic()
        self._ready = False

    @property
    def base(self) -> str:
        """Where the master is reached."""
        return f"http://{self._master}"

    @property
    def now(self) -> float:
        """Seconds since the beginning of the scene."""
        return time.monotonic() - self._began

    def address_of(self, line: Line) -> str:
        """Return where a recorded request goes."""
        if line["path"].startswith("/slave(") and self._agents:
            return f"http://{self._agents[0]}"
        return self.base

    def path_of(self, text: str) -> str:
        """Leave folders as they are."""
        return text

    async def advance(self, until: float) -> None:
        """Wait until then."""
        if not self._ready:
            await self._learn_agents()
            self._ready = True
        pause = until - self.now
        if pause > self._longest_pause:
            self._began -= pause - self._longest_pause
            pause = self._longest_pause
        if pause > 0:
            await asyncio.sleep(pause)

    async def settle(self) -> None:
        """Give what has been sent the time to arrive."""
        await asyncio.sleep(0.05)

    async def wait_a_little(self, deadline: float) -> bool:
        """Wait, unless it is too late."""
        await asyncio.sleep(0.05)
        return self.now < deadline

    async def process(self, line: Line) -> None:
        """Leave processes as they are; those that there are at first are there."""

    async def note(self, line: Line) -> None:
        """Notes tell nothing that could be done here."""

    def foresee(self, line: Line) -> None:
        """Nothing is known beforehand."""

    async def forget(self, stream_id: str) -> None:
        """Give the master the time to notice."""
        await asyncio.sleep(0.3)

    async def offer_now(self) -> None:
        """Wait for the master's next allocation."""
        await asyncio.sleep(self.story.interval + 0.2)

    def offerable(self) -> Sequence[Grant]:
        """Nobody knows what the master could offer."""
        return []

    async def close(self) -> None:
        """Leave it as it is."""

    async def _learn_agents(self) -> None:
        """Find out which agents stand for the recorded ones, which have the same names."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.base}/slaves") as response,
        ):
            slaves = (await response.json())["slaves"]
        ours = {slave["hostname"]: slave["id"] for slave in slaves}
        for line in self.story.recording.lines:
            if line.kind == "event" and line["event"]["type"] == "OFFERS":
                for offer in line["event"]["offers"]["offers"]:
                    if offer["hostname"] in ours:
                        recorded = offer["agent_id"]["value"]
                        self.story.names.learn(recorded, ours[offer["hostname"]])


def repeatable_part(recording: Recording) -> Recording:
    """Return the beginning of a scene, up to where something is done with processes."""
    lines: list[Line] = []
    masters = 0
    for line in recording.lines:
        started = line.kind == "process" and line["action"] == "start"
        masters += started and line["which"] == "master"
        if line.kind == "process" and (not started or masters > 1):
            break
        if line.kind != "end":
            lines.append(line)
    return replace(recording, lines=tuple(lines))
