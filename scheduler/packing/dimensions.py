"""What a request asks for, dimension by dimension: reading it, and asking for less of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from scheduler.quantities import Millis
from scheduler.requests import GpuRequest, NicRequest, TaskRequest

MIB, MBITS = "MiB", "Mbit/s"


def amounts(request: TaskRequest, resource: str) -> list[Millis]:
    """Return the amounts of one resource that a task asks for, each from one slot.

    The names are those of pools: ``cores``, ``gpu.mem``, ``bandwidth in of cbf`` (of ``cam/cbf``: either).
    """
    if resource == "cpus":
        return [request.cpus + 1000 * len(request.cores)]
    if resource in ("mem", "disk"):
        return [getattr(request, resource)]
    if resource in ("cores", "ports"):
        return [1000 * len(getattr(request, resource))]
    if resource == "mem on one NUMA node":
        return [request.mem] if request.cores else []
    if resource.startswith("gpu."):
        return [getattr(gpu, resource.removeprefix("gpu.")) for gpu in request.gpus]
    if resource.startswith("bandwidth "):
        _, way, _, networks = resource.split(" ", 3)
        served = networks.split("/")
        return [getattr(nic, f"bandwidth_{way}") for nic in request.nics if nic.network in served]
    name = resource.removeprefix("volume ")
    return [volume.disk for volume in request.volumes if volume.name == name]


def plain(resource: str) -> str:
    """Name the resource of a :class:`~scheduler.packing.Lack` as :func:`amounts` does."""
    name, on, where = resource.partition(" on ")
    if name.startswith("bandwidth "):
        return f"{name} of {where.rpartition(' of ')[2]}"
    if name == "space":
        return where
    if name.startswith(("cpus with ", "cores with ")):
        return name.partition(" with ")[0]
    return "cores" if on and name == "whole cores" else name


def unit_of(resource: str) -> str:
    """Return the unit in which people count a resource."""
    if resource.startswith("bandwidth "):
        return MBITS
    memory = resource.startswith(("mem", "disk", "volume ")) or resource == "gpu.mem"
    return MIB if memory else ""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One amount of a request that could be smaller."""

    resource: str
    asked: Millis
    step: Millis
    """Amounts between are of no use: one core, one MiB."""
    ask: Callable[[Millis], TaskRequest]
    """Returns the request with at most so much."""


def dimensions(request: TaskRequest) -> Iterator[Dimension]:
    """Yield all that is asked for and could be less."""
    yield Dimension("cpus", request.cpus, 100, lambda most: replace(request, cpus=most))
    yield Dimension("mem", request.mem, 1000, lambda most: replace(request, mem=most))
    yield Dimension("disk", request.disk, 1000, lambda most: replace(request, disk=most))
    yield Dimension("cores", 1000 * len(request.cores), 1000, partial(_cores, request))
    for field, step in (("compute", 10), ("mem", 1000)):
        asked = max(amounts(request, f"gpu.{field}"), default=0)
        yield Dimension(f"gpu.{field}", asked, step, partial(_gpus, request, field))
    for network in dict.fromkeys(nic.network for nic in request.nics):
        for way in ("in", "out"):
            resource = f"bandwidth {way} of {network}"
            less = partial(_nics, request, network, way)
            yield Dimension(resource, max(amounts(request, resource)), 1000, less)
    for volume in request.volumes:
        less = partial(_volume, request, volume.name)
        yield Dimension(f"volume {volume.name}", volume.disk, 1000, less)


def _cores(request: TaskRequest, most: Millis) -> TaskRequest:
    cores = request.cores[: most // 1000]
    if cores:
        return replace(request, cores=cores)
    return replace(request, cores=(), whole_cores=False, one_l3=False)


def _gpus(request: TaskRequest, field: str, most: Millis) -> TaskRequest:
    def less(gpu: GpuRequest) -> GpuRequest:
        exclusive = gpu.exclusive and field != "compute"
        return replace(gpu, exclusive=exclusive, **{field: min(getattr(gpu, field), most)})

    return replace(request, gpus=tuple(map(less, request.gpus)))


def _nics(request: TaskRequest, network: str, way: str, most: Millis) -> TaskRequest:
    field = f"bandwidth_{way}"

    def less(nic: NicRequest) -> NicRequest:
        if nic.network != network:
            return nic
        return replace(nic, **{field: min(getattr(nic, field), most)})

    return replace(request, nics=tuple(map(less, request.nics)))


def _volume(request: TaskRequest, name: str, most: Millis) -> TaskRequest:
    volumes = (replace(v, disk=min(v.disk, most)) if v.name == name else v for v in request.volumes)
    return replace(request, volumes=tuple(volumes))


def without(request: TaskRequest) -> Iterator[tuple[str, TaskRequest]]:
    """Yield what is not a matter of amounts and could be left out, in words, and the request without it."""
    if any(gpu.affinity for gpu in request.gpus):
        yield "affinity of its GPUs", _with_gpus(request, affinity=False)
    if any(nic.affinity for nic in request.nics):
        nics = tuple(replace(nic, affinity=False) for nic in request.nics)
        yield "affinity of its interfaces", replace(request, nics=nics)
    for gpu in dict.fromkeys(request.gpus):
        if gpu.name is not None:
            yield f"the name of its GPU ({gpu.name})", _with_gpus(request, name=None)
        if gpu.min_capability is not None:
            capability = ".".join(map(str, gpu.min_capability))
            yield f"compute capability {capability}", _with_gpus(request, min_capability=None)
        if gpu.exclusive:
            yield "a GPU for itself", _with_gpus(request, exclusive=False)
    if request.whole_cores:
        yield "whole physical cores", replace(request, whole_cores=False)
    if request.one_l3:
        yield "one L3 cache for its cores", replace(request, one_l3=False)
    if request.numa_share:
        yield "its share of a NUMA node", replace(request, numa_share=0)
    yield from _anywhere(request)


def _anywhere(request: TaskRequest) -> Iterator[tuple[str, TaskRequest]]:
    """Yield what says where the task may be."""
    if request.host is not None:
        yield f"host {request.host}", replace(request, host=None)
    for constraint in request.constraints:
        rest = tuple(other for other in request.constraints if other != constraint)
        yield f"'{constraint}'", replace(request, constraints=rest)
    for data in request.data:
        if data.required:
            rest_of_data = tuple(other for other in request.data if other != data)
            yield str(data), replace(request, data=rest_of_data)
    for field in ("together", "apart", "at_most"):
        for relation in getattr(request, field):
            others: Any = tuple(other for other in getattr(request, field) if other != relation)
            yield f"'{relation}'", replace(request, **{field: others})


def _with_gpus(request: TaskRequest, **facts: Any) -> TaskRequest:
    return replace(request, gpus=tuple(replace(gpu, **facts) for gpu in request.gpus))
