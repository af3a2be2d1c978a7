"""Who is offered what: a pure decision.

As Mesos' hierarchical allocator without quota: roles and, within a role, frameworks are served in the order of
their dominant share; an agent's free resources go as a whole to the first who has not refused them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from scheduler.embedded.pool import Pool
from scheduler.quantities import Resources

MIN_CPUS = 10
"""Thousandths of a CPU; with less than this and less than :data:`MIN_MEM` nothing is offered."""
MIN_MEM = 32_000
"""Thousandths of MiB."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A framework that wants offers in one of its roles."""

    framework_id: str
    role: str
    allocated: Mapping[str, int]
    """Thousandths of each scalar that it uses or holds as offers in this role."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A filter: what is contained in `resources` is not wanted before `until`."""

    resources: Pool
    until: float
    """Monotonic time, s."""


Refusals: TypeAlias = Mapping[tuple[str, str, str], Collection[Refusal]]
"""By framework, role and agent."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Resources that become an offer."""

    framework_id: str
    role: str
    agent_id: str
    resources: Pool


def allocate(
    free: Mapping[str, Pool],
    claimants: Sequence[Claimant],
    refusals: Refusals,
    total: Mapping[str, int],
    now: float,
) -> list[Grant]:
    """Hand out what is free.

    Parameters
    ----------
    free
        By agent: what is neither used nor offered, of agents that may be offered.
    claimants
        Who wants offers.
    refusals
        Filters that frameworks have set.
    total
        Thousandths of each scalar in the cluster, for shares.
    now
        Monotonic time, s.

    Returns
    -------
    list
        At most one grant for each agent and role; all of an agent's unreserved resources are in one.
    """
    queue = _Queue(claimants, total)
    grants: list[Grant] = []
    for agent_id, rest in free.items():
        if not is_allocatable(rest):
            continue
        for claimant in queue.order():
            usable = rest.usable_by(claimant.role)
            key = (claimant.framework_id, claimant.role, agent_id)
            if is_allocatable(usable) and not is_refused(usable, refusals.get(key, ()), now):
                grants.append(Grant(claimant.framework_id, claimant.role, agent_id, usable))
                queue.charge(claimant, usable.plain)
                rest -= usable
                if not rest:
                    break
    return grants


def is_allocatable(pool: Pool) -> bool:
    """Whether there is enough to be worth an offer."""
    scalars = pool.plain.scalars
    return scalars.get("cpus", 0) >= MIN_CPUS or scalars.get("mem", 0) >= MIN_MEM


def is_refused(resources: Pool, refusals: Iterable[Refusal], now: float) -> bool:
    """Whether a filter that still holds covers all of `resources`."""
    return any(r.until > now and r.resources.contains(resources) for r in refusals)


class _Queue:
    """Claimants in the order of their dominant shares, kept up to date during one run."""

    def __init__(self, claimants: Sequence[Claimant], total: Mapping[str, int]) -> None:
        self._total = total
        self._roles: dict[str, dict[str, int]] = {}
        self._claimants = {(c.framework_id, c.role): c for c in claimants}
        self._use: dict[tuple[str, str], dict[str, int]] = {}
        for claimant in claimants:
            self._use[claimant.framework_id, claimant.role] = {}
            self._roles.setdefault(claimant.role, {})
            self._add(claimant, claimant.allocated)

    def order(self) -> Iterable[Claimant]:
        """Return who is next, lowest share first; equal shares by framework and role."""
        if len(self._claimants) == 1:
            return self._claimants.values()
        return sorted(self._claimants.values(), key=self._rank)

    def charge(self, claimant: Claimant, resources: Resources) -> None:
        """Count a grant."""
        self._add(claimant, resources.scalars)

    def _add(self, claimant: Claimant, scalars: Mapping[str, int]) -> None:
        role = self._roles[claimant.role]
        own = self._use[claimant.framework_id, claimant.role]
        for name, amount in scalars.items():
            role[name] = role.get(name, 0) + amount
            own[name] = own.get(name, 0) + amount

    def _rank(self, claimant: Claimant) -> tuple[float, str, float, str]:
        own = self._use[claimant.framework_id, claimant.role]
        return (
            self._dominant(self._roles[claimant.role]),
            claimant.role,
            self._dominant(own),
            claimant.framework_id,
        )

    def _dominant(self, use: Mapping[str, int]) -> float:
        shares = (amount / self._total[n] for n, amount in use.items() if self._total.get(n))
        return max(shares, default=0.0)
