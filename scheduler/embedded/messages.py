"""Agents, frameworks and tasks as messages of Mesos' v1 API, as the operator API shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scheduler.embedded.model import (
    VERSION,
    AgentInfo,
    FrameworkInfo,
    attribute_message,
    container_message,
    reservation_message,
)
from scheduler.embedded.pool import Pool, united_pool
from scheduler.embedded.records import AgentRecord, Framework, Task

AGENT_CAPABILITIES = (
    "MULTI_ROLE",
    "HIERARCHICAL_ROLE",
    "RESERVATION_REFINEMENT",
    "AGENT_DRAINING",
)


def nanoseconds(time: float) -> dict[str, int]:
    """Write a ``TimeInfo`` or ``DurationInfo``."""
    return {"nanoseconds": round(time * 1e9)}


def resource_messages(pool: Pool, allocated: str | None = None) -> list[dict[str, Any]]:
    """Write resources without the older ``role`` field.

    Parameters
    ----------
    pool
        The resources.
    allocated
        The role that they are allocated to.
    """
    extra = {} if allocated is None else {"allocation_info": {"role": allocated}}
    return [
        entry | extra | reservation_message(reserved)
        for reserved, part in pool
        for entry in part.to_mesos()
    ]


def endpoint_resources(pool: Pool, allocated: str | None = None) -> list[dict[str, Any]]:
    """Write resources in both forms at once, as the endpoints show them."""
    extra = {} if allocated is None else {"allocation_info": {"role": allocated}}
    return [
        entry | {"role": reserved} | extra | reservation_message(reserved)
        for reserved, part in pool
        for entry in part.to_mesos()
    ]


def allocated_pools(
    record: AgentRecord, frameworks: Iterable[Framework]
) -> dict[str, tuple[Pool, Pool]]:
    """Return what tasks use and what is offered of an agent, by the role that it is allocated to."""
    used: dict[str, Pool] = {}
    for framework in frameworks:
        for task in framework.tasks_on(record.info.id):
            if not task.released:
                used[task.info.role] = used.get(task.info.role, Pool()) + task.info.pool
    offered: dict[str, Pool] = {}
    for offer in record.offers.values():
        offered[offer.role] = offered.get(offer.role, Pool()) + offer.resources
    return {r: (used.get(r, Pool()), offered.get(r, Pool())) for r in {**used, **offered}}


def agent_info(info: AgentInfo) -> dict[str, Any]:
    """Write an ``AgentInfo`` as masters do."""
    return own_info(info) | {"checkpoint": True}


def own_info(info: AgentInfo) -> dict[str, Any]:
    """Write an ``AgentInfo`` as the agent itself does."""
    return {
        "hostname": info.spec.hostname,
        "port": info.address[1],
        "resources": resource_messages(info.spec.pool),
        "attributes": [attribute_message(n, v) for n, v in info.spec.attributes.items()],
        "id": {"value": info.id},
    }


def agent_message(record: AgentRecord, frameworks: Iterable[Framework]) -> dict[str, Any]:
    """Write a ``GetAgents.Agent``; lists without anything in them are left out."""
    message: dict[str, Any] = {
        "agent_info": agent_info(record.info),
        "active": record.active,
        "deactivated": record.deactivated,
        "version": VERSION,
        "pid": record.info.pid,
        "registered_time": nanoseconds(record.registered_time),
    }
    if record.reregistered_time is not None:
        message["reregistered_time"] = nanoseconds(record.reregistered_time)
    message["total_resources"] = endpoint_resources(record.total)
    pools = allocated_pools(record, frameworks)
    for name, which in (("allocated_resources", 0), ("offered_resources", 1)):
        entries = [e for role, pair in pools.items() for e in endpoint_resources(pair[which], role)]
        if entries:
            message[name] = entries
    message["capabilities"] = [{"type": name} for name in AGENT_CAPABILITIES]
    return message | drain_message(record)


def drain_message(record: AgentRecord) -> dict[str, Any]:
    """Write how far an agent's draining is; nothing when it is not drained."""
    if record.drain is None:
        return {}
    config: dict[str, Any] = {"mark_gone": record.drain.mark_gone}
    if record.drain.max_grace is not None:
        config = {"max_grace_period": nanoseconds(record.drain.max_grace)} | config
    state = "DRAINING" if record.agent.runs else "DRAINED"
    return {
        "drain_info": {"state": state, "config": config},
        "estimated_drain_start_time": nanoseconds(int(record.drain.began)),
    }


def framework_info(info: FrameworkInfo) -> dict[str, Any]:
    """Write a ``FrameworkInfo``."""
    message: dict[str, Any] = {
        "user": info.user,
        "name": info.name,
        "id": {"value": info.id},
        "failover_timeout": info.failover_timeout,
        "checkpoint": info.checkpoint,
    }
    if info.can("MULTI_ROLE"):
        message["roles"] = list(info.roles)
    else:
        message["role"] = info.roles[0]
    optional = {
        "hostname": info.hostname,
        "webui_url": info.webui_url,
        "principal": info.principal,
        "capabilities": [{"type": name} for name in info.capabilities],
        "labels": {"labels": list(info.labels)} if info.labels else None,
    }
    return message | {name: value for name, value in optional.items() if value}


def framework_message(framework: Framework) -> dict[str, Any]:
    """Write a ``GetFrameworks.Framework`` without what it holds."""
    again = framework.reregistered_time
    return {
        "framework_info": framework_info(framework.info),
        "active": framework.connected,
        "connected": framework.connected,
        "recovered": framework.state.value == "recovered",
        "registered_time": nanoseconds(framework.registered_time),
        "reregistered_time": nanoseconds(framework.registered_time if again is None else again),
        "unregistered_time": nanoseconds(framework.unregistered_time),
    }


def framework_resources(
    framework: Framework,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what a framework's tasks use and what it is offered, summed up over agents."""
    used: dict[str, list[Pool]] = {}
    offered: dict[str, list[Pool]] = {}
    for task in framework.tasks.values():
        if not task.released:
            used.setdefault(task.info.role, []).append(task.info.pool)
    for offer in framework.offers.values():
        offered.setdefault(offer.role, []).append(offer.resources)
    return _summed(used), _summed(offered)


def _summed(pools: dict[str, list[Pool]]) -> list[dict[str, Any]]:
    return [
        entry
        for role, parts in pools.items()
        for entry in endpoint_resources(united_pool(parts), role)
    ]


def task_message(task: Task) -> dict[str, Any]:
    """Write a ``Task``."""
    info = task.info
    message: dict[str, Any] = {
        "name": info.name,
        "task_id": {"value": info.id},
        "framework_id": {"value": task.framework_id},
    }
    if task.executor_id is not None:
        message["executor_id"] = {"value": task.executor_id}
    message |= {
        "agent_id": {"value": info.agent_id},
        "state": task.state.value,
        "resources": resource_messages(info.pool, info.role),
    }
    if task.statuses:
        message["statuses"] = list(task.statuses)
        message["status_update_state"] = task.forwarded.value
        if "uuid" in task.statuses[-1]:
            message["status_update_uuid"] = task.statuses[-1]["uuid"]
    for name in ("labels", "discovery", "health_check", "check", "kill_policy"):
        if name in info.document:
            message[name] = info.document[name]
    if "container" in info.document:
        message["container"] = container_message(info.document["container"])
    return message
