"""Requests laid out in arrays, as far as the agents do not matter.

Everything is read column by column: on large graphs, the calls for each task alone would take longer than the
search for places.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scheduler.packing.admission import Admission, GpuService, NicService
from scheduler.packing.arrays import MOST, SERVICE, Ints
from scheduler.packing.counting import interleave, starts
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
_AMOUNTS: Final = {
    GpuRequest: attrgetter("compute", "mem", "affinity"),
    NicRequest: attrgetter("bandwidth_in", "bandwidth_out", "affinity"),
}
_SERVICE: Final = {
    GpuRequest: attrgetter("name", "min_capability", "exclusive"),
    NicRequest: attrgetter("network", "ibverbs", "sends", "receives"),
}


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
    on_nic: NDArray[np.bool_]
    """(wants,)"""
    n_gpus: Ints
    """(tasks,)"""
    volumes: Sequence[Sequence[tuple[int, int]]]
    """By task: number of the volume's name, amount."""
    devices: tuple[Sequence[Sequence[GpuRequest]], Sequence[Sequence[NicRequest]]]
    """By task: its GPUs, its interfaces."""

    def asked(self) -> list[GpuRequest | NicRequest]:
        """Return what is asked for, by want."""
        found: list[GpuRequest | NicRequest] = []
        for gpus, nics in zip(*self.devices, strict=True):
            found += gpus
            found += nics
        return found


def rows_of(requests: Sequence[TaskRequest], names: Names, tied: Ties) -> Rows:
    """Lay requests out, and enter into `names` what they name."""
    columns = _columns(_TASK, requests)
    cpus, mem, disk, ports, cores, gpus, nics, volumes = columns[:8]
    whole_cores, one_l3, share = columns[12:]
    n_cores, n_gpus = _lengths(cores), _lengths(gpus)
    names.whole_cores, names.one_l3 = any(whole_cores), any(one_l3)
    wants = _gpu_wants(list(chain.from_iterable(gpus)), names)
    more_wants = _nic_wants(list(chain.from_iterable(nics)), names)
    first_want, want, on_nic = interleave(wants, n_gpus, more_wants, _lengths(nics))
    near = np.diff(starts(want[:, 2])[first_want]) > 0
    node_share = _bounded(share)
    needs_node = (n_cores > 0) | (node_share > 0) | near
    own = _bounded(cpus) + 1000 * n_cores, _bounded(mem), _bounded(disk), _lengths(ports)
    return Rows(
        own=np.minimum(np.column_stack(own), MOST),
        n_cores=n_cores,
        admission=_admissions(columns[8:12], names, tied),
        where=np.where(np.array(one_l3, np.bool_), CACHES, np.where(needs_node, NODES, AGENTS)),
        n_whole=np.where(np.array(whole_cores, np.bool_), n_cores, 0),
        node_share=node_share,
        first_want=first_want,
        want=want,
        on_nic=on_nic,
        n_gpus=n_gpus,
        volumes=[[(names.volume(v.name), min(v.disk, MOST)) for v in of] for of in volumes]
        if any(volumes)
        else [()] * len(requests),
        devices=(gpus, nics),
    )


def _columns(fields: Sequence[str], requests: Sequence[object]) -> list[list[Any]]:
    """Return the values of each field, request by request.

    Read field by field: ten thousand rows would keep the garbage collector busy.
    """
    return [list(map(attrgetter(field), requests)) for field in fields]


def _lengths(column: Sequence[Sequence[object]]) -> Ints:
    if not any(column):
        return np.zeros(len(column), np.int64)
    return np.fromiter(map(len, column), np.int64, len(column))


def _bounded(column: Sequence[int]) -> Ints:
    """Return amounts, none larger than MOST; there is no need to read them where there are none."""
    return bounded(column, MOST) if any(column) else np.zeros(len(column), np.int64)


def _numbered(keys: Iterable[Hashable], count: int) -> tuple[list[Any], Ints]:
    """Number keys in the order in which they first occur; return them, and the number of each."""
    numbers: defaultdict[Any, int] = defaultdict(itertools.count().__next__)
    every = np.fromiter(map(numbers.__getitem__, keys), np.int64, count)
    return [*numbers], every


def _admissions(columns: Sequence[Sequence[Any]], names: Names, tied: Ties) -> Ints:
    """Return for each task which agents admit it, as a row of `Cluster.admits`."""
    keys, n_tasks = list(columns), len(columns[0])
    if tied.of_task:
        keys.append([tuple(tied.of_task.get(n, ())) for n in range(n_tasks)])
    kinds, found = _numbered(zip(*keys, strict=True), n_tasks)
    for key in kinds:
        names.admission(Admission(*key[: len(columns)]))
    return found


def _gpu_wants(requests: Sequence[GpuRequest], names: Names) -> Ints:
    """Return (wants, 4) what requests for GPUs ask for."""
    keys, kind = _numbered(map(_SERVICE[GpuRequest], requests), len(requests))
    names.exclusive = any(exclusive for _, _, exclusive in keys)
    services = [names.service(GpuService(*key)) for key in keys]
    return _want_rows(map(_AMOUNTS[GpuRequest], requests), services, kind)


def _nic_wants(requests: Sequence[NicRequest], names: Names) -> Ints:
    """Return (wants, 4) what requests for interfaces ask for."""
    keys, kind = _numbered(map(_SERVICE[NicRequest], requests), len(requests))
    names.multicast = any(sends or receives for _, _, sends, receives in keys)
    alike = dict(zip(kind.tolist(), requests, strict=True))
    found = (NicService.of(alike[number], names.traffic.all) for number in range(len(keys)))
    services = [names.service(service) for service in found]
    return _want_rows(map(_AMOUNTS[NicRequest], requests), services, kind)


def _want_rows(amounts: Iterable[Sequence[int]], services: Sequence[int], kind: Ints) -> Ints:
    """Return (wants, 4) of amounts and affinity want by want, and of the services of each kind."""
    want = np.empty((len(kind), 4), np.int64)
    flat = [*chain.from_iterable(amounts)]
    want[:, :3] = bounded(flat, MOST).reshape(-1, 3)
    want[:, SERVICE] = np.array(services, np.int64)[kind]
    return want
