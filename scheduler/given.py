"""What a placed task was given, as it is told to it: template values, environment, options of its container."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from scheduler.constraints import named
from scheduler.placement import Assignment
from scheduler.quantities import Millis, format_millis
from scheduler.requests import GpuRequest, TaskRequest
from scheduler.templates import GPU_FACTS, INTERFACE_FACTS
from scheduler.topology import Gpu, Nic, Topology


def fields(request: TaskRequest, assignment: Assignment, topology: Topology) -> dict[str, str]:
    """Return the template values that come from the assignment; :mod:`scheduler.templates` lists them."""
    values = {
        "cores": _listed(assignment.cores),
        "cpuset": _listed(assignment.cpuset),
        "numa": "" if assignment.numa is None else str(assignment.numa),
    }
    for core, number in zip(request.cores, assignment.cores, strict=True):
        values[f"core[{core}]"] = str(number)
    visible = _visible(assignment)
    for index, number in enumerate(assignment.gpus):
        facts = _gpu_facts(topology.gpus[number], number, visible.index(number))
        values.update(zip(_names(f"gpu[{index}]", GPU_FACTS), facts, strict=True))
    networks: set[str] = set()
    for index, (nic, number) in enumerate(zip(request.nics, assignment.nics, strict=True)):
        facts = _nic_facts(topology.nics[number], number)
        values.update(zip(_names(f"nic[{index}]", INTERFACE_FACTS), facts, strict=True))
        if nic.network not in networks:
            networks.add(nic.network)
            named_so = _names(f"interface[{nic.network}]", INTERFACE_FACTS)
            values.update(zip(named_so, facts, strict=True))
    for volume, number in zip(request.volumes, assignment.volumes, strict=True):
        values[f"volume[{volume.name}].path"] = topology.volumes[number].path
    return values


@functools.lru_cache(maxsize=10_000)
def _listed(numbers: Sequence[int]) -> str:
    """Write numbers with commas between; those of a task's cores are asked for several times."""
    return ",".join(map(str, numbers))


@functools.lru_cache(maxsize=10_000)
def _names(device: str, facts: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the facts of a device."""
    return tuple([f"{device}.{fact}" for fact in facts])


def _gpu_facts(gpu: Gpu, number: int, ordinal: int) -> tuple[str, ...]:
    """Return the values of :data:`scheduler.templates.GPU_FACTS`."""
    capability = gpu.compute_capability
    return (
        gpu.uuid or "",
        gpu.device or "",
        str(number),
        str(ordinal),
        gpu.name,
        "" if capability is None else "{}.{}".format(*capability),
    )


def _nic_facts(nic: Nic, number: int) -> tuple[str, ...]:
    """Return the values of :data:`scheduler.templates.INTERFACE_FACTS`."""
    return nic.address, nic.name, str(number), ",".join(nic.infiniband)


def _visible(assignment: Assignment) -> list[int]:
    """Return the GPUs that the task sees, each once, in the order in which it asks for them."""
    return list(dict.fromkeys(assignment.gpus))


def environment(request: TaskRequest, assignment: Assignment, topology: Topology) -> dict[str, str]:
    """Return the variables that tell a task its shares, where no kernel enforces them."""
    cpuset = assignment.cpuset
    told = {
        "SDP_CPUS": format_millis(request.cpus + 1000 * len(cpuset)),
        "SDP_MEM_MIB": format_millis(request.mem),
    }
    if assignment.numa is not None:
        told["SDP_CORES"] = _listed(assignment.cores)
        told["SDP_CPUSET"] = _listed(cpuset)
        told["SDP_NUMA"] = str(assignment.numa)
    for index, (gpu, number) in enumerate(zip(request.gpus, assignment.gpus, strict=True)):
        told[f"SDP_GPU_{index}_NUMBER"] = str(number)
        told[f"SDP_GPU_{index}_COMPUTE"] = format_millis(gpu.compute)
        told[f"SDP_GPU_{index}_MEM_MIB"] = format_millis(_gpu_mem(gpu, assignment, index))
    for index, nic in enumerate(request.nics):
        told[f"SDP_NIC_{index}_IN_MBPS"] = format_millis(nic.bandwidth_in)
        told[f"SDP_NIC_{index}_OUT_MBPS"] = format_millis(nic.bandwidth_out)
    return told | (_cuda(request, assignment, topology) if assignment.gpus else {})


def _gpu_mem(gpu: GpuRequest, assignment: Assignment, index: int) -> Millis:
    whole = assignment.whole_gpu_mem[index] if assignment.whole_gpu_mem else 0
    return max(gpu.mem, whole)


def _cuda(request: TaskRequest, assignment: Assignment, topology: Topology) -> dict[str, str]:
    """Return which GPUs a CUDA program sees, and what of them.

    The variables are NVIDIA's own, of CUDA, of its *Multi-Process Service* and of its container runtime. A GPU
    is named once, however many requests it serves, and their shares are added up. The limit of memory names
    GPUs by their order among the visible ones; the share of the multiprocessors is one for all of them.
    """
    visible = _visible(assignment)
    compute, mem = dict.fromkeys(visible, 0), dict.fromkeys(visible, 0)
    for index, (gpu, number) in enumerate(zip(request.gpus, assignment.gpus, strict=True)):
        compute[number] += gpu.compute
        mem[number] += _gpu_mem(gpu, assignment, index)
    percentage = max(1, min(100, max(compute.values()) // 10))
    limits = (f"{i}={max(1, mem[number] // 1000)}M" for i, number in enumerate(visible))
    names = ",".join(topology.gpus[n].uuid or str(n) for n in visible)
    return {
        "NVIDIA_VISIBLE_DEVICES": names,
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "CUDA_VISIBLE_DEVICES": names,
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(percentage),
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": ",".join(limits),
    }


def image(
    plain: str | None, by_gpu: Mapping[str, str], assignment: Assignment, topology: Topology
) -> str | None:
    """Return the image of the first pattern that the name of the task's first GPU is like, or the plain one."""
    if assignment.gpus:
        name = topology.gpus[assignment.gpus[0]].name
        for pattern, for_gpu in by_gpu.items():
            if named(pattern, name):
                return for_gpu
    return plain


def docker_parameters(
    request: TaskRequest, assignment: Assignment, topology: Topology
) -> list[dict[str, str]]:
    """Return options of ``docker run``: bound to cores and their memory, with the devices of the task.

    A task that goes past the kernel (ibverbs) sends and takes raw packets and locks their memory.
    """
    options: list[tuple[str, str]] = []
    if cpuset := assignment.cpuset:
        options.append(("cpuset-cpus", _listed(cpuset)))
    if assignment.numa is not None:
        options.append(("cpuset-mems", str(assignment.numa)))
    gpus = (topology.gpus[number].device for number in _visible(assignment))
    devices = [device for device in gpus if device]
    for nic, number in zip(request.nics, assignment.nics, strict=True):
        if nic.ibverbs:
            devices += topology.nics[number].infiniband
    options += (("device", device) for device in dict.fromkeys(devices))
    if assignment.gpus:  # brings the driver's libraries into the container
        options.append(("runtime", "nvidia"))
    if any(nic.ibverbs for nic in request.nics):
        options += (("cap-add", "NET_RAW"), ("ulimit", "memlock=-1"))
    return [{"key": key, "value": value} for key, value in options]
