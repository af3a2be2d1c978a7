"""One placed task as Mesos wants it: templates filled in, environment, ``TaskInfo``. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Final

from scheduler import given, labels
from scheduler.graph import EdgeIndex, EdgeKind, PhysicalGraph, PhysicalTask, TaskTemplate
from scheduler.offers import Ledger
from scheduler.placement import Assignment
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.templates import field_of, resolve, variable_of
from scheduler.topology import AgentSnapshot, Topology

DOCKER_SANDBOX: Final = "/mnt/mesos/sandbox"
"""Where Mesos' Docker containerizer mounts the sandbox."""
WAITS_FOR: Final = (EdgeKind.READY, EdgeKind.FINISHED, EdgeKind.ENDED)
NAMES: Final = (EdgeKind.PORT, EdgeKind.RESOURCES, EdgeKind.RESOLVED)
"""Edges by which a task's templates name something of another."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A task with its place."""

    task: PhysicalTask
    assignment: Assignment
    agent: AgentSnapshot
    drawn: Resources
    """All that the task takes from it."""

    @property
    def what(self) -> tuple[TaskRequest, Assignment, Topology]:
        """What it asks for, what it was given, and of which machine."""
        return self.task.template.request, self.assignment, self.agent.topology

    @property
    def image(self) -> str | None:
        """The image of its container; None: it is a process."""
        template = self.task.template
        return given.image(
            template.image, template.gpu_images, self.assignment, self.agent.topology
        )

    def ports(self) -> dict[str, int]:
        """Return port numbers by name."""
        names = self.task.template.request.ports
        return dict(zip(names, self.assignment.ports, strict=True))


def own_fields(graph: PhysicalGraph, bound: Bound) -> dict[str, str]:
    """Return every field of a placed task's own that templates may name, with its value."""
    return {
        **graph.values,
        "task.id": bound.task.task_id,
        "task.name": bound.task.name,
        "graph.id": graph.graph_id,
        "host": bound.agent.host,
        "address": bound.agent.address,
        "sandbox": "." if bound.image is None else DOCKER_SANDBOX,
        **{f"ports[{port}]": str(number) for port, number in bound.ports().items()},
        **given.fields(*bound.what),
    }


def shared_fields(graph: PhysicalGraph, edges: EdgeIndex, bound: Bound) -> dict[str, str]:
    """Return what other tasks may name of a placed task, by the edges that they have to it.

    Its environment, which RESOLVED edges make known, is not filled in yet: see :func:`shared_variables`.
    """
    name, shared = bound.task.name, dict[str, str]()
    if edges.sources(name, EdgeKind.PORT):
        for port, number in bound.ports().items():
            shared[f"endpoint[{name}:{port}]"] = f"{bound.agent.address}:{number}"
    if edges.sources(name, EdgeKind.RESOURCES):
        own = own_fields(graph, bound)
        shared |= {field_of(name, field): value for field, value in own.items()}
    return shared


def shared_variables(edges: EdgeIndex, name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what other tasks may name of a task's environment."""
    if not edges.sources(name, EdgeKind.RESOLVED):
        return {}
    return {variable_of(name, variable): value for variable, value in environment.items()}


def resolution_order(graph: PhysicalGraph, names: Collection[str]) -> list[str]:
    """Return the names so that each comes after those that it has RESOLVED edges to."""
    after = [edge for edge in graph.logical.edges if edge.kind is EdgeKind.RESOLVED]
    if not after:
        return list(names)
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(names, ()))
    for edge in after:
        order.add(edge.source, edge.target)
    return [name for name in order.static_order() if name in names]


def waits(edges: EdgeIndex, name: str) -> bool:
    """Whether a task depends on others, so that it must ask for its go-ahead."""
    return bool(edges.targets(name, *WAITS_FOR))


def shares(bound: Bound) -> dict[str, str]:
    """Return the environment that tells a task what it is and what it was given."""
    return {
        "SDP_TASK_ID": bound.task.task_id,
        "SDP_TASK_NAME": bound.task.name,
        **given.environment(*bound.what),
    }


def resolved(template: TaskTemplate, values: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Fill in command and environment.

    Raises
    ------
    GraphError
        If a template names what does not exist.
    """
    command = [resolve(word, values) for word in template.command]
    return command, {name: resolve(text, values) for name, text in template.env.items()}


def task_info(
    graph: PhysicalGraph,
    bound: Bound,
    ledger: Ledger,
    command: list[str],
    environment: Mapping[str, str],
    *,
    waits_seconds: float = 0.0,
    token: str = "",
) -> dict[str, Any]:
    """Return Mesos' ``TaskInfo``.

    Parameters
    ----------
    ledger
        What the agent offers; the task's resources are drawn from it.
    command, environment
        Already filled in.
    waits_seconds
        How long it may wait for its go-ahead, which Mesos counts as running.
    token
        Secret of that; its digest goes into a label.

    Raises
    ------
    QuantityError
        If the offers do not hold what the task was given.
    """
    task, template, agent, image = bound.task, bound.task.template, bound.agent, bound.image
    carried = labels.written(
        template, graph.graph_id, bound.assignment, agent.address, agent.url, token
    )
    info: dict[str, Any] = {
        "task_id": {"value": task.task_id},
        "agent_id": {"value": bound.assignment.agent_id},
        "name": task.name,
        "resources": ledger.draw(agent.advertised(bound.drawn)),
        "command": _command(image, command, environment),
        "kill_policy": {"grace_period": _duration(template.kill_grace)},
        "labels": {"labels": [{"key": key, "value": value} for key, value in carried.items()]},
    }
    if template.max_run_time is not None:
        info["max_completion_time"] = _duration(template.max_run_time + waits_seconds)
    if image is not None:
        info["container"] = _container(image, bound)
    if template.request.ports:
        info["discovery"] = _discovery(bound)
    return info


def _duration(seconds: float) -> dict[str, int]:
    return {"nanoseconds": int(seconds * 1e9)}


def _command(
    image: str | None, command: Sequence[str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return Mesos' ``CommandInfo``.

    Docker is given the value and all arguments; of a process the first argument is its own name.
    """
    return {
        "shell": False,
        "value": command[0],
        "arguments": command if image is None else command[1:],
        "environment": {
            "variables": [{"name": n, "value": v} for n, v in sorted(environment.items())]
        },
    }


def _discovery(bound: Bound) -> dict[str, Any]:
    """Return Mesos' ``DiscoveryInfo``: whoever asks is told of the ports."""
    ports = [{"number": number, "name": name} for name, number in bound.ports().items()]
    return {"visibility": "CLUSTER", "name": bound.task.name, "ports": {"ports": ports}}


def _container(image: str, bound: Bound) -> dict[str, Any]:
    """Return Mesos' ``ContainerInfo``: Docker on the host's network, bound to cores and their memory."""
    assignment, topology = bound.assignment, bound.agent.topology
    parameters = given.docker_parameters(*bound.what)
    paths = [topology.volumes[number].path for number in assignment.volumes]
    return {
        "type": "DOCKER",
        "docker": {"image": image, "network": "HOST", "parameters": parameters},
        "volumes": [{"host_path": p, "container_path": p, "mode": "RW"} for p in paths],
    }
