"""One placed task as Mesos wants it: templates filled in, environment, ``TaskInfo``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from scheduler.graph import EdgeKind, PhysicalGraph, PhysicalTask, TaskTemplate
from scheduler.offers import Ledger
from scheduler.placement import Assignment
from scheduler.quantities import format_millis
from scheduler.templates import resolve
from scheduler.topology import AgentSnapshot

DOCKER_SANDBOX: Final = "/mnt/mesos/sandbox"
"""Where Mesos' Docker containerizer mounts the sandbox."""
LABEL_GRAPH: Final = "sdp.graph"
LABEL_TASK: Final = "sdp.task"
LABEL_KIND: Final = "sdp.kind"
WAITS_FOR: Final = (EdgeKind.READY, EdgeKind.FINISHED)


@dataclass(frozen=True, slots=True)
class Bound:
    """A task with its place."""

    task: PhysicalTask
    assignment: Assignment
    agent: AgentSnapshot

    def ports(self) -> dict[str, int]:
        """Return port numbers by name."""
        names = self.task.template.request.ports
        return dict(zip(names, self.assignment.ports, strict=True))


def namespace(graph: PhysicalGraph, name: str, bound: Mapping[str, Bound]) -> dict[str, str]:
    """Return every field that the templates of a task may name, with its value.

    Parameters
    ----------
    bound
        The placed tasks of the graph, by name: at least this one, and those that it has PORT edges to.
    """
    own = bound[name]
    values = {
        **graph.values,
        "task.id": own.task.task_id,
        "task.name": name,
        "graph.id": graph.graph_id,
        "host": own.agent.host,
        "address": own.agent.address,
        "cores": ",".join(map(str, own.assignment.cores)),
        "sandbox": DOCKER_SANDBOX if own.task.template.image else ".",
        **{f"ports[{port}]": str(number) for port, number in own.ports().items()},
        **_devices(own),
    }
    for target in graph.logical.targets(name, EdgeKind.PORT):
        if (other := bound.get(target)) is not None:
            for port, number in other.ports().items():
                values[f"endpoint[{target}:{port}]"] = f"{other.agent.address}:{number}"
    return values


def _devices(bound: Bound) -> dict[str, str]:
    request, assignment = bound.task.template.request, bound.assignment
    topology = bound.agent.topology
    values = {
        f"core[{core}]": str(number)
        for core, number in zip(request.cores, assignment.cores, strict=True)
    }
    for index, number in enumerate(assignment.gpus):
        gpu = topology.gpus[number]
        values[f"gpu[{index}].uuid"] = gpu.uuid or ""
        values[f"gpu[{index}].device"] = gpu.device or ""
        values[f"gpu[{index}].number"] = str(number)
    for nic_request, number in zip(request.nics, assignment.nics, strict=True):
        nic = topology.nics[number]
        stem = f"interface[{nic_request.network}]"
        values[f"{stem}.address"] = nic.address
        values[f"{stem}.name"] = nic.name
        values[f"{stem}.infiniband"] = ",".join(nic.infiniband)
    for volume, number in zip(request.volumes, assignment.volumes, strict=True):
        values[f"volume[{volume.name}].path"] = topology.volumes[number].path
    return values


def shares(bound: Bound) -> dict[str, str]:
    """Return the environment that tells a task what it was given, where no kernel enforces it.

    The limits of CUDA MPS are NVIDIA's own variables (*Multi-Process Service*, environment variables).
    """
    request, assignment = bound.task.template.request, bound.assignment
    told = {
        "SDP_TASK_ID": bound.task.task_id,
        "SDP_TASK_NAME": bound.task.name,
        "SDP_CPUS": format_millis(request.cpus + 1000 * len(assignment.cores)),
        "SDP_MEM_MIB": format_millis(request.mem),
    }
    if assignment.cores:
        told["SDP_CORES"] = ",".join(map(str, assignment.cores))
    for index, (gpu, number) in enumerate(zip(request.gpus, assignment.gpus, strict=True)):
        told[f"SDP_GPU_{index}_NUMBER"] = str(number)
        told[f"SDP_GPU_{index}_COMPUTE"] = format_millis(gpu.compute)
        told[f"SDP_GPU_{index}_MEM_MIB"] = format_millis(gpu.mem)
    if assignment.gpus:
        uuids = [bound.agent.topology.gpus[n].uuid or str(n) for n in assignment.gpus]
        percentage = max(1, min(100, max(gpu.compute for gpu in request.gpus) // 10))
        limits = (f"{i}={max(1, gpu.mem // 1000)}M" for i, gpu in enumerate(request.gpus))
        told["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)
        told["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(percentage)
        told["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = ",".join(limits)
    for index, nic in enumerate(request.nics):
        told[f"SDP_NIC_{index}_IN_MBPS"] = format_millis(nic.bandwidth_in)
        told[f"SDP_NIC_{index}_OUT_MBPS"] = format_millis(nic.bandwidth_out)
    return told


def waits(graph: PhysicalGraph, name: str) -> bool:
    """Whether a task depends on others, so that it must ask for its go-ahead."""
    return bool(graph.logical.targets(name, *WAITS_FOR))


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
) -> dict[str, Any]:
    """Return Mesos' ``TaskInfo``.

    Parameters
    ----------
    ledger
        What the agent offers; the task's resources are drawn from it.
    command, environment
        Already filled in.

    Raises
    ------
    QuantityError
        If the offers do not hold what the task was given.
    """
    task, template = bound.task, bound.task.template
    amount = bound.assignment.resources(template.request)
    labels = {LABEL_GRAPH: graph.graph_id, LABEL_TASK: task.name, LABEL_KIND: template.kind}
    info: dict[str, Any] = {
        "task_id": {"value": task.task_id},
        "agent_id": {"value": bound.assignment.agent_id},
        "name": task.name,
        "resources": ledger.draw(bound.agent.advertised(amount)),
        "command": {
            "shell": False,
            "value": command[0],
            "arguments": command,
            "environment": {
                "variables": [{"name": n, "value": v} for n, v in sorted(environment.items())]
            },
        },
        "kill_policy": {"grace_period": {"nanoseconds": int(template.kill_grace * 1e9)}},
        "labels": {"labels": [{"key": key, "value": value} for key, value in labels.items()]},
    }
    if template.image is not None:
        info["container"] = _container(template.image, bound)
    if ports := bound.ports():
        info["discovery"] = {
            "visibility": "CLUSTER",
            "name": task.name,
            "ports": {"ports": [{"number": n, "name": name} for name, n in ports.items()]},
        }
    return info


def _container(image: str, bound: Bound) -> dict[str, Any]:
    """Return Mesos' ``ContainerInfo``: Docker on the host's network, bound to cores and their memory."""
    assignment, topology = bound.assignment, bound.agent.topology
    parameters: list[dict[str, str]] = []
    if assignment.cores:
        parameters.append({"key": "cpuset-cpus", "value": ",".join(map(str, assignment.cores))})
    if assignment.numa is not None:
        parameters.append({"key": "cpuset-mems", "value": str(assignment.numa)})
    devices = [topology.gpus[number].device for number in assignment.gpus]
    for number in assignment.nics:
        devices += topology.nics[number].infiniband
    parameters += ({"key": "device", "value": device} for device in devices if device)
    paths = [topology.volumes[number].path for number in assignment.volumes]
    return {
        "type": "DOCKER",
        "docker": {"image": image, "network": "HOST", "parameters": parameters},
        "volumes": [{"host_path": p, "container_path": p, "mode": "RW"} for p in paths],
    }
