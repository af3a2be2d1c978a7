"""Faults of a cluster, produced at will.

A cluster has one :class:`Faults` (``cluster.faults``). Tests call it; people do over HTTP
(:mod:`~scheduler.embedded.faults.admin`). Which fault of a real Mesos each stands for is in
``docs/embedded-cluster.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from scheduler.embedded.clock import Clock
from scheduler.embedded.faults.rules import (
    CallAction,
    CallRule,
    Delay,
    Drop,
    Duplicate,
    EventAction,
    EventRule,
    Hang,
    Refuse,
    Reorder,
    Rule,
    like,
)
from scheduler.embedded.faults.streams import FaultyStream
from scheduler.embedded.model import AgentSpec
from scheduler.embedded.reconfiguration import ReconfigurationPolicy
from scheduler.quantities import Resources

if TYPE_CHECKING:
    from scheduler.embedded.agents import Agents
    from scheduler.embedded.master import Master

__all__ = ["Delay", "Drop", "Duplicate", "Faults", "Hang", "Refuse", "Reorder"]

RECOVERY: float = 2.5
"""Seconds that a restarted agent needs to be back (measured with Mesos 1.12)."""


class Victim(Protocol):
    """A cluster, as far as faults need one."""

    agents: Agents

    @property
    def master(self) -> Master:
        """The master of the moment."""
        ...

    async def stop_master(self) -> None:
        """Let the master die."""
        ...

    async def start_master(self, recovery: float = 0.0, *, agents: bool = True) -> None:
        """Start another one."""
        ...


class Faults:
    """What can go wrong with a cluster.

    Parameters
    ----------
    cluster
        Whose master and agents they befall.
    """

    def __init__(self, cluster: Victim) -> None:
        self._cluster = cluster
        self._event_rules: list[EventRule] = []
        self._call_rules: list[CallRule] = []
        self._streams: list[FaultyStream] = []
        self._withheld: set[str] = set()
        self._refusal: tuple[Refuse, float] | None = None

    # Hooks of the cluster

    def befall(self, master: Master) -> None:
        """Be the faults of a master that begins."""
        master.open_stream = self._open_stream
        master.desk.withheld = self._withheld

    async def before_call(self, call: Mapping[str, Any]) -> tuple[int, str] | None:
        """Do to a validated call what a rule says; return the answer when the master is not to see it."""
        if (answer := self.refusal()) is not None:
            return answer
        framework_id = call.get("framework_id", {}).get("value", "")
        rule = next((r for r in self._call_rules if r.meets(call, framework_id)), None)
        match None if rule is None else rule.action:
            case Drop():
                return HTTPStatus.ACCEPTED, ""
            case Delay(seconds):
                await self.wait(seconds)
            case Refuse(status, text):
                return status, text
            case Hang():
                await asyncio.Event().wait()  # until the connection is lost
        return None

    def refusal(self) -> tuple[int, str] | None:
        """Return what every request is answered with for now; None: what it should be."""
        if self._refusal is None or self._clock.monotonic() >= self._refusal[1]:
            self._refusal = None
            return None
        return self._refusal[0].status, self._refusal[0].text

    # Events and calls

    def on_event(self, action: EventAction, kind: str = "UPDATE", **whom: Any) -> EventRule:
        """Let something happen to events on their way to frameworks.

        Parameters
        ----------
        action
            :class:`Drop`, :class:`Delay`, :class:`Duplicate` or :class:`Reorder`.
        kind
            Type of the events.
        whom
            ``framework``, ``task``, ``agent`` (an id), ``state``, ``times``: fields of
            :class:`~scheduler.embedded.faults.rules.Rule`.
        """
        rule = EventRule(action=action, kind=kind, **whom)
        self._event_rules.append(rule)
        return rule

    def on_call(self, action: CallAction, kind: str | None = None, **whom: Any) -> CallRule:
        """Let something happen to calls on their way to the master.

        Parameters
        ----------
        action
            :class:`Drop`, :class:`Delay`, :class:`Refuse` or :class:`Hang`.
        kind
            Type of the calls; None: all of them.
        whom
            As in :meth:`on_event`.
        """
        rule = CallRule(action=action, kind=kind, **whom)
        self._call_rules.append(rule)
        return rule

    def rules(self) -> list[Rule]:
        """Return the rules that may still meet somebody."""
        return [rule for rule in (*self._event_rules, *self._call_rules) if rule.times > 0]

    def clear(self) -> None:
        """End all rules, windows and withholding; what has happened is not undone."""
        self._event_rules.clear()
        self._call_rules.clear()
        self._withheld.clear()
        self._refusal = None
        self._cluster.master.allocate_soon()

    def refuse_requests(self, status: int, seconds: float, text: str = "") -> None:
        """Answer every request of the scheduler API with an error for a while."""
        self._refusal = (Refuse(status, text), self._clock.monotonic() + seconds)

    def silence(self, framework: str = "*") -> int:
        """Let connections be half open: nothing comes any more, and nothing tells; return how many."""
        streams = [s for s in self._streams if not s.closed and like(framework, s.framework_id)]
        for stream in streams:
            stream.silent = True
        return len(streams)

    def send_error(self, message: str, framework: str = "*") -> None:
        """Send an ERROR event, and end the stream as a master does."""
        for stream in self._streams:
            if not stream.closed and like(framework, stream.framework_id):
                stream.send({"type": "ERROR", "error": {"message": message}})
                stream.close()

    # Offers

    def rescind(self, agent: str = "*") -> int:
        """Rescind all offers of some agents; return how many. They are made again in the next run."""
        master = self._cluster.master
        offers = [
            offer
            for record in master.agents.values()
            if like(agent, record.info.spec.hostname)
            for offer in record.offers.values()
        ]
        master.desk.withdraw(offers, rescind=True)
        return len(offers)

    def withhold(self, agent: str) -> None:
        """Offer nothing of an agent any more; its offers that are out stay."""
        self._cluster.agents.state(agent)  # it must exist
        self._withheld.add(agent)

    def offer_again(self, agent: str) -> None:
        """Offer what an agent has."""
        self._withheld.discard(agent)
        self._cluster.master.allocate_soon()

    # Agents

    def partition(self, agent: str) -> None:
        """Cut an agent off: it hears and says nothing, its tasks run on, and its connection stays open."""
        self._cluster.agents.freeze(agent)

    def heal(self, agent: str) -> None:
        """End a partition."""
        self._cluster.agents.thaw(agent)

    def kill_agent(self, agent: str) -> None:
        """Let an agent's process die; its tasks run on."""
        self._cluster.agents.kill(agent)

    def lose_machine(self, agent: str) -> None:
        """Let an agent's machine go down, with all its tasks."""
        self._cluster.agents.reboot(agent)

    def start_agent(
        self,
        agent: str,
        *,
        resources: Resources | None = None,
        attributes: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> None:
        """Start an agent that has died, perhaps with something else than it had.

        Parameters
        ----------
        agent
            Its host name.
        resources, attributes
            What it has now; None: what it had. More than it had is taken while its tasks live, less only with
            `fresh`, as with ``--reconfiguration_policy=additive``.
        fresh
            Whether it comes as a new agent, without what it had.
        """
        spec = self._cluster.agents[agent].info.spec
        changed = _changed(spec, resources, attributes)
        self._cluster.agents.start(changed, ReconfigurationPolicy.ADDITIVE, fresh=fresh)

    async def restart_agent(self, agent: str, down: float = RECOVERY) -> None:
        """Let an agent's process die and come back; return when it is back."""
        self.kill_agent(agent)
        await self.wait(down)
        self.start_agent(agent)

    # Master

    async def fail_over(
        self, down: float = 1.0, recovery: float = 0.5, agents_after: float = 3.0
    ) -> None:
        """Let the master die and another one lead; return when agents have found it.

        Parameters
        ----------
        down
            Seconds without a master.
        recovery
            Seconds for which the new one answers 503.
        agents_after
            Seconds from its start until the agents register.
        """
        clock = self._clock
        await self._cluster.stop_master()
        await _wait(clock, down)
        await self._cluster.start_master(recovery, agents=False)
        await self.wait(agents_after)
        self._cluster.agents.attach(self._cluster.master)

    async def wait(self, seconds: float) -> None:
        """Let time pass by the cluster's clock."""
        await _wait(self._clock, seconds)

    @property
    def _clock(self) -> Clock:
        return self._cluster.master.clock

    def _open_stream(self) -> FaultyStream:
        self._streams = [stream for stream in self._streams if not stream.closed]
        stream = FaultyStream(self._clock, self._event_rules)
        self._streams.append(stream)
        return stream


async def _wait(clock: Clock, seconds: float) -> None:
    done = asyncio.Event()
    timer = clock.call_later(seconds, done.set)
    try:
        await done.wait()
    finally:
        timer.cancel()


def _changed(
    spec: AgentSpec, resources: Resources | None, attributes: Mapping[str, str] | None
) -> AgentSpec:
    changes: dict[str, Any] = {}
    if resources is not None:
        changes["resources"] = resources
    if attributes is not None:
        changes["attributes"] = dict(attributes)
    return replace(spec, **changes)
