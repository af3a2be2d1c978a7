"""What an independent check of a placement says of tasks beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scheduler.placement import Assignment, Running
from scheduler.requests import NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot


@dataclass(frozen=True, slots=True)
class Placed:
    """A task with its place."""

    name: str
    request: TaskRequest
    assignment: Assignment
    agent: AgentSnapshot

    def is_in(self, group: str) -> bool:
        """Whether the task is in a group."""
        return group == self.name or group in self.request.groups


def between(placed: Sequence[Placed], tasks: Mapping[str, TaskRequest]) -> Iterator[str]:
    """Yield what is wrong between tasks of a graph: relations, exclusive GPUs."""
    for one in placed:
        yield from _together(one, placed)
        yield from _apart(one, placed, tasks)
    yield from _at_most(placed, tasks)
    yield from _exclusive(placed)


def _together(one: Placed, placed: Sequence[Placed]) -> Iterator[str]:
    for relation in one.request.together:
        mine = one.agent.fact(relation.fact)
        if mine is None:
            yield f"{one.name}: {relation}, but {one.agent.host} does not tell its {relation.fact}"
        for other in placed:
            there = other.agent.fact(relation.fact)
            if other.is_in(relation.group) and there != mine:
                yield f"{one.name}: {relation}, but {other.name} is on {there}, not {mine}"


def _apart(
    one: Placed, placed: Sequence[Placed], tasks: Mapping[str, TaskRequest]
) -> Iterator[str]:
    for relation in one.request.apart:
        group, mine = relation.group, one.agent.fact(relation.fact)
        alone = all(
            n == one.name or (n != group and group not in r.groups) for n, r in tasks.items()
        )
        if not alone and mine is None:
            yield f"{one.name}: {relation}, but {one.agent.host} does not tell its {relation.fact}"
        for other in placed:
            if other is one or not other.is_in(group):
                continue
            if other.agent.fact(relation.fact) in (None, mine):
                yield f"{one.name}: {relation}, but {other.name} is on {mine}, too"


def _at_most(placed: Sequence[Placed], tasks: Mapping[str, TaskRequest]) -> Iterator[str]:
    rules = {rule for request in tasks.values() for rule in request.at_most}
    for rule in sorted(rules, key=str):
        members = [one for one in placed if one.is_in(rule.group)]
        counts = Counter(one.agent.fact(rule.fact) for one in members)
        if counts[None]:
            yield f"{rule}, but {counts[None]} are where no {rule.fact} is told"
        yield from (f"{rule}, but there are {n} on {v}" for v, n in counts.items() if n > rule.most)


def _exclusive(placed: Sequence[Placed]) -> Iterator[str]:
    users = Counter(
        (one.agent.mesos_agent_id, number) for one in placed for number in one.assignment.gpus
    )
    for one in placed:
        for gpu, number in zip(one.request.gpus, one.assignment.gpus, strict=True):
            if gpu.exclusive and users[one.agent.mesos_agent_id, number] > 1:
                yield f"{one.name}: GPU {number} of {one.agent.host} is exclusive, but has other users"


Use = tuple[str, NicRequest]
"""Name of a task, and what it asks of an interface."""


def unheard(placed: Sequence[Placed], running: Sequence[Running]) -> Iterator[str]:
    """Yield multicast that a receiver would not see: sent by ibverbs on its interface, without loopback."""
    uses: dict[tuple[str, int], list[Use]] = {}
    for one in placed:
        for nic, number in zip(one.request.nics, one.assignment.nics, strict=True):
            if not one.agent.topology.nics[number].multicast_loopback:
                uses.setdefault((one.agent.mesos_agent_id, number), []).append((one.name, nic))
    new = {one.name for one in placed}
    for task in running:
        for nic, number in zip(task.request.nics, task.assignment.nics, strict=True):
            if (here := uses.get((task.agent_id, number))) is not None:
                here.append(("what runs already", nic))
    for of_interface in uses.values():
        for sender, sent in of_interface:
            for receiver, received in of_interface:
                lost = set(sent.sends) & set(received.receives) if sent.ibverbs else ()
                if lost and {sender, receiver} & new:
                    yield f"{receiver}: does not see {sorted(lost)}, which {sender} sends beside it"
