"""Requests laid out in arrays, as far as the agents do not matter.

Everything is read column by column: on large graphs, the calls for each task alone would take longer than the
search for places.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scheduler.packing.admission import Admission, GpuService, NicService
from scheduler.packing.arrays import MOST, Ints
from scheduler.packing.counting import runs, starts
from scheduler.packing.names import Names
from scheduler.packing.relations import Ties
from scheduler.packing.slots import bounded
from scheduler.requests import GpuRequest, NicRequest, TaskRequest

NODES, AGENTS, CACHES = range(3)
"""Where a task looks for its place."""

_TASK: Final = (
    *("cpus", "mem", "disk", "ports", "cores", "gpus", "nics", "volumes"),
    *("host", "subsystem", "constraints", "data", "whole_cores", "one_l3", "numa_share"),
)
_GPU: Final = ("compute", "mem", "affinity", "name", "min_capability", "exclusive")
_NIC: Final = (
    *("bandwidth_in", "bandwidth_out", "affinity", "network", "ibverbs", "sends", "receives"),
)


@dataclass(frozen=True, slots=True)
class Rows:
    """What tasks ask for; amounts are as in `Demand`."""

    own: Ints
    n_cores: Ints
    admission: Ints
    where: Ints
    """(tasks,) NODES, AGENTS or CACHES."""
    n_whole: Ints
    node_share: Ints
    first_want: Ints
    """(tasks + 1,) where the wants of each begin."""
    want: Ints
    """(wants, 4)"""
    asked: Sequence[GpuRequest | NicRequest]
    """By want."""
    on_nic: NDArray[np.bool_]
    """(wants,)"""
    volumes: Sequence[Sequence[tuple[int, int]]]
    """By task: number of the volume's name, amount."""


def rows_of(requests: Sequence[TaskRequest], names: Names, tied: Ties) -> Rows:
    """Lay requests out, and enter into `names` what they name."""
    columns = _columns(_TASK, requests)
    cpus, mem, disk, ports, cores, gpus, nics, volumes = columns[:8]
    whole_cores, one_l3, share = columns[12:]
    n_cores = _lengths(cores)
    names.whole_cores, names.one_l3 = any(whole_cores), any(one_l3)
    first_want, want, asked, on_nic = _wants(gpus, nics, names)
    near = np.diff(starts(want[:, 2])[first_want]) > 0
    node_share = np.array(share, np.int64)
    needs_node = (n_cores > 0) | (node_share > 0) | near
    own = bounded(cpus, MOST) + 1000 * n_cores, bounded(mem, MOST), bounded(disk, MOST)
    return Rows(
        own=np.minimum(np.column_stack((*own, _lengths(ports))), MOST),
        n_cores=n_cores,
        admission=_admissions(columns[8:12], names, tied),
        where=np.where(np.array(one_l3, np.bool_), CACHES, np.where(needs_node, NODES, AGENTS)),
        n_whole=np.where(np.array(whole_cores, np.bool_), n_cores, 0),
        node_share=node_share,
        first_want=first_want,
        want=want,
        asked=asked,
        on_nic=on_nic,
        volumes=[[(names.volume(v.name), min(v.disk, MOST)) for v in of] for of in volumes]
        if any(volumes)
        else [()] * len(requests),
    )


def _columns(fields: Sequence[str], requests: Sequence[object]) -> list[list[Any]]:
    """Return the values of each field, request by request.

    Read field by field: ten thousand rows would keep the garbage collector busy.
    """
    return [list(map(attrgetter(field), requests)) for field in fields]


def _lengths(column: Sequence[Sequence[object]]) -> Ints:
    return np.fromiter(map(len, column), np.int64, len(column))


def _numbered(*columns: Sequence[Hashable]) -> tuple[dict[Any, int], Ints]:
    """Number the rows of columns in the order of their first; return the numbers, and that of each."""
    numbers: dict[Any, int] = {}
    every = [numbers.setdefault(key, len(numbers)) for key in zip(*columns, strict=True)]
    return numbers, np.array(every, np.int64)


def _admissions(columns: Sequence[Sequence[Any]], names: Names, tied: Ties) -> Ints:
    """Return for each task which agents admit it, as a row of `Cluster.admits`."""
    keys = list(columns)
    if tied.of_task:
        keys.append([tuple(tied.of_task.get(n, ())) for n in range(len(columns[0]))])
    numbers, found = _numbered(*keys)
    for key in numbers:
        names.admission(Admission(*key[: len(columns)]))
    return found


def _wants(
    gpus: Sequence[Sequence[GpuRequest]], nics: Sequence[Sequence[NicRequest]], names: Names
) -> tuple[Ints, Ints, Sequence[GpuRequest | NicRequest], NDArray[np.bool_]]:
    """Return where the wants of each task begin, and all wants: those for GPUs come first."""
    n_gpus, n_nics = _lengths(gpus), _lengths(nics)
    first = starts(n_gpus + n_nics)
    of_gpus, of_nics = list(chain.from_iterable(gpus)), list(chain.from_iterable(nics))
    on_gpu, on_nic = runs(first[:-1], n_gpus), runs(first[:-1] + n_gpus, n_nics)
    asked: list[GpuRequest | NicRequest] = []
    for gpus_of_one, nics_of_one in zip(gpus, nics, strict=True):
        asked += gpus_of_one
        asked += nics_of_one
    want = np.empty((first[-1], 4), np.int64)
    want[on_gpu], want[on_nic] = _gpu_wants(of_gpus, names), _nic_wants(of_nics, names)
    for_nic = np.zeros(first[-1], np.bool_)
    for_nic[on_nic] = True
    return first, want, asked, for_nic


def _gpu_wants(requests: Sequence[GpuRequest], names: Names) -> Ints:
    """Return (wants, 4) what requests for GPUs ask for."""
    compute, mem, near, *keys = _columns(_GPU, requests)
    numbers, kind = _numbered(*keys)
    services = np.array([names.service(GpuService(*key)) for key in numbers], np.int64)
    amounts = bounded(compute, MOST), bounded(mem, MOST)
    return np.column_stack((*amounts, np.array(near, np.int64), services[kind]))


def _nic_wants(requests: Sequence[NicRequest], names: Names) -> Ints:
    """Return (wants, 4) what requests for interfaces ask for."""
    inwards, outwards, near, *keys = _columns(_NIC, requests)
    numbers, kind = _numbered(*keys)
    alike = dict(zip(kind.tolist(), requests, strict=True))
    found = (NicService.of(alike[number], names.traffic.all) for number in numbers.values())
    services = np.array([names.service(service) for service in found], np.int64)
    amounts = bounded(inwards, MOST), bounded(outwards, MOST)
    return np.column_stack((*amounts, np.array(near, np.int64), services[kind]))
