"""What the cluster consists of, whatever is free: read from the master's ``/slaves``.

Offers show only what is free, and only while we want them. For «no agent could ever give that», and for
people, the whole is asked of the master now and then. A master that does not answer costs only that.
"""

from __future__ import annotations

import base64
import logging
import ssl
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

import aiohttp
import orjson

from scheduler.breath import Breath
from scheduler.closures import Closures
from scheduler.errors import SchedulerError, TopologyError
from scheduler.offers import reserved_for
from scheduler.packing import Idle
from scheduler.places import beyond, kept_by, less, reachable, within_reach
from scheduler.quantities import Ranges, Resources, millis
from scheduler.threads import compute
from scheduler.topology import AgentSnapshot, merge_offers
from scheduler.views import AgentView

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 2**20
SETTLE_SECONDS: Final = 3.0
"""For how long the set of agents must not have changed before anything is called impossible."""
MISSING_SECONDS: Final = 600.0
"""For how long an agent that the master does not list any more may still come back: a host that boots anew, or
that a new master has not heard of yet."""


@dataclass(frozen=True, slots=True)
class _Agent:
    entry: Mapping[str, Any]
    """As the master wrote it."""
    view: AgentView
    total: AgentSnapshot | None = None
    """With all that we can ever have of it; None when it is quarantined."""
    rest: AgentSnapshot | None = None
    """With what of that no task uses; None when it is quarantined."""
    fenced: Mapping[str, Resources] = field(default_factory=dict)
    """What of it Mesos reserves for a role and those below it."""
    unused: Mapping[str, Resources] = field(default_factory=dict)
    """What of that no task uses."""
    others: str = ""
    """For whom a part of it is reserved, of which we never get any, for people."""

    @property
    def free(self) -> AgentSnapshot | None:
        """With what can be used now; None when it is quarantined, or not as usual."""
        return None if self.view.condition else self.rest


class Agents:
    """All agents that the master knows.

    Parameters
    ----------
    closures
        What is known of those that take no tasks.
    roles
        Ours at Mesos: what is reserved for others is not there for us; of all, if none are named.
    """

    def __init__(self, closures: Closures | None = None, roles: Sequence[str] = ()) -> None:
        self._closures = closures or Closures()
        self.roles = tuple(roles)
        self._agents: dict[str, _Agent] = {}
        self._missing: dict[str, tuple[_Agent, float]] = {}
        """Those that were listed not long ago, and since when they are not."""
        self._awaited: frozenset[str] = frozenset()
        """Hosts of agents of its predecessor for which the master itself waits."""
        self._version = 0
        self._changed_at: float | None = None
        self._seen_at = 0.0

    async def update(self, document: object, at: float) -> bool:
        """Take a new list of the master, and tell whether anything changed; the first of a master always does.

        Parameters
        ----------
        document
            Answer of ``/slaves``; entries that cannot be read are shown as quarantined.
        """
        agents = await compute(_read_all, document, self._agents, self.roles)
        before = _facts(self._agents), self._missing.keys()
        changed = not self.current or _views(agents) != _views(self._agents)
        self._miss(agents, at)
        if (_facts(agents), self._missing.keys()) != before:
            self._version += 1
            self._changed_at = at
        if not self.current:
            self._changed_at = at
        gone, self._agents, self._seen_at = self._agents, agents, at
        self._awaited = _hosts(document, "recovered_slaves")
        breath = Breath()
        while gone:  # all at once, those of 500 agents take ten milliseconds to be freed
            gone.popitem()
            await breath.step()
        return changed

    def _miss(self, agents: Mapping[str, _Agent], at: float) -> None:
        """Take note of agents that are not listed any more, and may come back: under a new id after a boot."""
        known = {agent_id: (agent, at) for agent_id, agent in self._agents.items()} | self._missing
        hosts = {agent.view.host for agent in agents.values()}
        self._missing = {
            agent_id: (agent, since)
            for agent_id, (agent, since) in known.items()
            if agent.view.host not in hosts and at - since < MISSING_SECONDS
        }

    def forget(self) -> None:
        """Be certain of nothing: the link is cut."""
        self._changed_at = None

    @property
    def current(self) -> bool:
        """Whether what is known was told by the master that we are linked to, not by one before."""
        return self._changed_at is not None

    def awaited(self) -> frozenset[str] | None:
        """Return the hosts of those agents of its predecessor that have not come to the master yet.

        None while it has not told of any agents.
        """
        return self._awaited if self.current else None

    def totals(self) -> tuple[object, Sequence[AgentSnapshot]] | None:
        """Return a version and every agent with all that it has; None while that is not certain.

        An agent that is missing for a while counts: what only it could give is not impossible.
        """
        if self._changed_at is None or not self._agents or self._awaited:
            return None
        if self._seen_at - self._changed_at < SETTLE_SECONDS:
            return None
        every = [*self._agents.values(), *(agent for agent, _ in self._missing.values())]
        return self._version, [a.total for a in every if a.total is not None]

    def fenced(self) -> Mapping[str, Mapping[str, Resources]]:
        """Return what Mesos reserves on agents, by agent id and role; those that are missing count."""
        every = (*self._agents.items(), *((i, agent) for i, (agent, _) in self._missing.items()))
        return {agent_id: agent.fenced for agent_id, agent in every if agent.fenced}

    def unused(self) -> Mapping[str, Mapping[str, Resources]]:
        """Return what of :meth:`fenced` no task uses."""
        return {agent_id: agent.unused for agent_id, agent in self._agents.items() if agent.unused}

    def away(self) -> frozenset[str]:
        """Return the ids of agents that count among the totals and take no tasks, whatever ends there."""
        out = (agent_id for agent_id, agent in self._agents.items() if agent.view.condition)
        return frozenset((*out, *self._missing))

    def free(self, stay: float = 0.0, roles: Sequence[str] = ()) -> list[AgentSnapshot]:
        """Return every active agent that takes tasks for so many seconds, with what no task uses.

        Parameters
        ----------
        roles
            In these only, if some are named.
        """
        free = [
            within_reach(agent.free, agent.unused, roles)
            for agent in self._agents.values()
            if agent.free is not None
        ]
        return list(self._closures.open(free, stay, time.time()))

    def idle(self, offered: Collection[str], stay: float = 0.0) -> list[Idle]:
        """Return what could be free and is not offered to us, with the reason.

        Parameters
        ----------
        offered
            Ids of the agents whose offers we hold.
        stay
            For how many seconds agents would have to be there.
        """
        found, now = [], time.time()
        for agent_id, agent in self._agents.items():
            closed = "" if agent.rest is None else self._closures.why_not(agent.rest, stay, now)
            if closed and agent_id not in offered:
                found.append(Idle(host=agent.view.host, reason=closed, agent=agent.rest))
            elif reason := _withheld(agent, agent_id in offered):
                found.append(Idle(host=agent.view.host, reason=reason, agent=agent.rest))
            if agent.others:
                found.append(Idle(host=agent.view.host, reason=agent.others, serves_others=True))
        for agent, _ in self._missing.values():
            found.append(Idle(host=agent.view.host, reason=_MISSING, agent=agent.rest))
        return found

    def views(self) -> tuple[AgentView, ...]:
        """Return all agents, by host."""
        views = (self._view(agent.view) for agent in self._agents.values())
        return tuple(sorted(views, key=lambda view: view.host))

    def trouble(self, agent_id: str) -> str:
        """Say why an agent takes no new tasks; empty when it does, or is not known."""
        if (agent := self._agents.get(agent_id)) is None:
            return ""
        if agent.view.quarantine or agent.view.condition:
            return agent.view.quarantine or agent.view.condition
        return "" if agent.rest is None else self._closures.why_not(agent.rest, inf, time.time())

    def _view(self, view: AgentView) -> AgentView:
        """Add what our own side knows."""
        drained = self._closures.drained.get(view.host)
        window = self._closures.window(view.agent_id)
        if drained is None and window is None:
            return view
        return replace(view, drained=drained, maintenance=window)


_MISSING: Final = "not at the master any more: the host is down or cut off"


def _hosts(document: object, key: str) -> frozenset[str]:
    entries = document.get(key) if isinstance(document, Mapping) else None
    known = entries if isinstance(entries, list) else ()
    return frozenset(str(entry.get("hostname")) for entry in known if isinstance(entry, Mapping))


def _views(agents: Mapping[str, _Agent]) -> list[AgentView]:
    return [agent.view for agent in agents.values()]


def _facts(agents: Mapping[str, _Agent]) -> dict[str, tuple[AgentSnapshot | None, bool]]:
    """Return what decides on what could ever be placed."""
    return {agent_id: (a.total, a.view.active) for agent_id, a in agents.items()}


def _withheld(agent: _Agent, offered: bool) -> str:
    """Say why an agent gives nothing, although it could; empty where that is not so."""
    if agent.view.quarantine:
        return f"quarantined: {agent.view.quarantine}"
    if agent.view.condition:
        return agent.view.condition
    left = agent.view.free
    if not offered and (left.scalars.get("cpus") or left.scalars.get("mem")):
        return "not offered to us: another framework may hold the offer"
    return ""


def basic(principal: str | None, secret: str | None) -> str:
    """Return who we are, as HTTP's basic authentication has it; empty where one of both is not given."""
    if principal is None or secret is None:
        return ""
    return f"Basic {base64.b64encode(f'{principal}:{secret}'.encode()).decode()}"


def address(master: str, path: str, tls: ssl.SSLContext | None) -> str:
    """Return the URL of one of the master's pages."""
    return f"{'http' if tls is None else 'https'}://{master}{path}"


async def fetch(
    master: str,
    authorization: str,
    seconds: float,
    *,
    path: str = "/slaves",
    tls: ssl.SSLContext | None = None,
) -> object:
    """Ask the master for its agents, or something else; None when it does not tell.

    Parameters
    ----------
    authorization
        Who we are, as HTTP has it; empty: nobody.
    tls
        Checks its certificate; None: it speaks plain HTTP.
    """
    timeout = aiohttp.ClientTimeout(total=seconds)
    url = address(master, path, tls)
    head = {"Authorization": authorization} if authorization else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=head) as session,
            session.get(url, ssl=tls or True) as response,
        ):
            if response.status != 200:
                return None
            body = bytearray()
            async for chunk in response.content.iter_chunked(256 * 1024):
                body += chunk
                if len(body) > MAX_BYTES:
                    logger.warning("%s answers more than %d bytes", url, MAX_BYTES)
                    return None
            document: object = await compute(orjson.loads, body)  # megabytes, of thousands of tasks
            return document
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as exc:
        logger.debug("%s: %r", url, exc)
        return None


def _read_all(
    document: object, known: Mapping[str, _Agent], roles: Sequence[str]
) -> dict[str, _Agent]:
    """Read every agent; those that did not change since are taken as they are."""
    entries = document.get("slaves", []) if isinstance(document, Mapping) else []
    agents: dict[str, _Agent] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping) or not isinstance(agent_id := entry.get("id"), str):
            continue
        old = known.get(agent_id)
        agents[agent_id] = (
            old if old is not None and old.entry == entry else _read(agent_id, entry, roles)
        )
    return agents


def _read(agent_id: str, entry: Mapping[str, Any], roles: Sequence[str]) -> _Agent:
    host = str(entry.get("hostname", ""))
    condition = _condition(entry)
    active = condition in ("", "draining")
    try:
        everything = _amounts(entry.get("resources", {}))
        used = _amounts(entry.get("used_resources", {}))
        left = everything - used if everything.contains(used) else Resources()
        attributes = _attributes(entry.get("attributes", {}))
        total = _snapshot(agent_id, host, attributes, everything)
        rest = replace(total, free=_snapshot(agent_id, host, attributes, left).free)
        total, rest, fenced, unused = _reserved(entry, total, rest, roles)
    except (SchedulerError, TypeError, AttributeError, ValueError) as exc:
        view = AgentView(
            agent_id=agent_id, host=host, active=active, condition=condition, quarantine=str(exc)
        )
        return _Agent(entry, view)
    view = AgentView(
        agent_id=agent_id,
        host=host,
        total=everything,
        free=left,
        active=active,
        condition=condition,
    )
    others = beyond(map(str, entry.get("reserved_resources", {})), roles)
    return _Agent(entry, view, total, rest, fenced, unused, kept_by(others) if others else "")


def _reserved(
    entry: Mapping[str, Any], total: AgentSnapshot, rest: AgentSnapshot, roles: Sequence[str]
) -> tuple[AgentSnapshot, AgentSnapshot, dict[str, Resources], dict[str, Resources]]:
    """Return both with what these roles can ever have of them, and what is reserved of both, by role."""
    fenced = {str(r): _amounts(a) for r, a in entry.get("reserved_resources", {}).items()}
    used: dict[str, list[Mapping[str, Any]]] = {}
    for resource in entry.get("used_resources_full", ()):
        if resource.get("type") in ("SCALAR", "RANGES"):
            used.setdefault(reserved_for(resource), []).append(resource)
    # What of a reservation is used no old master tells: then all of it counts as free for that role only.
    unused = {
        role: less(amount, Resources.from_mesos(used.get(role, ())))
        for role, amount in fenced.items()
    }
    ours = {role: total.as_ours(amount) for role, amount in fenced.items()}
    left = {role: total.as_ours(amount) for role, amount in unused.items()}
    total, rest = within_reach(total, ours, roles), within_reach(rest, left, roles)
    return total, rest, reachable(ours, roles), reachable(left, roles)


def _condition(entry: Mapping[str, Any]) -> str:
    """Return why an agent is not as usual, from its entry in the master's list."""
    drain = entry.get("drain_info")
    state = drain.get("state") if isinstance(drain, Mapping) else None
    if state in ("DRAINING", "DRAINED"):
        return str(state).lower()
    if entry.get("deactivated", False):
        return "deactivated"
    return "" if entry.get("active", True) else "disconnected"


def _snapshot(
    agent_id: str, host: str, attributes: list[dict[str, Any]], amount: Resources
) -> AgentSnapshot:
    offer = {
        "id": {"value": "none"},
        "agent_id": {"value": agent_id},
        "hostname": host,
        "attributes": attributes,
        "resources": amount.to_mesos(),
    }
    merged = merge_offers([offer])
    if merged.quarantined:
        raise TopologyError(merged.quarantined[0].reason)
    return replace(merged.agents[0], offer_ids=())


def _amounts(values: Mapping[str, Any]) -> Resources:
    """Read resources as the master's pages write them: ``{"cpus": 4.0, "ports": "[1-2, 5-5]"}``."""
    scalars: dict[str, int] = {}
    ranges: dict[str, Ranges] = {}
    for name, value in values.items():
        if isinstance(value, str):
            if value.startswith("["):  # else a set, which nothing of ours is
                ranges[name] = Ranges.parse(value)
        else:
            scalars[name] = millis(value)
    return Resources(scalars, ranges)


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write attributes as offers have them."""
    entries: list[dict[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, str):
            entries.append({"name": name, "type": "TEXT", "text": {"value": _compact(value)}})
        else:
            entries.append({"name": name, "type": "SCALAR", "scalar": {"value": float(value)}})
    return entries


def _compact(value: str) -> str:
    """Take the blanks out of ranges, as offers show them."""
    return value.replace(" ", "") if value.startswith("[") else value
