"""The offers that we hold, and how tasks draw from them.

:class:`OfferPool` keeps what Mesos offers until it is accepted, declined or rescinded. :class:`Ledger`
divides the offers of one agent among tasks as Mesos wants it: every drawn resource repeats the reservation that
it is offered under, the most specific first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from scheduler.errors import QuantityError
from scheduler.packing import read_all
from scheduler.quantities import (
    Millis,
    Ranges,
    Resources,
    format_millis,
    from_millis,
    millis,
    read_resource,
)
from scheduler.topology import AgentSnapshot, MergedOffers, Quarantined, gathered, merge_agent

Offer = Mapping[str, Any]
"""An ``Offer`` message of Mesos' v1 scheduler API, in its JSON form."""

MAX_OFFERS: Final = 100_000
"""Offers that are held at a time; more are not taken (and run out at the master)."""
_NONE: Final = Ranges()
_COPIED: Final = ("allocation_info", "reservations", "role")


@dataclass(frozen=True, slots=True)
class _Held:
    offer: Offer
    agent_id: str
    since: float


class OfferPool:
    """All offers that we hold, and what they come to, agent by agent."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._of_agent: dict[str, dict[str, Offer]] = {}
        """The same offers, by agent and id."""
        self._known: dict[str, tuple[AgentSnapshot, ...] | Quarantined] = {}
        """What the offers of an agent come to, as it was when it was looked at last."""
        self._changed: dict[str, None] = {}
        """Agents whose offers are others since then."""
        self._merged: MergedOffers | None = None
        self.gained = 0
        """Grows whenever offers come: what did not fit before may fit then."""

    def __len__(self) -> int:
        return len(self._held)

    def add(self, offers: Iterable[Offer], at: float) -> None:
        """Hold these offers as well; those without an id are ignored."""
        for offer in offers:
            try:
                offer_id, agent_id = str(offer["id"]["value"]), str(offer["agent_id"]["value"])
            except (KeyError, TypeError):
                continue
            self.rescind(offer_id)
            if len(self._held) < MAX_OFFERS:
                self._held[offer_id] = _Held(offer, agent_id, at)
                self._of_agent.setdefault(agent_id, {})[offer_id] = offer
                self._note(agent_id)
        self.gained += 1

    def rescind(self, offer_id: str) -> None:
        """Forget an offer that Mesos took back."""
        if offer_id in self._held:
            self._remove(offer_id)

    def drop_agent(self, agent_id: str) -> None:
        """Forget the offers of an agent that is gone."""
        for offer_id in list(self._of_agent.get(agent_id, ())):
            self._remove(offer_id)

    def clear(self) -> list[str]:
        """Forget all, and return their ids."""
        return self.take_older(math.inf)

    def take_beyond(self, roles: Collection[str]) -> list[str]:
        """Forget the offers in other roles than these (none: in no role), and return their ids."""
        if not roles:
            return []
        ids = [
            offer_id
            for offer_id, held in self._held.items()
            if (role := _role(held.offer)) and role not in roles
        ]
        for offer_id in ids:
            self._remove(offer_id)
        return ids

    def take_older(self, than: float) -> list[str]:
        """Forget the offers that came before that time, and return their ids."""
        ids = [offer_id for offer_id, held in self._held.items() if held.since < than]
        for offer_id in ids:
            self._remove(offer_id)
        return ids

    def take(self, offer_ids: Iterable[str]) -> list[Offer] | None:
        """Take these offers out of the pool; None, and nothing taken, when one of them is gone."""
        ids = list(offer_ids)
        if any(offer_id not in self._held for offer_id in ids):
            return None
        return [self._remove(offer_id) for offer_id in ids]

    def _remove(self, offer_id: str) -> Offer:
        held = self._held.pop(offer_id)
        of_agent = self._of_agent[held.agent_id]
        del of_agent[offer_id]
        self._note(held.agent_id)
        return held.offer

    def _note(self, agent_id: str) -> None:
        """Take note that the offers of an agent are others."""
        self._merged = None
        if self._of_agent[agent_id]:
            self._changed[agent_id] = None
            return
        for by_agent in (self._of_agent, self._known, self._changed):
            by_agent.pop(agent_id, None)

    def merge_some(self, limit: int) -> bool:
        """Look at so many agents of which offers have changed; tell whether there may be more.

        Whoever must not be held up for long does this a few times before he asks for :meth:`merged`.
        """
        for agent_id in list(islice(self._changed, limit)):
            del self._changed[agent_id]
            found = merge_agent(agent_id, list(self._of_agent[agent_id].values()))
            if not isinstance(found, Quarantined):
                read_all(found)
            self._known[agent_id] = found
        return bool(self._changed)

    def merged(self) -> MergedOffers:
        """Return what is free on each agent."""
        if self._merged is None:
            self.merge_some(MAX_OFFERS)
            self._merged = gathered(self._known[agent_id] for agent_id in self._of_agent)
        return self._merged


def _role(offer: Offer) -> str:
    """Return the role in which something is offered; empty when the offer does not say."""
    told = offer.get("allocation_info")
    return str(told.get("role", "")) if isinstance(told, Mapping) else ""


def reserved_for(resource: Mapping[str, Any]) -> str:
    """Return the role that a resource is reserved for, as its message says; ``*``: for none."""
    if reservations := resource.get("reservations"):
        return str(reservations[-1].get("role", "*"))
    return str(resource.get("role", "*"))


@dataclass(slots=True)
class _Entry:
    """One offered resource: what is left of it, and what Mesos wants repeated."""

    scalar: Millis
    ranges: Ranges
    copied: Mapping[str, Any]

    @property
    def reservations(self) -> int:
        """How specific it is: the depth of its reservation."""
        if self.copied.get("role", "*") != "*":
            return 1
        return len(self.copied.get("reservations", ()))


def _entry(resource: Mapping[str, Any]) -> _Entry:
    _, amount = read_resource(resource)
    copied = {key: resource[key] for key in _COPIED if key in resource}
    if isinstance(amount, Ranges):
        return _Entry(0, amount, copied)
    return _Entry(amount, _NONE, copied)


class Ledger:
    """Divides the offers of one agent among tasks; of what these do not draw, nothing is read."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._offered: dict[str, list[Mapping[str, Any]]] = {}
        self._entries: dict[str, list[_Entry]] = {}
        for offer in offers:
            for resource in offer.get("resources", ()):
                self._offered.setdefault(resource["name"], []).append(resource)

    def _of(self, name: str) -> list[_Entry]:
        """Return what is offered of a resource, the most specific first."""
        if (entries := self._entries.get(name)) is None:
            entries = [_entry(resource) for resource in self._offered.get(name, ())]
            if len(entries) > 1:
                entries.sort(key=lambda entry: -entry.reservations)
            self._entries[name] = entries
        return entries

    def draw(self, wanted: Resources) -> list[dict[str, Any]]:
        """Take `wanted` out, as Mesos ``Resource`` messages.

        Raises
        ------
        QuantityError
            If there is not that much, or what is offered is malformed; nothing is promised about what is
            left then.
        """
        drawn: list[dict[str, Any]] = []
        for name, amount in sorted(wanted.scalars.items()):
            drawn += self._draw_scalar(name, amount)
        for name, members in sorted(wanted.ranges.items()):
            drawn += self._draw_ranges(name, members)
        once = len(drawn) == len(wanted.scalars) + len(wanted.ranges)
        return drawn if once else _joined(drawn)

    def _draw_scalar(self, name: str, amount: Millis) -> list[dict[str, Any]]:
        drawn: list[dict[str, Any]] = []
        for entry in self._of(name):
            if part := amount if amount < entry.scalar else entry.scalar:
                entry.scalar -= part
                amount -= part
                value = {"value": from_millis(part)}
                drawn.append({"name": name, "type": "SCALAR", "scalar": value, **entry.copied})
        if amount > 0:
            raise QuantityError(f"{name}: {format_millis(amount)} more than is offered")
        return drawn

    def _draw_ranges(self, name: str, members: Ranges) -> list[dict[str, Any]]:
        drawn: list[dict[str, Any]] = []
        for entry in self._of(name):
            if part := members & entry.ranges:
                entry.ranges -= part
                members = _NONE if part.intervals == members.intervals else members - part
                pairs = [{"begin": begin, "end": end} for begin, end in part.intervals]
                value = {"range": pairs}
                drawn.append({"name": name, "type": "RANGES", "ranges": value, **entry.copied})
        if members:
            raise QuantityError(f"{name}: {members} is not offered")
        return drawn


def _joined(drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join scalars that differ in nothing but the offer they come from."""
    joined: dict[str, dict[str, Any]] = {}
    others: list[dict[str, Any]] = []
    for resource in drawn:
        if resource["type"] != "SCALAR":
            others.append(resource)
            continue
        key = json.dumps({k: v for k, v in resource.items() if k != "scalar"}, sort_keys=True)
        if (first := joined.setdefault(key, resource)) is not resource:
            total = millis(first["scalar"]["value"]) + millis(resource["scalar"]["value"])
            first["scalar"] = {"value": from_millis(total)}
    return [*joined.values(), *others]
