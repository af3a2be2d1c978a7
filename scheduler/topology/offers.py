"""What is free on each agent, merged from the offers of Mesos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from scheduler.constraints import HOST, ISLAND, RACK
from scheduler.errors import QuantityError, TopologyError
from scheduler.quantities import Ranges, Resources
from scheduler.topology import legacy
from scheduler.topology.model import Topology
from scheduler.topology.parts import refuse

Offer = Mapping[str, Any]
"""An ``Offer`` message of Mesos' v1 scheduler API, in its JSON form."""


class _Readable:
    """Room for what packing has read of a snapshot; no field, since it says nothing that these do not."""

    __slots__ = ("reading",)

    reading: object


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSnapshot(_Readable):
    """One agent as it is known at one moment: what it is made of, and what of it is offered."""

    agent_id: str
    """Mesos' id of the agent; with ``/role`` behind it where one agent offers in several roles: see
    :func:`merge_offers`."""
    host: str
    """Its host name, as the agent tells it."""
    topology: Topology
    free: Resources
    """By the names of our schema, whatever form the agent speaks."""
    address: str
    """IP address at which the agent's tasks are reached."""
    offer_ids: tuple[str, ...] = ()
    url: str = ""
    """Where the agent itself answers HTTP; empty when it does not say."""
    legacy: bool = False
    """Whether the agent speaks katsdpcontroller's form."""
    role: str = ""
    """The role in which this is offered; empty when the offers do not say."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """All that it advertises, as text, whoever's it is."""

    @property
    def mesos_agent_id(self) -> str:
        """The agent's id without a role: Mesos takes no slash in it."""
        return self.agent_id.partition("/")[0]

    @property
    def place(self) -> str:
        """What people call it: its host, and the role where it is one of several places of its agent."""
        return f"{self.host} in role {self.role}" if "/" in self.agent_id else self.host

    def fact(self, name: str) -> str | None:
        """Return what the agent tells: its ``host``, ``rack``, ``island``, or an attribute; None: nothing."""
        if name == HOST:
            return self.host
        if name in (RACK, ISLAND):
            return self.topology.rack if name == RACK else self.topology.island
        return self.attributes.get(name)

    def as_ours(self, resources: Resources) -> Resources:
        """Name resources by our schema, as the agent names them its own way."""
        return legacy.translate(resources) if self.legacy else resources

    def advertised(self, resources: Resources) -> Resources:
        """Name resources as the agent does, for an ACCEPT."""
        return legacy.untranslate(resources) if self.legacy else resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An agent that takes no tasks, because of what it advertises."""

    agent_id: str
    """Empty when the offer does not even tell that."""
    host: str
    offer_ids: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"agent {self.host or '?'} ({self.agent_id or 'no id'}): {self.reason}"


@dataclass(frozen=True, slots=True)
class MergedOffers:
    """All that is offered, by agent."""

    agents: tuple[AgentSnapshot, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()


def merge_offers(offers: Iterable[Offer]) -> MergedOffers:
    """Merge the offers of each agent into one snapshot.

    Agents come out in the order in which they first occur. An agent whose offers are malformed, or disagree
    about what it is, is quarantined alone.

    Mesos takes the offers of an ACCEPT, and the resources of a task, from one role only; reserved and
    unreserved resources of that role may be mixed. So what one agent offers in several roles becomes
    several snapshots, the most specific role first (``sdp/batch`` before ``sdp`` before ``*``).
    """
    by_agent: dict[str, list[Offer]] = {}
    nameless: list[Offer] = []
    for offer in offers:
        agent_id = _text(offer, "agent_id", "value")
        if agent_id:
            by_agent.setdefault(agent_id, []).append(offer)
        else:
            nameless.append(offer)
    without = [_quarantine("", [offer], "offer without agent_id") for offer in nameless]
    return gathered([*without, *(merge_agent(*item) for item in by_agent.items())])


def merge_agent(agent_id: str, offers: Sequence[Offer]) -> tuple[AgentSnapshot, ...] | Quarantined:
    """Merge the offers of one agent; see :func:`merge_offers`."""
    if not agent_id:
        return _quarantine("", offers, "offer without agent_id")
    try:
        return _snapshots(agent_id, offers)
    except (TopologyError, QuantityError) as exc:
        return _quarantine(agent_id, offers, str(exc))


def gathered(found: Iterable[tuple[AgentSnapshot, ...] | Quarantined]) -> MergedOffers:
    """Put together what was found agent by agent."""
    agents: list[AgentSnapshot] = []
    quarantined: list[Quarantined] = []
    for one in found:
        if isinstance(one, Quarantined):
            quarantined.append(one)
        else:
            agents += one
    return MergedOffers(tuple(agents), tuple(quarantined))


def _snapshots(agent_id: str, offers: Sequence[Offer]) -> tuple[AgentSnapshot, ...]:
    """Return one snapshot for each role in which an agent offers."""
    agreed = _agreed(offers)
    by_role: dict[str, list[Offer]] = {}
    for offer in offers:
        by_role.setdefault(_text(offer, "allocation_info", "role"), []).append(offer)
    if len(by_role) == 1:
        return (_snapshot(agent_id, *next(iter(by_role.items())), *agreed),)
    ranked = sorted(by_role.items(), key=lambda item: (-_depth(item[0]), item[0]))
    return tuple(_snapshot(f"{agent_id}/{role}", role, group, *agreed) for role, group in ranked)


def _depth(role: str) -> int:
    """How specific a role is."""
    return 0 if role in ("", "*") else 1 + role.count("/")


def _quarantine(agent_id: str, offers: Sequence[Offer], reason: str) -> Quarantined:
    return Quarantined(
        agent_id=agent_id,
        host=_text(offers[0], "hostname"),
        offer_ids=tuple(filter(None, (_text(offer, "id", "value") for offer in offers))),
        reason=reason,
    )


def _snapshot(
    agent_id: str, role: str, offers: Sequence[Offer], host: str, attributes: Mapping[str, str]
) -> AgentSnapshot:
    free = Resources.from_mesos(_messages(offers[0], "resources"))
    for offer in offers[1:]:
        free += Resources.from_mesos(_messages(offer, "resources"))
    speaks_legacy = legacy.speaks_legacy(attributes)
    if speaks_legacy:
        free = legacy.translate(free)
    address, url = _location(offers[0])
    ids = tuple(_text(offer, "id", "value") for offer in offers)
    if not all(ids):
        raise TopologyError("offer without id")
    return AgentSnapshot(
        agent_id=agent_id,
        host=host,
        topology=Topology.parse(attributes, free),
        free=free,
        address=address or host,
        offer_ids=ids,
        url=url,
        legacy=speaks_legacy,
        role=role,
        attributes=attributes,
    )


def _agreed(offers: Sequence[Offer]) -> tuple[str, Mapping[str, str]]:
    """Return host name and attributes, which all offers of an agent must share."""
    host = _text(offers[0], "hostname")
    if not host:
        raise TopologyError("offer without hostname")
    attributes = _attributes(offers[0])
    for offer in offers[1:]:
        if _text(offer, "hostname") != host or _attributes(offer) != attributes:
            raise TopologyError("its offers disagree about hostname or attributes")
    return host, attributes


def _text(message: object, *path: str) -> str:
    """Return the text at a path of a JSON message, empty when there is none."""
    for name in path:
        if not isinstance(message, dict):
            return ""
        message = message.get(name)
    return message if isinstance(message, str) else ""


def _messages(offer: Offer, name: str) -> list[Mapping[str, Any]]:
    entries = offer.get(name, [])
    # exact types, as JSON has them: with hundreds of entries per agent, an abstract class is slow to ask
    if not isinstance(entries, list) or not {*map(type, entries)} <= {dict}:
        raise TopologyError(f"{name} of its offer is not a list of messages")
    return entries


def _attributes(offer: Offer) -> Mapping[str, str]:
    # Read anew with every offer, as to find out that they are the same costs no less; what follows is kept.
    attributes: dict[str, str] = {}
    for entry in _messages(offer, "attributes"):
        name = entry.get("name")
        name = name if isinstance(name, str) else ""
        value = _attribute_text(name, entry)
        if name in attributes and name.startswith(("sdp.", legacy.PREFIX)):
            refuse(name, value, "is advertised twice")
        attributes[name] = value
    return attributes


def _attribute_text(name: str, entry: Mapping[str, Any]) -> str:
    """Write an attribute as text, whatever type Mesos has taken it for."""
    kind = entry.get("type")
    try:
        if kind == "TEXT":
            return str(entry["text"]["value"])
        if kind == "SCALAR":
            return _plain(entry["scalar"]["value"])
        if kind == "RANGES":
            pairs = entry["ranges"].get("range", [])
            return str(Ranges.of((int(p["begin"]), int(p["end"])) for p in pairs))
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, QuantityError) as exc:
        raise TopologyError(f"malformed attribute {name!r}: {exc!r}") from exc
    return refuse(name, kind, "attributes are of type TEXT, SCALAR or RANGES")


def _plain(value: object) -> str:
    """Write a number without exponent and without superfluous zeros."""
    if not isinstance(value, int | float) or not abs(value) < 1e15:
        raise ValueError(f"{value!r} is not a number of up to 15 digits")
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _location(offer: Offer) -> tuple[str, str]:
    """Return the agent's IP address and base URL, empty where the offer has none."""
    url = offer.get("url")
    address = _text(url, "address", "ip") or _text(url, "address", "hostname")
    port = url["address"].get("port") if address and isinstance(url, Mapping) else None
    if not isinstance(port, int):
        return address, ""
    scheme = _text(url, "scheme") or "http"
    return address, f"{scheme}://{address}:{port}{_text(url, 'path')}"
