"""Whether a task can be launched: from ``TaskInfo`` to a task, or to Mesos' reason against it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from scheduler.embedded.model import DEFAULT_ROLE, TaskGroup, TaskInfo, describe
from scheduler.embedded.pool import UNRESERVED, Pool
from scheduler.embedded.validation import validate_id
from scheduler.errors import QuantityError
from scheduler.quantities import Resources

_Document: TypeAlias = Mapping[str, Any]


class TaskError(ValueError):
    """The message of the TASK_ERROR."""


def check_task(
    document: _Document,
    *,
    agent_id: str,
    role: str,
    available: Pool,
    taken_ids: Collection[str],
) -> TaskInfo:
    """Judge one task of a LAUNCH.

    Parameters
    ----------
    document
        The converted ``TaskInfo``.
    agent_id
        The agent of the accepted offers.
    role
        The role that they are allocated to.
    available
        What of them earlier tasks have left.
    taken_ids
        Ids of the framework's tasks that are not forgotten yet.

    Raises
    ------
    TaskError
        With the message of the TASK_ERROR update.
    """
    for rule in (_id, _kill_policy, _max_completion_time, _check, _health_check):
        rule(document)
    task_id = document["task_id"]["value"]
    if task_id in taken_ids:
        raise TaskError(f"Task has duplicate ID: {task_id}")
    named = document["agent_id"]["value"]
    if named != agent_id:
        raise TaskError(f"Task uses invalid agent {named} while agent {agent_id} is expected")
    for rule in (_resources, _container, _command):
        rule(document)
    pool = fitting(document["resources"], role, available)
    return TaskInfo(task_id, document["name"], agent_id, role, pool, document)


def check_group(
    document: _Document,
    *,
    framework_id: str,
    agent_id: str,
    role: str,
    available: Pool,
    taken_ids: Collection[str],
    executor_runs: bool,
) -> TaskGroup:
    """Judge the tasks of a LAUNCH_GROUP, which are launched all or not at all.

    Parameters
    ----------
    document
        The converted ``LaunchGroup``.
    framework_id
        Whose it is.
    agent_id, role, available, taken_ids
        As for :func:`check_task`.
    executor_runs
        Whether the agent has that executor already, so that it takes nothing more itself.

    Raises
    ------
    TaskError
        With the message of the TASK_ERROR updates.
    """
    executor = document["executor"]
    _executor(executor, framework_id)
    entries = executor.get("resources", [])
    own = Pool() if executor_runs or not entries else fitting(entries, role, available)
    documents = document["task_group"].get("tasks", [])
    if not documents:
        raise TaskError("Task group cannot be empty")
    left = available - own
    taken = set(taken_ids)
    tasks: list[TaskInfo] = []
    for task in documents:
        try:
            _group_member(task)
            found = check_task(task, agent_id=agent_id, role=role, available=left, taken_ids=taken)
        except TaskError as exc:
            raise TaskError(f"Task '{task['task_id']['value']}' is invalid: {exc}") from exc
        left -= found.pool
        taken.add(found.id)
        tasks.append(found)
    return TaskGroup(own, tuple(tasks))


def _executor(document: _Document, framework_id: str) -> None:
    if problem := validate_id(document["executor_id"]["value"]):
        raise TaskError(f"Executor ID is invalid: {problem}")
    named = document.get("framework_id", {}).get("value", "")
    if named != framework_id:
        raise TaskError(
            f"ExecutorInfo has an invalid FrameworkID (Actual: {named} vs Expected: {framework_id})"
        )
    if document.get("type") != "DEFAULT":
        raise TaskError("'ExecutorInfo.type' must be 'DEFAULT' in this cluster")
    if "command" in document:
        raise TaskError("'ExecutorInfo.command' must not be set for 'DEFAULT' executor")
    _resource_values(document.get("resources", []), "Executor")


def _group_member(document: _Document) -> None:
    if "executor" in document:
        raise TaskError("'TaskInfo.executor' must not be set")
    container = document.get("container", {})
    if container.get("network_infos"):
        raise TaskError("NetworkInfos must not be set on the task")
    if container.get("type") == "DOCKER":
        raise TaskError("Docker ContainerInfo is not supported on the task")


def _id(document: _Document) -> None:
    if problem := validate_id(document["task_id"]["value"]):
        raise TaskError(problem)


def _kill_policy(document: _Document) -> None:
    grace = document.get("kill_policy", {}).get("grace_period", {})
    if grace.get("nanoseconds", 0) < 0:
        raise TaskError("Task's 'kill_policy.grace_period' must be non-negative")


def _max_completion_time(document: _Document) -> None:
    if document.get("max_completion_time", {}).get("nanoseconds", 0) < 0:
        raise TaskError("Task's 'max_completion_time' must be non-negative")


def _check(document: _Document) -> None:
    if "check" in document:
        _probe(document["check"], "Task uses invalid check", "check")


def _health_check(document: _Document) -> None:
    if "health_check" in document:
        _probe(document["health_check"], "Task uses invalid health check", "health check")


def _probe(check: _Document, problem: str, what: str) -> None:
    kind = check.get("type")
    if kind not in ("COMMAND", "HTTP", "TCP"):
        raise TaskError(f"{problem}: {what.capitalize()} must specify 'type'")
    if kind.lower() not in check:
        raise TaskError(f"{problem}: Expecting '{kind.lower()}' to be set for {kind} {what}")
    for name in ("delay_seconds", "interval_seconds", "timeout_seconds", "grace_period_seconds"):
        if check.get(name, 0.0) < 0:
            raise TaskError(f"{problem}: Expecting '{name}' to be non-negative")


def _resources(document: _Document) -> None:
    entries = document.get("resources", [])
    if not entries:
        raise TaskError("Task uses no resources")
    _resource_values(entries, "Task")


def _resource_values(entries: Sequence[_Document], whose: str) -> None:
    for entry in entries:
        if problem := _invalid_value(entry):
            raise TaskError(f"Resource '{_shown(entry)}' is invalid: {problem}")
    roles = list(dict.fromkeys(r for e in entries if (r := _allocation(e)) is not None))
    if len(roles) > 1:
        raise TaskError(
            f"Invalid {whose.lower()} resources: The resources have multiple allocation roles "
            f"('{roles[1]}' and '{roles[0]}') "
            "but only one allocation role is allowed"
        )


def _invalid_value(entry: _Document) -> str | None:
    kind = entry.get("type", "TEXT")
    if kind == "SCALAR":
        if "scalar" not in entry:
            return "Invalid scalar resource"
        return "Invalid scalar resource: value <= 0" if entry["scalar"]["value"] < 0 else None
    if kind == "RANGES":
        pairs = entry.get("ranges", {}).get("range", [])
        if any(p["begin"] > p["end"] for p in pairs):
            return "Invalid ranges resource: begin > end"
        ordered = sorted((p["begin"], p["end"]) for p in pairs)
        if any(a[1] >= b[0] for a, b in pairwise(ordered)):
            return "Invalid ranges resource: overlapping ranges"
        return None
    return None if kind == "SET" else "Unsupported resource type"


def _allocation(entry: _Document) -> str | None:
    role: str | None = entry.get("allocation_info", {}).get("role")
    return role


def _reservation(entry: _Document) -> str | None:
    """Return the role that a resource is said to be reserved for."""
    for reservation in reversed(entry.get("reservations", [])):
        return str(reservation.get("role", ""))
    role = entry.get("role", DEFAULT_ROLE)
    return None if role == DEFAULT_ROLE else role


def _shown(entry: _Document, role: str = DEFAULT_ROLE) -> str:
    """Write one resource as Mesos does in its error texts, however wrong it is."""
    reserved = _reservation(entry)
    note = "" if reserved is None else f"(reservations: [(STATIC,{reserved})])"
    name = f"{entry['name']}(allocated: {_allocation(entry) or role}){note}"
    if entry.get("type") == "RANGES":
        pairs = entry.get("ranges", {}).get("range", [])
        listed = ", ".join("{begin}-{end}".format_map(pair) for pair in pairs)
        return f"{name}:[{listed}]"
    if entry.get("type") == "SET":
        return f"{name}:{{{', '.join(entry.get('set', {}).get('item', []))}}}"
    value = round(entry.get("scalar", {}).get("value", 0.0), 3)
    return f"{name}:{value:.15g}"


def _container(document: _Document) -> None:
    container = document.get("container")
    if container is None:
        return
    if container.get("type") == "DOCKER" and "docker" not in container:
        raise TaskError(
            "Task's `ContainerInfo` is invalid: DockerInfo 'docker' is not set for "
            "DOCKER typed ContainerInfo"
        )


def _command(document: _Document) -> None:
    if ("command" in document) == ("executor" in document):
        raise TaskError(
            "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
        )


def fitting(entries: Sequence[_Document], role: str, available: Pool) -> Pool:
    """Return what valid entries amount to.

    Raises
    ------
    TaskError
        If it is more than is `available`, or not of its reservation.
    """
    wanted = _pool(entries, role)
    if wanted is None or not available.contains(wanted):
        asked = "; ".join(_shown(entry, role) for entry in entries)
        raise TaskError(
            f"Total resources {asked} required by task and its executor is more than available "
            f"{describe(available, role)}"
        )
    return wanted


def _pool(entries: Sequence[_Document], role: str) -> Pool | None:
    """Sum entries by reservation; None when no agent can have such."""
    parts: dict[str, list[_Document]] = {}
    for entry in entries:
        if entry.get("type") == "SET" or _allocation(entry) not in (None, role):
            return None
        parts.setdefault(_reservation(entry) or UNRESERVED, []).append(entry)
    try:
        return Pool({reserved: Resources.from_mesos(part) for reserved, part in parts.items()})
    except QuantityError:  # a range member asked for twice, or beyond all measure
        return None
