"""What we do while we are subscribed: events handled in order, offers wanted or not, timers kept.

One task handles what Mesos says, event after event, so that an update is safe in the journal before it is
acknowledged and before the next is looked at. Another keeps the timers: tasks without news are asked for,
offers are not hoarded, the list of agents is read now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from scheduler import agents as agents_module
from scheduler.agents import Agents, basic
from scheduler.breath import Breath
from scheduler.closures import read_window, stay
from scheduler.crash_points import CrashPoint
from scheduler.equipment import insist
from scheduler.errors import FrameworkError, JournalError
from scheduler.figures import Figures, NoFigures
from scheduler.framework import (
    AgentLost,
    AskedToLeave,
    Disconnected,
    Framework,
    FrameworkSettings,
    LinkEvent,
    Lost,
    Offered,
    Rescinded,
    Subscribed,
    Updated,
)
from scheduler.inventory import inventory
from scheduler.journal import Journal
from scheduler.offers import OfferPool
from scheduler.queues import LaunchQueue
from scheduler.rebuilding import LIVE, UNLAUNCHED, Rebuilding, Stock
from scheduler.runs import Runs, TaskEntry
from scheduler.task import DeclaredLost, StatusUpdate, TaskState
from scheduler.views import AgentsChanged, Change, LinkChanged, LinkState

logger = logging.getLogger(__name__)

_SUBSCRIBED: Final = CrashPoint("subscribe.granted", "Mesos gave a framework id, not recorded")
_ID_RECORDED: Final = CrashPoint("subscribe.recorded", "the framework id is recorded, unused")

LONG_REFUSAL: Final = 3600.0
"""Seconds for which offers are refused that nobody waits for; a revive ends that."""
SHORT_REFUSAL: Final = 1.0
MOVED_REFUSAL: Final = 30.0
"""Seconds for which offers are refused in one role, so that they come in another."""
LEAVE_AGAIN: Final = 60.0
"""Seconds after which Mesos may ask again to leave an agent."""
AGENTS_SECONDS: Final = 5.0
"""How long the master may take to list its agents."""
STOCK_SECONDS: Final = 2.0
"""For how long a list of our tasks is good."""
_FORGOTTEN: Final = ("TASK_UNKNOWN", "TASK_LOST")
_SETTLED: Final = (TaskState.WAITING, TaskState.STARTING, TaskState.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How patient the scheduler is, in seconds."""

    tick: float = 1.0
    """Between two looks at the timers."""
    agents: float = 5.0
    """Between two looks at the master's list of agents; every tick, while graphs wait."""
    offer_hold: float = 20.0
    """How long an offer is held while graphs wait; other frameworks live of that."""
    revive: float = 60.0
    """After which offers are asked for again, while graphs wait and none came: the call may have been lost."""
    silence: float = 10.0
    """How long a task may be launching, stopping or in doubt without news before Mesos is asked."""
    patience: float = 30.0
    """How long Mesos may not know a task before it is declared lost."""
    reconcile: float = 600.0
    """Between two reconciliations of everything."""
    kill_interval: float = 5.0
    """Between two kills of a task that does not end."""
    no_master: float = 20.0
    """How long there may be no master before launches are refused at once: it takes less to fail over."""
    adoption: float = 0.0
    """How long a launch that a predecessor began waits for :meth:`Scheduler.resume
    <scheduler.service.Scheduler.resume>`, before it is taken down."""
    goahead: float = 3600.0
    """How long a waiting task asks for its go-ahead."""


def _ends_within(entry: TaskEntry, seconds: float) -> bool:
    """Whether a task will have ended by then, or does not mind."""
    if entry.ends_by is None or entry.template.tolerates_maintenance:
        return stay((entry.template,)) <= max(0.0, seconds)
    return entry.ends_by - asyncio.get_running_loop().time() <= seconds


class Subscription:
    """Our side of the conversation with Mesos.

    Parameters
    ----------
    tell
        Is called with every change of the link and of the agents.
    figures
        Is told of offers.
    """

    def __init__(
        self,
        settings: FrameworkSettings,
        framework: Framework,
        framework_id: str | None,
        *,
        journal: Journal,
        runs: Runs,
        queue: LaunchQueue,
        pool: OfferPool,
        agents: Agents,
        timing: Timing,
        tell: Callable[[Change], None],
        figures: Figures | None = None,
    ) -> None:
        self._figures: Figures = figures or NoFigures()
        self._framework = framework
        self.framework_id = framework_id
        self._journal = journal
        self._runs = runs
        self._queue = queue
        self._pool = pool
        self._agents = agents
        self._timing = timing
        self._tell = tell
        self._asked_at = -inf
        """When Mesos was last told whether we want offers."""
        self._authorization = basic(settings.principal, settings.secret)
        self.tls = settings.tls
        """Checks the certificates of masters and agents; None: they speak plain HTTP."""
        self.link = LinkChanged(LinkState.DISCONNECTED, "", "not yet connected")
        self.link_since = time.time()
        """Unix time of the last change between connected and not."""
        self._changed_at = asyncio.get_running_loop().time()
        self._reconciled_at = 0.0
        self._unanswered: set[str] = set()
        """Ids of tasks that Mesos was asked for since we subscribed, and has not spoken of."""
        self._ask_again_at, self._ask_pause = 0.0, timing.silence
        self._looked_at = 0.0
        self.rebuilding: Rebuilding | None = None
        """Puts back what the journal has lost."""
        self._stock_taken = asyncio.Event()
        self._stock = Stock.of()
        self._stock_at = float("-inf")

    # ------------------------------------------------------------------ what Mesos says

    async def listen(self) -> None:
        """Handle what Mesos says, until the link is ended; the loop goes on in between.

        A reconciliation is answered with an update of every task, all at once, and most of them are no news.
        """
        breath = Breath()
        async for event in self._framework.events():
            await self._handle(event)
            await breath.step()

    async def _handle(self, event: LinkEvent) -> None:
        match event:
            case Subscribed():
                await self._subscribed(event)
            case Disconnected(reason):
                self._disconnected(LinkState.DISCONNECTED, reason)
            case Lost(reason):
                self._disconnected(LinkState.LOST, reason)
                for run in self._runs:
                    self._queue.withdraw(run.graph.graph_id, FrameworkError(f"Mesos: {reason}"))
            case AskedToLeave(offers):
                self._answer(offers)
            case Offered(offers):
                self._figures.offered(len(offers), "received")
                if self._queue.closures.note(offers):
                    self._tell(AgentsChanged())
                self._pool.add(offers, asyncio.get_running_loop().time())
                self._give_useless_back()
                self._queue.poke()
            case Rescinded(offer_id):
                self._figures.offered(1, "rescinded")
                self._pool.rescind(offer_id)
            case AgentLost(agent_id):
                self._pool.drop_agent(agent_id)
                self._queue.closures.forget(agent_id)
                self._looked_at = 0.0
            case Updated(status):
                await self._updated(status)

    async def _subscribed(self, event: Subscribed) -> None:
        """Make the id safe before anything is done under it; then ask for all that may have changed."""
        if event.framework_id != self.framework_id:
            _SUBSCRIBED.reached()
            write = self._journal.record_framework_id
            await insist(float("inf"), lambda: write(event.framework_id))
            self.framework_id = event.framework_id
            _ID_RECORDED.reached()
        self._pool.clear()
        self._framework.confirm()
        self._set_link(LinkState.CONNECTED, event.master, "")
        self._figures.reached("subscribed")
        self.want_offers(self._queue.busy)
        if not self._stock_taken.is_set():
            if any(True for _ in self._runs):  # of a predecessor, whose last words may be lost
                await self._take_stock()
            self._stock_taken.set()
            self._figures.reached("compared")
        self._reconcile_all()
        self._looked_at = 0.0

    def _disconnected(self, state: LinkState, reason: str) -> None:
        self._pool.clear()
        self._agents.forget()
        self._set_link(state, "", reason)

    def _set_link(self, state: LinkState, master: str, reason: str) -> None:
        """Set the state: the only place that does."""
        link = LinkChanged(state, master, reason)
        if link == self.link or self.link.state is LinkState.LOST:  # nothing leads out of that
            return
        if state is not self.link.state:
            self.link_since = time.time()
            self._changed_at = asyncio.get_running_loop().time()
            level = logging.INFO if state is LinkState.CONNECTED else logging.WARNING
            logger.log(level, "Mesos: %s %s%s", state.value, master, reason)
        self.link = link
        self._tell(link)

    @property
    def connected(self) -> bool:
        """Whether Mesos listens to us now."""
        return self.link.state is LinkState.CONNECTED

    def require_master(self) -> None:
        """Refuse what could only wait for a master that is not there.

        Raises
        ------
        FrameworkError
            If there has been none for a while, or Mesos does not take us any more.
        """
        if self.link.state is LinkState.LOST:
            raise FrameworkError(
                f"Mesos does not take this framework any more ({self.link.reason}): an operator must act"
            )
        away = asyncio.get_running_loop().time() - self._changed_at
        if not self.connected and away > self._timing.no_master:
            raise FrameworkError(self.absence)

    @property
    def absence(self) -> str:
        """Since when there is no master, for people; empty when there is one."""
        if self.connected:
            return ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.link_since))
        return f"no Mesos master since {since} UTC: {self.link.reason}"

    async def _updated(self, status: StatusUpdate) -> None:
        self._unanswered.discard(status.task_id)
        entry = self._runs.entry(status.task_id)
        if status.state in LIVE and (entry is None or entry.life.state in UNLAUNCHED):
            entry = await self._looked_up(status.task_id)
        if entry is None:
            self._stranger(status)
            self._framework.acknowledge(status)
            return
        try:
            await self._runs.apply(entry, status)
        except JournalError as exc:  # Mesos will say it again
            logger.warning("an update of %s is not acknowledged: %s", status.task_id, exc)
        else:
            self._framework.acknowledge(status)

    def _stranger(self, status: StatusUpdate) -> None:
        """Kill what runs under our name without a record: nobody else would ever end it."""
        if status.state in LIVE:
            if self.rebuilding is not None:
                self.rebuilding.killed(status.task_id, self._stock)
            self._framework.kill(status.task_id)

    async def _looked_up(self, task_id: str) -> TaskEntry | None:
        """Return a task that runs without a record; None where that cannot be put back."""
        at = asyncio.get_running_loop().time()
        if at - self._stock_at > STOCK_SECONDS or task_id not in self._stock.tasks:
            await self._take_stock()
        return self._runs.entry(task_id)

    async def _take_stock(self) -> None:
        """Compare our records with what the master knows of our tasks."""
        if self.framework_id is None or self.rebuilding is None:
            return
        await self.look_at_agents()
        found = await inventory(self.link.master, self._authorization, self.framework_id, self.tls)
        if found is None:
            logger.warning("the master does not tell our tasks: what has no record is killed")
            return
        self._stock, self._stock_at = Stock.of(found), asyncio.get_running_loop().time()
        leaving = ("draining", "drained")
        excused = {v.agent_id for v in self._agents.views() if v.condition in leaving}
        await self.rebuilding.take_stock(self._stock, excused)

    async def known(self, seconds: float) -> None:
        """Wait until what Mesos knows was compared with our records; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stock_taken.wait()

    # ------------------------------------------------------------------ offers

    def want_offers(self, wanted: bool) -> None:
        """Say whether offers are of use to us."""
        self._asked_at = asyncio.get_running_loop().time()
        if wanted:
            self._framework.revive(self._queue.roles_wanted)
        else:
            self._framework.suppress()
        self._give_useless_back()

    def _give_useless_back(self) -> None:
        """Decline what nobody waits for: what is offered in one role is not offered in another."""
        queue, pool = self._queue, self._pool
        useless = pool.take_beyond(queue.roles_wanted) if queue.busy else pool.clear()
        if useless:
            self._framework.decline(useless, refuse_seconds=LONG_REFUSAL)

    def _answer(self, offers: Iterable[Mapping[str, Any]]) -> None:
        """Say whether we will have left agents before their maintenance begins: as it looks now."""
        offers = [offer for offer in offers if isinstance(offer, Mapping)]
        if self._queue.closures.note(offers):
            self._tell(AgentsChanged())
        for offer in offers:
            offer_id, window = offer.get("id", {}).get("value"), read_window(offer)
            if not isinstance(offer_id, str) or window is None:
                continue
            agent_id = str(offer.get("agent_id", {}).get("value", ""))
            held = [e for e in self._runs.live_entries() if e.life.agent_id == agent_id]
            left = window.start - time.time()
            leave = all(_ends_within(entry, left) for entry in held)
            names = ", ".join(sorted(entry.task.task_id for entry in held))
            logger.warning(
                "agent %s is due for maintenance %s: %s",
                agent_id,
                window,
                "all of ours will have left" if leave else f"{names} stay",
            )
            seconds = LONG_REFUSAL if leave else LEAVE_AGAIN
            self._framework.answer(offer_id, accept=leave, refuse_seconds=seconds)

    # ------------------------------------------------------------------ timers

    async def keep_time(self) -> None:
        """Look at the timers, for ever."""
        while True:
            now = asyncio.get_running_loop().time()
            await self._look_after_tasks(now)
            if old := self._pool.take_older(now - self._timing.offer_hold):
                self._framework.decline(old, refuse_seconds=SHORT_REFUSAL)
            if moved := self._queue.take_misplaced():
                self._framework.decline(moved, refuse_seconds=MOVED_REFUSAL)
            if self._queue.busy and not self._pool and now - self._asked_at > self._timing.revive:
                self.want_offers(True)
            if now - self._reconciled_at > self._timing.reconcile:
                self._reconcile_all()
            if self._queue.busy or now - self._looked_at > self._timing.agents:
                await self.look_at_agents()
            await asyncio.sleep(self._timing.tick)

    async def _look_after_tasks(self, now: float) -> None:
        """Ask for tasks without news, and give up those that Mesos has not known for long."""
        if not self.connected:  # it could not answer
            return
        entries = self._runs.live_entries()
        for entry in entries:
            doubt = entry.life.doubt_since
            forgotten = entry.life.mesos_state in _FORGOTTEN
            if forgotten and doubt is not None and now - doubt > self._timing.patience:
                await self._declare_lost(entry)
        silent = [entry for entry in entries if self._wants_news(entry, now)]
        if self._unanswered and now >= self._ask_again_at:
            self._ask_pause = min(2 * self._ask_pause, self._timing.reconcile)
            self._ask_again_at = now + self._ask_pause
            asked = {entry.task.task_id for entry in silent}
            silent += [e for e in entries if e.task.task_id in self._unanswered - asked]
        for entry in silent:
            entry.news_at = now
        if silent:
            self._framework.reconcile([(e.life.task_id, e.life.agent_id) for e in silent])

    def _wants_news(self, entry: TaskEntry, now: float) -> bool:
        settled = entry.life.state in _SETTLED and entry.life.running
        restless = entry.life.doubt_since is not None or not settled
        return restless and not entry.dead and now - entry.news_at > self._timing.silence

    async def _declare_lost(self, entry: TaskEntry) -> None:
        cause = f"Mesos has not known it for {self._timing.patience:g} s ({entry.life.mesos_state})"
        try:
            await self._runs.apply(entry, DeclaredLost(cause))
        except JournalError as exc:
            logger.warning("the loss of %s was not recorded: %s", entry.task.task_id, exc)

    def _reconcile_all(self) -> None:
        """Ask for every task that we know of, then for every task that Mesos knows of.

        A new master does not answer for an agent that has not come back to it: it is asked again, after
        growing pauses, until it has spoken of every task.
        """
        self._reconciled_at = asyncio.get_running_loop().time()
        if not self.connected:
            return
        known = [(e.life.task_id, e.life.agent_id) for e in self._runs.live_entries()]
        self._unanswered = {task_id for task_id, _ in known}
        self._ask_pause = self._timing.silence
        self._ask_again_at = self._reconciled_at + self._ask_pause
        if known:
            self._framework.reconcile(known)
        self._framework.reconcile()

    async def look_at_agents(self) -> None:
        """Read the master's list of agents."""
        self._looked_at = asyncio.get_running_loop().time()
        if not self.connected:
            return
        link = self.link
        document = await agents_module.fetch(
            link.master, self._authorization, AGENTS_SECONDS, tls=self.tls
        )
        if document is None or self.link is not link:  # another master may know others
            return
        changed = await self._agents.update(document, asyncio.get_running_loop().time())
        if self.link is not link:
            self._agents.forget()
        elif changed:
            self._tell(AgentsChanged())
        if self._queue.busy:
            self._queue.poke()
