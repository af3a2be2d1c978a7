"""Which agents a task may run on at all, and which devices can serve a request, whatever is free."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.constraints import Constraint, DataAt, Rule, named
from scheduler.packing.arrays import NO, RATHER_ELSEWHERE, YES
from scheduler.placement import Running
from scheduler.quantities import Millis
from scheduler.requests import MAX_SHARE, GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic


@dataclass(frozen=True, slots=True)
class Admission:
    """What decides on which agents a task may run."""

    host: str | None = None
    subsystem: str | None = None
    constraints: tuple[Constraint, ...] = ()
    data: tuple[DataAt, ...] = ()

    @classmethod
    def of(cls, request: TaskRequest) -> Admission:
        """Take it from a request."""
        return cls(request.host, request.subsystem, request.constraints, request.data)

    def grade(self, agent: AgentSnapshot) -> int:
        """Tell whether tasks may run on the agent: NO, YES or RATHER_ELSEWHERE."""
        if self.refusal(agent):
            return NO
        at_data = all(agent.fact(data.fact) in data.values for data in self.data)
        return YES if at_data else RATHER_ELSEWHERE

    def refusal(self, agent: AgentSnapshot) -> str:
        """Say why tasks may not run on the agent, for people; empty if they may."""
        if (contrary := self.contrary(agent)) is None:
            return ""
        asked, told = contrary
        return f"asks for {asked}, here it is {told}"

    def contrary(self, agent: AgentSnapshot) -> tuple[str, str] | None:
        """Say what tasks ask of the agent itself, and what it is instead; None if they may run there."""
        if self.host is not None and self.host != agent.host:
            return f"host {self.host}", agent.host
        subsystems = agent.topology.subsystems
        if subsystems and self.subsystem not in subsystems:
            asked = f"subsystem {self.subsystem}" if self.subsystem else "an agent of any subsystem"
            return asked, f"for {', '.join(subsystems)} only"
        for constraint in self.constraints:
            if not _holds(constraint, told := agent.fact(constraint.fact)):
                return str(constraint), told or "not told"
        for data in self.data:
            if data.required and (told := agent.fact(data.fact)) not in data.values:
                return str(data), told or "not told"
        return None


def _holds(constraint: Constraint, value: str | None) -> bool:
    match constraint.rule:
        case Rule.EQUAL:
            return value == constraint.value
        case Rule.NOT:
            return value != constraint.value
        case Rule.LIKE:
            return value is not None and re.fullmatch(constraint.value, value) is not None


@dataclass(frozen=True, slots=True)
class Multicast:
    """Multicast groups that run on an interface already."""

    sent: frozenset[str] = frozenset()
    """By ibverbs."""
    received: frozenset[str] = frozenset()


Interface = tuple[str, int]
"""Mesos' id of the agent, number of the interface."""


@dataclass(frozen=True, slots=True)
class GpuService:
    """What a GPU must be to serve a request."""

    name: str | None = None
    min_capability: tuple[int, int] | None = None
    exclusive: bool = False

    @classmethod
    def of(cls, request: GpuRequest) -> GpuService:
        """Take it from a request."""
        return cls(request.name, request.min_capability, request.exclusive)

    def given_by(self, gpu: Gpu, *, untouched: bool) -> bool:
        """Whether a GPU gives it, of which all is free or not."""
        if self.name is not None and not named(self.name, gpu.name):
            return False
        if self.min_capability is not None:
            capability = gpu.compute_capability
            if capability is None or capability < self.min_capability:
                return False
        return untouched or not self.exclusive


def untouched(gpu: Gpu, compute: Millis, mem: Millis) -> bool:
    """Whether all of a GPU is free, of which so much is."""
    return compute >= MAX_SHARE and mem >= 1000 * (gpu.mem_mib or 0)


@dataclass(frozen=True, slots=True)
class NicService:
    """What an interface must be to serve a request."""

    network: str
    ibverbs: bool = False
    sends: frozenset[str] = frozenset()
    """By ibverbs: groups that somebody may receive already, or that the request itself receives."""
    receives: frozenset[str] = frozenset()
    """Groups that somebody may send by ibverbs already."""

    @classmethod
    def of(cls, request: NicRequest, running: Multicast) -> NicService:
        """Take it from a request; `running` is all multicast traffic of the cluster."""
        sends = frozenset(request.sends if request.ibverbs else ())
        own = sends.intersection(request.receives)
        received = running.sent.intersection(request.receives)
        return cls(
            request.network, request.ibverbs, own | (sends & running.received), own | received
        )

    def given_by(self, nic: Nic, running: Multicast) -> bool:
        """Whether an interface gives it that carries that traffic already."""
        if self.network not in nic.networks or (self.ibverbs and not nic.infiniband):
            return False
        if nic.multicast_loopback:
            return True
        heard = running.sent | self.sends, running.received | self.receives
        return not (self.sends & heard[1] or self.receives & heard[0])


@dataclass(slots=True)
class Traffic:
    """Multicast traffic that runs already."""

    by_interface: Mapping[Interface, Multicast] = field(default_factory=dict)
    all: Multicast = Multicast()

    @classmethod
    def of(cls, running: Sequence[Running]) -> Traffic:
        """Add up what runs."""
        sent: dict[Interface, set[str]] = {}
        received: dict[Interface, set[str]] = {}
        for task in running:
            for nic, number in zip(task.request.nics, task.assignment.nics, strict=True):
                if nic.sends or nic.receives:
                    key = task.agent_id, number
                    received.setdefault(key, set()).update(nic.receives)
                    sent.setdefault(key, set()).update(nic.sends if nic.ibverbs else ())
        here = {key: Multicast(frozenset(sent[key]), frozenset(received[key])) for key in sent}
        everything = Multicast(
            frozenset().union(*(m.sent for m in here.values())),
            frozenset().union(*(m.received for m in here.values())),
        )
        return cls(here, everything)

    def on(self, agent: AgentSnapshot, number: int) -> Multicast:
        """Return what runs on one interface."""
        return self.by_interface.get((agent.mesos_agent_id, number), Multicast())
