"""Automatic repair, and when it stops: many agents lost at once are no accident of one machine.

What started tasks again by itself then would pile the work of the machines that are gone (a switch, a room
without power) onto those that are left, and start what may still run. So it pauses, an alarm says why, and an
operator resumes it: neither tasks of products nor failed tasks of postprocessing are tried again until then.
Products do nothing else by themselves: what has died stays in ``error`` until somebody decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, Final

from scheduler.permission import Refused
from sdpcontroller.control import AgentRecord, Alarm, Command, ResumeRepair, Severity
from sdpcontroller.errors import FencedError, StoreError
from sdpcontroller.store import Store
from sdpcontroller.store.records import Form, Table

logger = logging.getLogger(__name__)

LOST_TOGETHER: Final = 0.2
"""Share of the agents whose loss is none of a single machine; a single agent never is."""
WINDOW: Final = 60.0
"""Seconds within which losses count as one."""
LOOK: Final = 7.0
"""Seconds after which the loss of an agent is known here for certain: the list of agents is read every five."""
_KEY: Final = "repair"
_STORE_PAUSE: Final = 1.0
_NAMED: Final = 5
"""Hosts that the alarm names."""

REPAIR: Final[Form[str]] = Form(
    "repair",
    write=lambda reason: {"reason": reason},
    read=lambda document: str(document["reason"]),
)
"""One record: why automatic repair pauses; empty when it does not."""


class Losses:
    """Which hosts have lost their agents lately."""

    def __init__(self) -> None:
        self._up: set[str] = set()
        self._lost: dict[str, float] = {}
        """When each host that was up and is not any more was lost."""

    def start_anew(self) -> None:
        """Know of none."""
        self._up.clear()
        self._lost.clear()

    def forgive(self) -> None:
        """Count those that are lost no more."""
        self._lost.clear()

    def see(
        self, agents: Iterable[AgentRecord], now: float, awaited: Collection[str] = ()
    ) -> list[str]:
        """Take note of what there is; return the hosts that were lost together, if they are many.

        Parameters
        ----------
        awaited
            Hosts of agents that a new master knows of, and that have not come to it yet: not lost, as far as
            anybody knows.
        """
        up = {agent.host for agent in agents if agent.state != "lost"} | {*awaited}
        recent = {host: at for host, at in self._lost.items() if now - at <= WINDOW}
        self._lost = {**recent, **dict.fromkeys(self._up - up, now)}
        for host in up:
            self._lost.pop(host, None)
        self._up = up
        many = len(self._lost) > 1 and len(self._lost) >= LOST_TOGETHER * len(
            up | self._lost.keys()
        )
        return sorted(self._lost) if many else []


class Repair:
    """Whether products may start tasks again by themselves.

    Parameters
    ----------
    changed
        Is called when that changes.
    """

    def __init__(self, store: Store, changed: Callable[[], None]) -> None:
        self._table: Table[str] = Table(store, REPAIR)
        self._changed = changed
        self._losses = Losses()
        self._new_master = True
        self._allowed = asyncio.Event()
        self._allowed.set()
        self.reason = ""
        """Why it pauses; empty when it does not."""

    async def load(self) -> None:
        """Read whether it pauses: a pause outlives the controller that saw its cause."""
        row = await self._table.get(_KEY)
        if row is not None and row.value:
            self._pause(row.value)

    async def allowed(self, *, lost: bool, refused: Refused) -> None:
        """Wait until what has ended may be started again: a :class:`~scheduler.permission.Permission`."""
        if lost:  # its agent may be one of many: that is known a little later
            await asyncio.sleep(LOOK)
        while self.reason:
            refused(f"not started again until repair-resume: {self.reason}")
            await self._allowed.wait()

    def look(
        self,
        agents: Iterable[AgentRecord],
        awaited: Collection[str] | None,
        background: asyncio.TaskGroup,
    ) -> None:
        """Look at the agents; pause when many were lost together.

        Parameters
        ----------
        awaited
            Hosts of agents of which the master knows that they are to come to it; None while there is no
            master, or it has not told yet of any: then `agents` are those of its predecessor.
        background
            Runs what records the pause.
        """
        if awaited is None:
            self._new_master = True
            return
        agents = list(agents)
        if self._new_master and not agents and not awaited:
            self._losses.start_anew()  # it remembers nobody; whoever is there comes to it
        self._new_master = False
        lost = self._losses.see(agents, asyncio.get_running_loop().time(), awaited)
        if not lost or self.reason:
            return
        named = ", ".join(lost[:_NAMED]) + (" …" if len(lost) > _NAMED else "")
        known = len({*lost, *awaited, *(agent.host for agent in agents)})
        self._pause(f"{len(lost)} of {known} agents were lost within {WINDOW:g} s: {named}")
        logger.error("automatic repair pauses: %s", self.reason)
        self._changed()
        background.create_task(self._record(self.reason))

    def _pause(self, reason: str) -> None:
        self.reason = reason
        self._allowed.clear()

    async def _record(self, reason: str) -> None:
        """Keep it for a successor; the pause is on already."""
        while self.reason == reason:
            try:
                await self._table.put(_KEY, reason, event=f"paused: {reason}")
            except FencedError:
                return
            except StoreError as exc:
                logger.warning("%s", exc)
                await asyncio.sleep(_STORE_PAUSE)
            else:
                return

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is to be told while it pauses."""
        if not self.reason:
            return ()
        text = f"no task is started again by itself until repair-resume: {self.reason}"
        return (Alarm("repair", Severity.ALARM, text),)

    def handlers(self) -> Mapping[type[Command[Any]], Callable[[Any], Coroutine[Any, Any, Any]]]:
        """Return what does each command."""
        return {ResumeRepair: self._resume}

    async def _resume(self, command: ResumeRepair) -> str:
        reason = self.reason
        if reason:
            await self._table.put(_KEY, "", event=f"resumed by an operator after: {reason}")
            logger.warning("automatic repair goes on: an operator said so")
            self._losses.forgive()
            self.reason = ""
            self._allowed.set()
            self._changed()
        return reason
