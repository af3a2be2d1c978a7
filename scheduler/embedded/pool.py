"""Resources by the role that they are reserved for.

What an agent has is partly anybody's and partly reserved: by ``--default_role``, or by ``name(role)`` in
its ``--resources``. A :class:`Pool` keeps the parts apart, as reserved and unreserved resources of the same
name are different things to Mesos.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.quantities import Ranges, Resources

UNRESERVED = "*"
"""The role under which unreserved resources are kept."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Amounts by reservation; parts without anything in them are not kept."""

    parts: Mapping[str, Resources] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(self.parts.values()):
            object.__setattr__(self, "parts", {r: p for r, p in self.parts.items() if p})

    @classmethod
    def unreserved(cls, resources: Resources) -> Pool:
        """Return a pool of what is anybody's."""
        return cls({UNRESERVED: resources})

    def __add__(self, other: Pool) -> Pool:
        """Put both together.

        Raises
        ------
        QuantityError
            If a range member is in both.
        """
        parts = dict(self.parts)
        for role, part in other.parts.items():
            parts[role] = parts[role] + part if role in parts else part
        return Pool(parts)

    def __sub__(self, other: Pool) -> Pool:
        """Take `other` away.

        Raises
        ------
        QuantityError
            If there is not that much under the same reservation.
        """
        parts = dict(self.parts)
        for role, part in other.parts.items():
            parts[role] = parts.get(role, Resources()) - part
        return Pool(parts)

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __iter__(self) -> Iterator[tuple[str, Resources]]:
        return iter(self.parts.items())

    def contains(self, other: Pool) -> bool:
        """Whether `other` could be taken away."""
        return all(role in self.parts and self.parts[role].contains(p) for role, p in other)

    def usable_by(self, role: str) -> Pool:
        """Return what may be allocated to a role: the unreserved, and what is its own or an ancestor's."""
        parts = self.parts
        if len(parts) == 1 and UNRESERVED in parts:
            return self
        return Pool({r: p for r, p in parts.items() if r == UNRESERVED or is_within(role, r)})

    def reserved_for(self, role: str) -> Resources:
        """Return the part of one reservation."""
        return self.parts.get(role, Resources())

    @property
    def reservations(self) -> Mapping[str, Resources]:
        """The reserved parts by role."""
        return {role: part for role, part in self.parts.items() if role != UNRESERVED}

    @property
    def plain(self) -> Resources:
        """All of it, reserved or not."""
        if len(self.parts) == 1:
            return next(iter(self.parts.values()))
        return united(self.parts.values())


def is_within(role: str, ancestor: str) -> bool:
    """Whether a role is that one or below it: ``a/b`` is within ``a``."""
    return role == ancestor or role.startswith(f"{ancestor}/")


def united_pool(pools: Sequence[Pool]) -> Pool:
    """Sum up by reservation, as :func:`united` does."""
    roles = {role for pool in pools for role in pool.parts}
    return Pool({role: united(pool.reserved_for(role) for pool in pools) for role in roles})


def united(resources: Iterable[Resources]) -> Resources:
    """Sum resources, also of several agents; a range member that several have is there once."""
    scalars: dict[str, int] = {}
    ranges: dict[str, Ranges] = {}
    for item in resources:
        for name, amount in item.scalars.items():
            scalars[name] = scalars.get(name, 0) + amount
        for name, members in item.ranges.items():
            ranges[name] = ranges[name] | members if name in ranges else members
    return Resources(scalars, ranges)
