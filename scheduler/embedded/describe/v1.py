"""What the operator API answers: the master's books as messages of Mesos' v1 API."""

from __future__ import annotations

from typing import Any

from scheduler.embedded.describe.flags import flags
from scheduler.embedded.describe.master import roles_json
from scheduler.embedded.describe.metrics import metrics_json
from scheduler.embedded.master import Master
from scheduler.embedded.messages import (
    agent_info,
    framework_message,
    framework_resources,
    task_message,
)
from scheduler.embedded.model import VERSION
from scheduler.embedded.records import Framework


def get_health(_: Master) -> dict[str, Any]:
    """Answer GET_HEALTH."""
    return {"healthy": True}


def get_flags(master: Master) -> dict[str, Any]:
    """Answer GET_FLAGS."""
    return {"flags": [{"name": n, "value": v} for n, v in flags(master).items()]}


def get_version(_: Master) -> dict[str, Any]:
    """Answer GET_VERSION."""
    return {"version_info": {"version": VERSION}}


def get_metrics(master: Master) -> dict[str, Any]:
    """Answer GET_METRICS."""
    return {"metrics": [{"name": n, "value": v} for n, v in metrics_json(master).items()]}


def get_logging_level(_: Master) -> dict[str, Any]:
    """Answer GET_LOGGING_LEVEL."""
    return {"level": 0}


def get_master(master: Master) -> dict[str, Any]:
    """Answer GET_MASTER."""
    return {
        "master_info": master.describe(),
        "start_time": master.start_time,
        "elected_time": master.start_time,
    }


def get_agents(master: Master) -> dict[str, Any]:
    """Answer GET_AGENTS."""
    return {
        "agents": [master.agent_message(record) for record in master.agents.values()],
        "recovered_agents": [agent_info(info) for info in master.recovered.values()],
    }


def get_tasks(master: Master) -> dict[str, Any]:
    """Answer GET_TASKS."""
    frameworks = list(master.frameworks.values())
    everyone = [*frameworks, *master.completed_frameworks.values()]
    return {
        "tasks": [task_message(t) for f in frameworks for t in f.tasks.values()],
        "unreachable_tasks": [task_message(t) for f in frameworks for t in f.unreachable.values()],
        "completed_tasks": [task_message(t) for f in everyone for t in f.completed],
    }


def get_executors(master: Master) -> dict[str, Any]:
    """Answer GET_EXECUTORS: default ones; command executors are not shown, as with Mesos."""
    found = {
        (task.executor_id, task.framework_id, task.info.agent_id)
        for framework in master.frameworks.values()
        for task in framework.tasks.values()
        if task.executor_id is not None
    }
    return {
        "executors": [
            {
                "executor_info": {
                    "type": "DEFAULT",
                    "executor_id": {"value": executor_id},
                    "framework_id": {"value": framework_id},
                },
                "agent_id": {"value": agent_id},
            }
            for executor_id, framework_id, agent_id in sorted(found)
        ]
    }


def get_frameworks(master: Master) -> dict[str, Any]:
    """Answer GET_FRAMEWORKS."""
    return {
        "frameworks": [_framework(master, f) for f in master.frameworks.values()],
        "completed_frameworks": [
            framework_message(f) for f in master.completed_frameworks.values()
        ],
    }


def _framework(master: Master, framework: Framework) -> dict[str, Any]:
    message = framework_message(framework)
    del message["unregistered_time"]
    offers = [master.desk.message(framework, o) for o in framework.offers.values()]
    allocated, offered = framework_resources(framework)
    held = {"offers": offers, "allocated_resources": allocated, "offered_resources": offered}
    return message | {n: v for n, v in held.items() if v} | {"offer_constraints": {}}


def get_operations(_: Master) -> dict[str, Any]:
    """Answer GET_OPERATIONS: there are none."""
    return {}


def get_roles(master: Master) -> dict[str, Any]:
    """Answer GET_ROLES; of the resources only those that Mesos counts for every role."""
    return {
        "roles": [
            {
                "name": role["name"],
                "weight": role["weight"],
                "frameworks": [{"value": i} for i in role["frameworks"]],
                "resources": [
                    {"name": n, "type": "SCALAR", "scalar": {"value": role["resources"][n]}}
                    for n in ("cpus", "disk", "mem")
                    if n in role["resources"]
                ],
            }
            for role in roles_json(master)["roles"]
        ]
    }


def get_weights(_: Master) -> None:
    """Answer GET_WEIGHTS: there are none, and nothing is said then."""
    return


def get_quota(_: Master) -> dict[str, Any]:
    """Answer GET_QUOTA: there is none."""
    return {"status": {}}


def get_maintenance_schedule(master: Master) -> dict[str, Any]:
    """Answer GET_MAINTENANCE_SCHEDULE."""
    return {"schedule": master.maintenance.describe_schedule()}


def get_maintenance_status(master: Master) -> dict[str, Any]:
    """Answer GET_MAINTENANCE_STATUS."""
    return {"status": master.maintenance.describe_status()}


def get_state(master: Master) -> dict[str, Any]:
    """Answer GET_STATE."""
    return {
        "get_tasks": get_tasks(master),
        "get_executors": get_executors(master),
        "get_frameworks": get_frameworks(master),
        "get_agents": get_agents(master),
    }
