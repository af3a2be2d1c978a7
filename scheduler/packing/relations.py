"""Relations between tasks, as what packing works with: tickets and ties.

A *ticket* is a slot that a rule adds. Of two tasks that must not meet, one draws all of the ticket of the zone
(or device) and the other draws one: so both together are more than there is. A *tie* is a set of tasks that
must be in one zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from scheduler.requests import GpuRequest, NicRequest, TaskRequest

Share = tuple[int, int]
"""Number of a ticket, and how much is drawn of it."""


@dataclass(slots=True)
class Tickets:
    """Tickets, and who draws how much of them."""

    capacity: list[int] = field(default_factory=list)
    what: list[str] = field(default_factory=list)
    """By ticket: the fact that makes its zones, or what it is for."""
    shares: dict[int, list[Share]] = field(default_factory=dict)
    """By number of the task or want."""

    def limit(self, what: str, members: Iterable[int], most: int) -> None:
        """Let no zone have more than `most` of the members."""
        self._add(what, most, ((member, 1) for member in members))

    def separate(self, what: str, pairs: Iterable[tuple[int, int]]) -> None:
        """Let no zone have both of any pair; the fewer of left and right have a ticket each."""
        keepers: tuple[dict[int, dict[int, None]], dict[int, dict[int, None]]] = ({}, {})
        for left, right in pairs:
            keepers[0].setdefault(left, {})[right] = None
            keepers[1].setdefault(right, {})[left] = None
        for keeper, others in min(keepers, key=len).items():
            draws = ((keeper, len(others)), *((other, 1) for other in others))
            self._add(what, len(others), draws)

    def _add(self, what: str, capacity: int, draws: Iterable[Share]) -> None:
        for who, amount in draws:
            self.shares.setdefault(who, []).append((len(self.capacity), amount))
        self.capacity.append(capacity)
        self.what.append(what)


class Groups:
    """Which tasks are in which group."""

    def __init__(self, tasks: Sequence[tuple[str, TaskRequest]]) -> None:
        self._members: dict[str, list[int]] = {}
        for number, (name, request) in enumerate(tasks):
            for group in dict.fromkeys((name, *request.groups)):
                self._members.setdefault(group, []).append(number)

    def __getitem__(self, group: str) -> list[int]:
        return self._members.get(group, [])


def zone_tickets(tasks: Sequence[tuple[str, TaskRequest]]) -> Tickets:
    """Return the tickets of `at_most` and `apart`; who draws them are tasks, by number."""
    tickets = Tickets()
    requests = [request for _, request in tasks]
    if not any(map(attrgetter("at_most"), requests)) and not any(
        map(attrgetter("apart"), requests)
    ):
        return tickets
    limits: dict[tuple[str, str], int] = {}
    askers: dict[tuple[str, str], list[int]] = {}
    for number, (_, request) in enumerate(tasks):
        for rule in request.at_most:
            key = rule.group, rule.fact
            limits[key] = min(rule.most, limits.get(key, rule.most))
        for relation in request.apart:
            askers.setdefault((relation.group, relation.fact), []).append(number)
    groups = Groups(tasks)
    for (group, fact), most in limits.items():
        tickets.limit(fact, groups[group], most)
    pairs: dict[str, dict[tuple[int, int], None]] = {}
    for (group, fact), asking in askers.items():
        members, own = groups[group], set(asking).intersection(groups[group])
        if len(own) > 1:  # each of these keeps away from each other
            tickets.limit(fact, sorted(own), 1)
        for asker in asking:
            for member in members:
                if member != asker and not (asker in own and member in own):
                    pairs.setdefault(fact, {})[asker, member] = None
    for fact, found in pairs.items():
        tickets.separate(fact, found)
    return tickets


MULTICAST, EXCLUSIVE = "multicast", "exclusive"
"""What tickets of devices are for: of interfaces without loopback, of GPUs."""


def device_tickets(wants: Sequence[GpuRequest | NicRequest], *, loopback_off: bool) -> Tickets:
    """Return the tickets of devices; who draws them are wants, by number.

    Parameters
    ----------
    loopback_off
        Whether the cluster has interfaces without multicast loopback at all.
    """
    tickets = Tickets()
    alone = {n for n, want in enumerate(wants) if isinstance(want, GpuRequest) and want.exclusive}
    if alone:
        gpus = [n for n, want in enumerate(wants) if isinstance(want, GpuRequest)]
        others = [(n, other) for n in alone for other in gpus if other not in alone]
        tickets.limit(EXCLUSIVE, sorted(alone), 1)
        tickets.separate(EXCLUSIVE, others)
    if loopback_off:
        tickets.separate(MULTICAST, _unheard(wants))
    return tickets


def _unheard(wants: Sequence[GpuRequest | NicRequest]) -> dict[tuple[int, int], None]:
    """Return the pairs of a sender by ibverbs and a receiver of the same multicast group."""
    receivers: dict[str, list[int]] = {}
    for number, want in enumerate(wants):
        if isinstance(want, NicRequest):
            for group in want.receives:
                receivers.setdefault(group, []).append(number)
    return {
        (sender, receiver): None
        for sender, want in enumerate(wants)
        if isinstance(want, NicRequest) and want.ibverbs
        for group in want.sends
        for receiver in receivers.get(group, ())
        if receiver != sender
    }


@dataclass(frozen=True, slots=True)
class Ties:
    """Tasks that must be in one zone."""

    facts: Sequence[str] = ()
    """By tie: what makes its zones."""
    of_task: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """By number of the task: its ties, one for a fact at most."""

    def members(self, tie: int) -> list[int]:
        """Return the tasks of a tie."""
        return [task for task, ties in self.of_task.items() if tie in ties]


def ties(tasks: Sequence[tuple[str, TaskRequest]]) -> Ties:
    """Return the ties of `together`: by fact, tasks that hang together directly or through others."""
    if not any(map(attrgetter("together"), [request for _, request in tasks])):
        return Ties()
    asking = [(n, t) for n, (_, request) in enumerate(tasks) for t in request.together]
    groups = Groups(tasks)
    sets: dict[str, list[set[int]]] = {}
    for number, relation in asking:
        mine = {number, *groups[relation.group]}
        apart = [other for other in sets.get(relation.fact, []) if not other & mine]
        joined = [other for other in sets.get(relation.fact, []) if other & mine]
        sets[relation.fact] = [*apart, mine.union(*joined)]
    found = [(fact, members) for fact, of_fact in sets.items() for members in of_fact]
    of_task: dict[int, list[int]] = {}
    for tie, (_, members) in enumerate(found):
        for member in sorted(members):
            of_task.setdefault(member, []).append(tie)
    return Ties([fact for fact, _ in found], of_task)
