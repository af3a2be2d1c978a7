"""The master's JSON endpoints: pure functions of its books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from scheduler.embedded.describe.flags import flags
from scheduler.embedded.describe.tasks import known_task_json
from scheduler.embedded.describe.values import attributes_json, resources_json
from scheduler.embedded.master import CAPABILITIES, Master
from scheduler.embedded.messages import (
    AGENT_CAPABILITIES,
    allocated_pools,
    drain_message,
    endpoint_resources,
)
from scheduler.embedded.model import VERSION, AgentInfo, Offer, TaskState
from scheduler.embedded.pool import UNRESERVED, Pool, united, united_pool
from scheduler.embedded.records import AgentRecord, Framework, FrameworkState, Task
from scheduler.quantities import from_millis

COUNTED = (
    TaskState.STAGING,
    TaskState.STARTING,
    TaskState.RUNNING,
    TaskState.KILLING,
    TaskState.FINISHED,
    TaskState.KILLED,
    TaskState.FAILED,
    TaskState.LOST,
    TaskState.ERROR,
    TaskState.UNREACHABLE,
)


def agent_json(record: AgentRecord) -> dict[str, Any]:
    """Write an agent as ``/state-summary`` has it."""
    info = record.info
    shown = {
        "id": info.id,
        "hostname": info.spec.hostname,
        "port": info.address[1],
        "attributes": attributes_json(info.spec.attributes),
        "pid": info.pid,
        "registered_time": record.registered_time,
    }
    if record.reregistered_time is not None:
        shown["reregistered_time"] = record.reregistered_time
    return shown | {
        "resources": resources_json(record.total),
        "used_resources": resources_json(record.used),
        "offered_resources": resources_json(record.offered),
        "reserved_resources": {
            role: resources_json(part) for role, part in record.total.reservations.items()
        },
        "unreserved_resources": resources_json(record.total.reserved_for(UNRESERVED)),
        "active": record.active,
        "deactivated": record.deactivated,
        "version": VERSION,
        "capabilities": list(AGENT_CAPABILITIES),
    }


def full_agent_json(record: AgentRecord, frameworks: Iterable[Framework]) -> dict[str, Any]:
    """Write an agent as ``/slaves`` has it, with its resources as messages too."""
    total = record.total
    pools = allocated_pools(record, frameworks)
    reserved = {role: Pool({role: part}) for role, part in total.reservations.items()}
    unreserved = Pool.unreserved(total.reserved_for(UNRESERVED))
    return agent_json(record) | {
        "reserved_resources_full": {r: endpoint_resources(p) for r, p in reserved.items()},
        "unreserved_resources_full": endpoint_resources(unreserved),
        "used_resources_full": [
            entry for role, (used, _) in pools.items() for entry in endpoint_resources(used, role)
        ],
        "offered_resources_full": [
            entry for role, (_, free) in pools.items() for entry in endpoint_resources(free, role)
        ],
        **drain_message(record),
    }


def _recovered_json(info: AgentInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "hostname": info.spec.hostname,
        "port": info.address[1],
        "attributes": attributes_json(info.spec.attributes),
    }


def offer_json(offer: Offer) -> dict[str, Any]:
    """Write an outstanding offer."""
    return {
        "id": offer.id,
        "framework_id": offer.framework_id,
        "allocation_info": {"role": offer.role},
        "slave_id": offer.agent_id,
        "resources": resources_json(offer.resources),
    }


def _framework_head(framework: Framework) -> dict[str, Any]:
    info = framework.info
    used = united(t.info.resources for t in framework.tasks.values() if not t.released)
    offered = united(o.resources.plain for o in framework.offers.values())
    return {
        "id": info.id,
        "name": info.name,
        "used_resources": resources_json(used),
        "offered_resources": resources_json(offered),
        "capabilities": list(info.capabilities),
        "hostname": info.hostname,
        "webui_url": info.webui_url,
        "active": framework.connected,
        "connected": framework.connected,
        "recovered": framework.state is FrameworkState.RECOVERED,
    }


def framework_json(framework: Framework) -> dict[str, Any]:
    """Write a framework as ``/frameworks`` has it."""
    info = framework.info
    held = [t.info.resources for t in framework.tasks.values() if not t.released]
    held += [o.resources.plain for o in framework.offers.values()]
    shown = _framework_head(framework) | {
        "user": info.user,
        "failover_timeout": info.failover_timeout,
        "checkpoint": info.checkpoint,
        "registered_time": framework.registered_time,
        "unregistered_time": framework.unregistered_time,
        "resources": resources_json(united(held)),
        "offer_constraints": {},
    }
    if framework.reregistered_time is not None:
        shown["reregistered_time"] = framework.reregistered_time
    if info.principal is not None:
        shown["principal"] = info.principal
    if info.labels:
        shown["labels"] = list(info.labels)
    if info.can("MULTI_ROLE"):
        shown["roles"] = list(info.roles)
    else:
        shown["role"] = info.roles[0]
    return shown | {
        "tasks": [known_task_json(task) for task in framework.tasks.values()],
        "unreachable_tasks": [known_task_json(task) for task in framework.unreachable.values()],
        "completed_tasks": [known_task_json(task) for task in framework.completed],
        "offers": [offer_json(offer) for offer in framework.offers.values()],
        "executors": _executors(framework),
    }


def _executors(framework: Framework) -> list[dict[str, Any]]:
    """List default executors; command executors are not shown, as with Mesos."""
    found = {
        (t.executor_id, t.info.agent_id)
        for t in framework.tasks.values()
        if t.executor_id is not None
    }
    return [
        {"executor_id": e, "framework_id": framework.info.id, "type": "DEFAULT", "slave_id": a}
        for e, a in sorted(found)
    ]


def frameworks_json(master: Master) -> dict[str, Any]:
    """Return ``/frameworks``."""
    return {
        "frameworks": [framework_json(f) for f in master.frameworks.values()],
        "completed_frameworks": [framework_json(f) for f in master.completed_frameworks.values()],
        "unregistered_frameworks": [],
    }


def slaves_json(master: Master) -> dict[str, Any]:
    """Return ``/slaves``."""
    frameworks = list(master.frameworks.values())
    return {
        "slaves": [full_agent_json(r, frameworks) for r in master.agents.values()],
        "recovered_slaves": [_recovered_json(info) for info in master.recovered.values()],
    }


def state_json(master: Master) -> dict[str, Any]:
    """Return ``/state``."""
    host, port = master.address
    pid = f"master@{host}:{port}"
    active = sum(record.active for record in master.agents.values())
    return {
        "version": VERSION,
        "start_time": master.start_time,
        "elected_time": master.start_time,
        "id": master.id,
        "pid": pid,
        "hostname": master.hostname,
        "capabilities": list(CAPABILITIES),
        "activated_slaves": float(active),
        "deactivated_slaves": float(sum(r.deactivated for r in master.agents.values())),
        "unreachable_slaves": float(len(master.registry.unreachable)),
        "leader": pid,
        "leader_info": {"id": master.id, "pid": pid, "port": port, "hostname": master.hostname},
        "flags": flags(master),
        "slaves": [agent_json(record) for record in master.agents.values()],
        "recovered_slaves": [_recovered_json(info) for info in master.recovered.values()],
        **frameworks_json(master),
        "orphan_tasks": [],
    }


def tasks_json(master: Master, limit: int, offset: int, *, ascending: bool) -> dict[str, Any]:
    """Return ``/tasks``: also those that have ended, newest first unless `ascending`."""
    everyone = [*master.frameworks.values(), *master.completed_frameworks.values()]
    tasks = [
        task
        for framework in everyone
        for task in (
            *framework.tasks.values(),
            *framework.unreachable.values(),
            *framework.completed,
        )
    ]
    tasks.sort(key=_first_time, reverse=not ascending)
    return {"tasks": [known_task_json(task) for task in tasks[offset : offset + limit]]}


def _first_time(task: Task) -> float:
    return float(task.statuses[0]["timestamp"]) if task.statuses else float("inf")


def state_summary_json(master: Master) -> dict[str, Any]:
    """Return ``/state-summary``: without tasks, but their numbers."""
    frameworks = list(master.frameworks.values())
    slaves = []
    for record in master.agents.values():
        here = [t for f in frameworks for t in _all(f) if t.info.agent_id == record.info.id]
        owners = sorted({task.framework_id for task in here})
        slaves.append(agent_json(record) | _counts(here) | {"framework_ids": owners})
    shown = []
    for framework in frameworks:
        tasks = list(_all(framework))
        places = sorted({task.info.agent_id for task in tasks})
        shown.append(_framework_head(framework) | _counts(tasks) | {"slave_ids": places})
    return {"hostname": master.hostname, "slaves": slaves, "frameworks": shown}


def _all(framework: Framework) -> Iterable[Task]:
    return (*framework.tasks.values(), *framework.unreachable.values(), *framework.completed)


def _counts(tasks: Iterable[Task]) -> dict[str, int]:
    counts = Counter(task.state for task in tasks)
    return {state.value: counts[state] for state in COUNTED}


def roles_json(master: Master) -> dict[str, Any]:
    """Return ``/roles``: of ranges the number of members."""
    roles: dict[str, list[Framework]] = {}
    for framework in master.frameworks.values():
        for role in framework.info.roles:
            roles.setdefault(role, []).append(framework)
    reserved: dict[str, list[Pool]] = {}
    for record in master.agents.values():
        for role, part in record.total.reservations.items():
            reserved.setdefault(role, []).append(Pool({role: part}))
    names = sorted(roles.keys() | reserved.keys())
    return {"roles": [_role(n, roles.get(n, []), reserved.get(n, [])) for n in names]}


def _role(name: str, frameworks: Sequence[Framework], reserved: Sequence[Pool]) -> dict[str, Any]:
    used = [
        task.info.pool
        for framework in frameworks
        for task in framework.tasks.values()
        if task.info.role == name and not task.released
    ]
    offers = [o.resources for f in frameworks for o in f.offers.values() if o.role == name]
    unreserved = [Pool.unreserved(pool.reserved_for(UNRESERVED)) for pool in used]
    allocated, offered = _quantities(used), _quantities(offers)
    both = {n: allocated.get(n, 0.0) + offered.get(n, 0.0) for n in {**allocated, **offered}}
    return {
        "name": name,
        "weight": 1.0,
        "quota": {
            "role": name,
            "guarantee": {},
            "limit": {},
            "consumed": _quantities([*reserved, *unreserved]),
        },
        "resources": dict(sorted(both.items())),
        "allocated": allocated,
        "offered": offered,
        "reserved": _quantities(reserved),
        "frameworks": [framework.info.id for framework in frameworks],
    }


def _quantities(pools: Sequence[Pool]) -> dict[str, float]:
    """Sum up; what several agents have of the same range counts once, for each reservation."""
    sums: Counter[str] = Counter()
    for _, total in united_pool(pools):
        sums.update(total.scalars)
        sums.update({name: 1000 * len(members) for name, members in total.ranges.items()})
    return {name: from_millis(amount) for name, amount in sorted(sums.items())}
