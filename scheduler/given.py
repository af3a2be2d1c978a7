"""What a placed task was given, as it is told to it: template values, environment, options of its container."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.constraints import named
from scheduler.placement import Assignment
from scheduler.quantities import Millis, format_millis
from scheduler.requests import GpuRequest, TaskRequest
from scheduler.topology import Gpu, Nic, Topology


def fields(request: TaskRequest, assignment: Assignment, topology: Topology) -> dict[str, str]:
    """Return the template values that come from the assignment; :mod:`scheduler.templates` lists them."""
    values = {
        "cores": ",".join(map(str, assignment.cores)),
        "cpuset": ",".join(map(str, assignment.cpuset)),
        "numa": "" if assignment.numa is None else str(assignment.numa),
    }
    for core, number in zip(request.cores, assignment.cores, strict=True):
        values[f"core[{core}]"] = str(number)
    visible = _visible(assignment)
    for index, number in enumerate(assignment.gpus):
        facts = _gpu_facts(topology.gpus[number], number, visible.index(number))
        values |= {f"gpu[{index}].{fact}": value for fact, value in facts.items()}
    for index, (nic, number) in enumerate(zip(request.nics, assignment.nics, strict=True)):
        for fact, value in _nic_facts(topology.nics[number], number).items():
            values[f"nic[{index}].{fact}"] = value
            values.setdefault(f"interface[{nic.network}].{fact}", value)
    for volume, number in zip(request.volumes, assignment.volumes, strict=True):
        values[f"volume[{volume.name}].path"] = topology.volumes[number].path
    return values


def _gpu_facts(gpu: Gpu, number: int, ordinal: int) -> dict[str, str]:
    capability = gpu.compute_capability
    return {
        "uuid": gpu.uuid or "",
        "device": gpu.device or "",
        "number": str(number),
        "ordinal": str(ordinal),
        "name": gpu.name,
        "compute_capability": "" if capability is None else "{}.{}".format(*capability),
    }


def _nic_facts(nic: Nic, number: int) -> dict[str, str]:
    return {
        "address": nic.address,
        "name": nic.name,
        "number": str(number),
        "infiniband": ",".join(nic.infiniband),
    }


def _visible(assignment: Assignment) -> list[int]:
    """Return the GPUs that the task sees, each once, in the order in which it asks for them."""
    return list(dict.fromkeys(assignment.gpus))


def environment(request: TaskRequest, assignment: Assignment, topology: Topology) -> dict[str, str]:
    """Return the variables that tell a task its shares, where no kernel enforces them."""
    told = {
        "SDP_CPUS": format_millis(request.cpus + 1000 * len(assignment.cpuset)),
        "SDP_MEM_MIB": format_millis(request.mem),
    }
    if assignment.numa is not None:
        told["SDP_CORES"] = ",".join(map(str, assignment.cores))
        told["SDP_CPUSET"] = ",".join(map(str, assignment.cpuset))
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
    if assignment.cpuset:
        options.append(("cpuset-cpus", ",".join(map(str, assignment.cpuset))))
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
