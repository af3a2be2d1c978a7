"""Whether an agent may come back with another configuration: Mesos' ``--reconfiguration_policy``."""

from __future__ import annotations

import enum

from scheduler.embedded.model import AgentSpec, attribute_message
from scheduler.embedded.pool import Pool
from scheduler.quantities import format_millis


class ReconfigurationPolicy(enum.StrEnum):
    """What of an agent may change while its tasks live."""

    EQUAL = "equal"
    """Nothing."""
    ADDITIVE = "additive"
    """There may be more attributes, and more of a resource."""


def incompatibility(old: AgentSpec, new: AgentSpec, policy: ReconfigurationPolicy) -> str | None:
    """Return why an agent may not come back like that, in Mesos' words; None when it may."""
    if policy is ReconfigurationPolicy.EQUAL:
        if old == new:
            return None
        return (
            f"Incompatible agent info detected.\n\nOld agent info:\n{old}\n\nNew agent info:\n{new}"
        )
    problem = _hostname(old, new) or _attributes(old, new) or _resources(old.pool, new.pool)
    if problem is None:
        return None
    return f"Configuration change not permitted under 'additive' policy: {problem}"


def _hostname(old: AgentSpec, new: AgentSpec) -> str | None:
    if old.hostname == new.hostname:
        return None
    return f"Hostname changed from {old.hostname} to {new.hostname}"


def _attributes(old: AgentSpec, new: AgentSpec) -> str | None:
    for name, before in old.attributes.items():
        after = new.attributes.get(name)
        if after is None:
            return f"Attribute '{name}' was removed"
        kinds = [attribute_message(name, text)["type"] for text in (before, after)]
        if kinds[0] != kinds[1]:
            return f"Type of attribute '{name}' changed from {kinds[0]} to {kinds[1]}"
        if before != after:
            kind = kinds[0].lower()
            return f"Value of {kind} attribute '{name}' changed from {before} to {after}"
    return None


def _resources(old: Pool, new: Pool) -> str | None:
    for role, part in old:
        left = new.reserved_for(role)
        for name, amount in part.scalars.items():
            have = left.scalars.get(name, 0)
            if have < amount:
                return (
                    f"Value of scalar resource '{name}' decreased from {format_millis(amount)} "
                    f"to {format_millis(have)}"
                )
        for name, members in part.ranges.items():
            have_members = left.ranges.get(name)
            if have_members is None or not have_members.issuperset(members):
                return f"Range resource '{name}' decreased from {members} to {have_members or '[]'}"
    return None
