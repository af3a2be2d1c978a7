"""What the JSON endpoints of master and agents show: pure functions of their books.

Field names and their order are those of Mesos 1.12. Left out is what this cluster does not have (reservations,
quota, flags); lists of it are there and empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scheduler.embedded.agent import Agent, Run
from scheduler.embedded.master import CAPABILITIES, VERSION, Master
from scheduler.embedded.model import Offer, TaskInfo, TaskState, attribute_message, ranges_text
from scheduler.embedded.records import AgentRecord, Framework, Task
from scheduler.quantities import Ranges, Resources, from_millis

AGENT_CAPABILITIES = ("MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT")
_ALWAYS = ("cpus", "gpus", "mem", "disk")
_COUNTED = (
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


def resources_json(resources: Resources) -> dict[str, Any]:
    """Write resources as a plain object: numbers, and ranges as text."""
    shown: dict[str, Any] = dict.fromkeys(_ALWAYS, 0.0)
    shown |= {name: from_millis(amount) for name, amount in resources.scalars.items()}
    shown |= {name: ranges_text(members) for name, members in resources.ranges.items()}
    return shown


def pooled(resources: Iterable[Resources]) -> Resources:
    """Sum resources of several agents; a range member that several have is there once."""
    scalars: dict[str, int] = {}
    ranges: dict[str, Ranges] = {}
    for item in resources:
        for name, amount in item.scalars.items():
            scalars[name] = scalars.get(name, 0) + amount
        for name, members in item.ranges.items():
            ranges[name] = ranges.get(name, Ranges()) | members
    return Resources(scalars, ranges)


def attributes_json(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Write attributes as a plain object."""
    shown: dict[str, Any] = {}
    for name, text in attributes.items():
        message = attribute_message(name, text)
        shown[name] = message["scalar"]["value"] if message["type"] == "SCALAR" else text
    return shown


def agent_json(record: AgentRecord) -> dict[str, Any]:
    """Write an agent as ``/slaves`` has it."""
    info = record.info
    total = resources_json(record.total)
    return {
        "id": info.id,
        "hostname": info.spec.hostname,
        "port": info.address[1],
        "attributes": attributes_json(info.spec.attributes),
        "pid": info.pid,
        "registered_time": record.registered_time,
        "resources": total,
        "used_resources": resources_json(record.used),
        "offered_resources": resources_json(record.offered),
        "reserved_resources": {},
        "unreserved_resources": total,
        "active": record.connected,
        "deactivated": False,
        "version": VERSION,
        "capabilities": list(AGENT_CAPABILITIES),
    }


def _status_json(status: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"state": status["state"], "timestamp": status["timestamp"]}
    if "container_status" in status:
        container = dict(status["container_status"])
        container.pop("executor_pid", None)
        shown["container_status"] = container
    return shown


def task_json(
    framework_id: str, task: TaskInfo, state: TaskState, statuses: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write a task as ``/tasks`` has it."""
    shown: dict[str, Any] = {
        "id": task.id,
        "name": task.name,
        "framework_id": framework_id,
        "executor_id": "",
        "slave_id": task.agent_id,
        "state": state.value,
        "resources": resources_json(task.resources),
        "role": task.role,
        "statuses": [_status_json(status) for status in statuses],
    }
    if task.labels:
        shown["labels"] = list(task.labels)
    if "discovery" in task.document:
        shown["discovery"] = task.document["discovery"]
    return shown


def _task(task: Task) -> dict[str, Any]:
    return task_json(task.framework_id, task.info, task.state, task.statuses)


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
    used = pooled(t.info.resources for t in framework.tasks.values() if not t.released)
    offered = pooled(o.resources for o in framework.offers.values())
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
        "recovered": False,
    }


def framework_json(framework: Framework) -> dict[str, Any]:
    """Write a framework as ``/frameworks`` has it."""
    info = framework.info
    held = [t.info.resources for t in framework.tasks.values() if not t.released]
    held += [o.resources for o in framework.offers.values()]
    shown = _framework_head(framework) | {
        "user": info.user,
        "failover_timeout": info.failover_timeout,
        "checkpoint": info.checkpoint,
        "registered_time": framework.registered_time,
        "unregistered_time": framework.unregistered_time,
        "resources": resources_json(pooled(held)),
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
        "tasks": [_task(task) for task in framework.tasks.values()],
        "unreachable_tasks": [_task(task) for task in framework.unreachable.values()],
        "completed_tasks": [_task(task) for task in framework.completed],
        "offers": [offer_json(offer) for offer in framework.offers.values()],
        "executors": [],
    }


def frameworks_json(master: Master) -> dict[str, Any]:
    """Return ``/frameworks``."""
    return {
        "frameworks": [framework_json(f) for f in master.frameworks.values()],
        "completed_frameworks": [framework_json(f) for f in master.completed_frameworks.values()],
        "unregistered_frameworks": [],
    }


def slaves_json(master: Master) -> dict[str, Any]:
    """Return ``/slaves``."""
    return {"slaves": [agent_json(r) for r in _reachable(master)], "recovered_slaves": []}


def _reachable(master: Master) -> list[AgentRecord]:
    return [r for r in master.agents.values() if r.unreachable_since is None]


def state_json(master: Master) -> dict[str, Any]:
    """Return ``/state``."""
    host, port = master.address
    pid = f"master@{host}:{port}"
    activated = sum(record.connected for record in _reachable(master))
    return {
        "version": VERSION,
        "start_time": master.start_time,
        "elected_time": master.start_time,
        "id": master.id,
        "pid": pid,
        "hostname": master.hostname,
        "capabilities": list(CAPABILITIES),
        "activated_slaves": float(activated),
        "deactivated_slaves": float(len(_reachable(master)) - activated),
        "unreachable_slaves": float(len(master.agents) - len(_reachable(master))),
        "leader": pid,
        "leader_info": {"id": master.id, "pid": pid, "port": port, "hostname": master.hostname},
        "flags": {"allocation_interval": f"{master.settings.allocation_interval:g}secs"},
        **slaves_json(master),
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
    return {"tasks": [_task(task) for task in tasks[offset : offset + limit]]}


def _first_time(task: Task) -> float:
    return float(task.statuses[0]["timestamp"]) if task.statuses else float("inf")


def state_summary_json(master: Master) -> dict[str, Any]:
    """Return ``/state-summary``: without tasks, but their numbers."""
    frameworks = list(master.frameworks.values())
    slaves = []
    for record in _reachable(master):
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
    return {state.value: counts[state] for state in _COUNTED}


def roles_json(master: Master) -> dict[str, Any]:
    """Return ``/roles``: of ranges the number of members."""
    roles: dict[str, list[Framework]] = {}
    for framework in master.frameworks.values():
        for role in framework.info.roles:
            roles.setdefault(role, []).append(framework)
    return {"roles": [_role(name, members) for name, members in sorted(roles.items())]}


def _role(name: str, frameworks: Sequence[Framework]) -> dict[str, Any]:
    allocated = _quantities(
        t.info.resources
        for f in frameworks
        for t in f.tasks.values()
        if t.info.role == name and not t.released
    )
    offered = _quantities(
        o.resources for f in frameworks for o in f.offers.values() if o.role == name
    )
    names = sorted(allocated.keys() | offered.keys())
    both = {n: allocated.get(n, 0.0) + offered.get(n, 0.0) for n in names}
    return {
        "name": name,
        "weight": 1.0,
        "quota": {"role": name, "guarantee": {}, "limit": {}, "consumed": allocated},
        "resources": both,
        "allocated": allocated,
        "offered": offered,
        "reserved": {},
        "frameworks": [framework.info.id for framework in frameworks],
    }


def _quantities(resources: Iterable[Resources]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for item in resources:
        sums.update(item.scalars)
        sums.update({name: 1000 * len(members) for name, members in item.ranges.items()})
    return {name: from_millis(amount) for name, amount in sorted(sums.items())}


def metrics_json(master: Master) -> dict[str, float]:
    """Return ``/metrics/snapshot``: the gauges and counters that monitoring commonly reads."""
    agents = list(_reachable(master))
    frameworks = list(master.frameworks.values())
    metrics = {
        "master/elected": 1.0,
        "master/uptime_secs": master.clock.time() - master.start_time,
        "master/slaves_active": sum(a.connected for a in agents),
        "master/slaves_connected": sum(a.connected for a in agents),
        "master/slaves_disconnected": sum(not a.connected for a in agents),
        "master/slaves_unreachable": len(master.agents) - len(agents),
        "master/frameworks_active": sum(f.connected for f in frameworks),
        "master/frameworks_connected": sum(f.connected for f in frameworks),
        "master/frameworks_disconnected": sum(not f.connected for f in frameworks),
        "master/outstanding_offers": len(master.desk.offers),
        "allocator/mesos/allocation_runs": master.counters["allocations"],
        "master/invalid_status_update_acknowledgements": master.counters[
            "invalid_acknowledgements"
        ],
    }
    total, used = pooled(a.total for a in agents), pooled(a.used for a in agents)
    for name in ("cpus", "mem", "disk"):
        metrics[f"master/{name}_total"] = from_millis(total.scalars.get(name, 0))
        metrics[f"master/{name}_used"] = from_millis(used.scalars.get(name, 0))
    states = Counter(task.state for f in frameworks for task in f.tasks.values())
    for state in _COUNTED:
        name = f"master/tasks_{state.name.lower()}"
        counted = master.counters[f"updates/{state.value}"] if state.is_terminal else states[state]
        metrics[name] = counted
    for kind, count in master.counters.items():
        if kind.startswith("calls/"):
            metrics[f"master/messages_{kind.removeprefix('calls/')}"] = count
    return {name: float(value) for name, value in sorted(metrics.items())}


def agent_state_json(master: Master, agent: Agent) -> dict[str, Any]:
    """Return an agent's own ``/state``, where tools find the folders of sandboxes."""
    record = master.agents[agent.info.id]
    total = resources_json(record.total)
    runs: dict[str, tuple[list[Run], list[Run]]] = {}
    for run in agent.runs.values():
        runs.setdefault(run.framework.id, ([], []))[0].append(run)
    for run in agent.completed.values():
        runs.setdefault(run.framework.id, ([], []))[1].append(run)
    present = {i: r for i, r in runs.items() if i in master.frameworks}
    return {
        "version": VERSION,
        "start_time": record.registered_time,
        "id": agent.info.id,
        "pid": agent.info.pid,
        "hostname": agent.info.spec.hostname,
        "capabilities": list(AGENT_CAPABILITIES),
        "resources": total,
        "reserved_resources": {},
        "unreserved_resources": total,
        "reserved_resources_allocated": {},
        "unreserved_resources_allocated": resources_json(record.used),
        "resource_providers": [],
        "attributes": attributes_json(agent.info.spec.attributes),
        "master_hostname": master.hostname,
        "flags": {},
        "frameworks": [_agent_framework(master, *present[i]) for i in present],
        "completed_frameworks": [
            _agent_framework(master, *runs[i]) for i in runs if i not in present
        ],
    }


def _agent_framework(master: Master, live: Sequence[Run], ended: Sequence[Run]) -> dict[str, Any]:
    info = (*live, *ended)[0].framework
    return {
        "id": info.id,
        "name": info.name,
        "user": info.user,
        "failover_timeout": info.failover_timeout,
        "checkpoint": info.checkpoint,
        "hostname": info.hostname,
        "roles": list(info.roles),
        "executors": [_executor(master, run, live=True) for run in live],
        "completed_executors": [_executor(master, run, live=False) for run in ended],
    }


def _executor(master: Master, run: Run, *, live: bool) -> dict[str, Any]:
    framework = master.frameworks.get(run.framework.id)
    framework = framework or master.completed_frameworks.get(run.framework.id)
    known = _known_task(framework, run.task.id)
    state = TaskState.UNKNOWN if known is None else known.state
    statuses = [] if known is None else known.statuses
    task = task_json(run.framework.id, run.task, state, statuses)
    return {
        "id": run.task.id,
        "name": f"Command Executor (Task: {run.task.id})",
        "source": run.task.id,
        "container": run.container_id,
        "directory": str(run.sandbox),
        "resources": resources_json(run.task.resources),
        "role": run.task.role,
        "labels": list(run.task.labels),
        "tasks": [task] if live else [],
        "queued_tasks": [],
        "completed_tasks": [] if live else [task],
    }


def _known_task(framework: Framework | None, task_id: str) -> Task | None:
    if framework is None:
        return None
    if (task := framework.tasks.get(task_id) or framework.unreachable.get(task_id)) is not None:
        return task
    ended = reversed(framework.completed)
    return next((task for task in ended if task.info.id == task_id), None)
