"""The offers that we hold, and how tasks draw from them.

:class:`OfferPool` keeps what Mesos offers until it is accepted, declined or rescinded. :class:`Ledger`
divides the offers of one agent among tasks as Mesos wants it: every drawn resource repeats the reservation that
it is offered under, the most specific first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scheduler.errors import QuantityError
from scheduler.quantities import Millis, Ranges, Resources, format_millis, from_millis, millis
from scheduler.topology import MergedOffers, merge_offers

Offer = Mapping[str, Any]
"""An ``Offer`` message of Mesos' v1 scheduler API, in its JSON form."""

MAX_OFFERS: Final = 100_000
"""Offers that are held at a time; more are not taken (and run out at the master)."""
_COPIED: Final = ("allocation_info", "reservations", "role")


@dataclass(frozen=True, slots=True)
class _Held:
    offer: Offer
    agent_id: str
    since: float


class OfferPool:
    """All offers that we hold."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._merged: MergedOffers | None = None
        self.gained = 0
        """Grows whenever offers come: what did not fit before may fit then."""

    def __len__(self) -> int:
        return len(self._held)

    def add(self, offers: Iterable[Offer], at: float) -> None:
        """Hold these offers as well; those without an id are ignored."""
        for offer in offers:
            try:
                offer_id, agent_id = offer["id"]["value"], offer["agent_id"]["value"]
            except (KeyError, TypeError):
                continue
            if len(self._held) < MAX_OFFERS:
                self._held[str(offer_id)] = _Held(offer, str(agent_id), at)
        self.gained += 1
        self._changed()

    def rescind(self, offer_id: str) -> None:
        """Forget an offer that Mesos took back."""
        if self._held.pop(offer_id, None) is not None:
            self._changed()

    def drop_agent(self, agent_id: str) -> None:
        """Forget the offers of an agent that is gone."""
        for offer_id in [i for i, held in self._held.items() if held.agent_id == agent_id]:
            self.rescind(offer_id)

    def clear(self) -> list[str]:
        """Forget all, and return their ids."""
        ids = list(self._held)
        self._held.clear()
        self._changed()
        return ids

    def take_older(self, than: float) -> list[str]:
        """Forget the offers that came before that time, and return their ids."""
        ids = [offer_id for offer_id, held in self._held.items() if held.since < than]
        for offer_id in ids:
            self.rescind(offer_id)
        return ids

    def take(self, offer_ids: Iterable[str]) -> list[Offer] | None:
        """Take these offers out of the pool; None, and nothing taken, when one of them is gone."""
        ids = list(offer_ids)
        if any(offer_id not in self._held for offer_id in ids):
            return None
        taken = [self._held.pop(offer_id).offer for offer_id in ids]
        self._changed()
        return taken

    def merged(self) -> MergedOffers:
        """Return what is free on each agent."""
        if self._merged is None:
            self._merged = merge_offers(held.offer for held in self._held.values())
        return self._merged

    def _changed(self) -> None:
        self._merged = None


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


class Ledger:
    """Divides the offers of one agent among tasks.

    Raises
    ------
    QuantityError
        If a resource is malformed.
    """

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._entries: dict[str, list[_Entry]] = {}
        for offer in offers:
            for resource in offer.get("resources", ()):
                self._add(resource)
        for entries in self._entries.values():
            entries.sort(key=lambda entry: -entry.reservations)

    def _add(self, resource: Mapping[str, Any]) -> None:
        amount = Resources.from_mesos([resource])
        copied = {key: resource[key] for key in _COPIED if key in resource}
        for name, scalar in amount.scalars.items():
            self._entries.setdefault(name, []).append(_Entry(scalar, Ranges(), copied))
        for name, ranges in amount.ranges.items():
            self._entries.setdefault(name, []).append(_Entry(0, ranges, copied))

    def draw(self, wanted: Resources) -> list[dict[str, Any]]:
        """Take `wanted` out, as Mesos ``Resource`` messages.

        Raises
        ------
        QuantityError
            If there is not that much; nothing is promised about what is left then.
        """
        drawn: list[dict[str, Any]] = []
        for name, amount in sorted(wanted.scalars.items()):
            drawn += self._draw_scalar(name, amount)
        for name, members in sorted(wanted.ranges.items()):
            drawn += self._draw_ranges(name, members)
        return _joined(drawn)

    def _draw_scalar(self, name: str, amount: Millis) -> list[dict[str, Any]]:
        drawn: list[dict[str, Any]] = []
        for entry in self._entries.get(name, ()):
            if (part := min(amount, entry.scalar)) > 0:
                entry.scalar -= part
                amount -= part
                value = {"value": from_millis(part)}
                drawn.append({"name": name, "type": "SCALAR", "scalar": value, **entry.copied})
        if amount > 0:
            raise QuantityError(f"{name}: {format_millis(amount)} more than is offered")
        return drawn

    def _draw_ranges(self, name: str, members: Ranges) -> list[dict[str, Any]]:
        drawn: list[dict[str, Any]] = []
        for entry in self._entries.get(name, ()):
            if part := members & entry.ranges:
                entry.ranges -= part
                members -= part
                pairs = [{"begin": begin, "end": end} for begin, end in part.intervals]
                value = {"range": pairs}
                drawn.append({"name": name, "type": "RANGES", "ranges": value, **entry.copied})
        if members:
            raise QuantityError(f"{name}: {members} is not offered")
        return drawn


def _joined(drawn: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join scalars that differ in nothing but the offer they come from."""
    if len({resource["name"] for resource in drawn}) == len(drawn):
        return list(drawn)
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
