"""Requests laid out in arrays, as far as the agents do not matter.

What each says was written down when it was made (`scheduler.request_rows`); here it is put together, and what
requests name is numbered.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scheduler.packing.admission import Admission, GpuService, NicService
from scheduler.packing.arrays import MOST, OWN_SLOTS, SERVICE, Ints
from scheduler.packing.counting import starts
from scheduler.packing.names import Names
from scheduler.packing.relations import Ties
from scheduler.request_rows import WANT_NUMBERS, Number
from scheduler.requests import GpuRequest, NicRequest, TaskRequest

NODES, AGENTS, CACHES = range(3)
"""Where a task looks for its place."""

_EMPTY: Final[tuple[tuple[Any, ...], ...]] = ((), (), ())
"""The columns of no rows."""


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
    requests: Sequence[TaskRequest]

    def asked(self) -> list[GpuRequest | NicRequest]:
        """Return what is asked for, by want."""
        found: list[GpuRequest | NicRequest] = []
        for request in self.requests:
            found += request.gpus
            found += request.nics
        return found


def rows_of(requests: Sequence[TaskRequest], names: Names, tied: Ties) -> Rows:
    """Lay requests out, and enter into `names` what they name."""
    numbers, wants, services = tuple(zip(*[r.row for r in requests], strict=True)) or _EMPTY
    task = np.frombuffer(b"".join(numbers), np.int64).reshape(-1, len(Number))
    one_l3, choosy = task[:, Number.ONE_L3] > 0, task[:, Number.CHOOSY] > 0
    names.whole_cores = bool(task[:, Number.WHOLE_CORES].any())
    names.one_l3 = bool(one_l3.any())
    first_want = starts(task[:, Number.WANTS])
    want, on_nic = _wants(requests, first_want, b"".join(wants), services, names)
    return Rows(
        own=np.minimum(task[:, :OWN_SLOTS], MOST),
        n_cores=task[:, Number.CORES],
        admission=_admissions(requests, choosy, names, tied),
        where=np.where(one_l3, CACHES, np.where(task[:, Number.NEEDS_NODE] > 0, NODES, AGENTS)),
        n_whole=task[:, Number.WHOLE_CORES],
        node_share=task[:, Number.NODE_SHARE],
        first_want=first_want,
        want=want,
        on_nic=on_nic,
        n_gpus=task[:, Number.GPUS],
        volumes=[_volumes(request, names) for request in requests]
        if task[:, Number.VOLUMES].any()
        else [()] * len(requests),
        requests=requests,
    )


def _volumes(request: TaskRequest, names: Names) -> list[tuple[int, int]]:
    return [(names.volume(v.name), min(v.disk, MOST)) for v in request.volumes]


def _numbered(keys: Sequence[Hashable]) -> tuple[Ints, Ints]:
    """Number keys in the order in which they first occur; return where each does, and the number of each."""
    numbers: defaultdict[Any, int] = defaultdict(itertools.count().__next__)
    every = np.fromiter(map(numbers.__getitem__, keys), np.int64, len(keys))
    first = np.zeros(len(numbers), np.int64)
    first[every[::-1]] = np.arange(len(keys))[::-1]  # of several, the last that is written stays
    return first, every


def _admissions(
    requests: Sequence[TaskRequest], choosy: NDArray[np.bool_], names: Names, tied: Ties
) -> Ints:
    """Return for each task which agents admit it, as a row of `Cluster.admits`."""
    if not choosy.any() and not tied.of_task:
        names.admission(Admission())
        return np.zeros(len(requests), np.int64)
    keys = [(Admission.of(r), *tied.of_task.get(n, ())) for n, r in enumerate(requests)]
    first, found = _numbered(keys)
    for number in first.tolist():
        names.admission(keys[number][0])
    return found


def _wants(
    requests: Sequence[TaskRequest],
    first_want: Ints,
    numbers: bytes,
    services: Sequence[Sequence[Hashable]],
    names: Names,
) -> tuple[Ints, NDArray[np.bool_]]:
    """Return (wants, 4) what is asked of devices, and (wants,) whether these are interfaces."""
    first, kind = _numbered([*chain.from_iterable(services)])
    task = np.searchsorted(first_want, first, "right") - 1
    kinds = [
        (*(request := requests[t]).gpus, *request.nics)[n]
        for t, n in zip(task.tolist(), (first - first_want[task]).tolist(), strict=True)
    ]
    want = np.empty((len(kind), WANT_NUMBERS + 1), np.int64)
    want[:, :WANT_NUMBERS] = np.frombuffer(numbers, np.int64).reshape(-1, WANT_NUMBERS)
    np.minimum(want[:, :WANT_NUMBERS], MOST, out=want[:, :WANT_NUMBERS])
    want[:, SERVICE] = np.array([_service(asked, names) for asked in kinds], np.int64)[kind]
    return want, np.array([isinstance(asked, NicRequest) for asked in kinds], np.bool_)[kind]


def _service(asked: GpuRequest | NicRequest, names: Names) -> int:
    """Number what a device must be to serve a request."""
    if isinstance(asked, NicRequest):
        names.multicast = names.multicast or bool(asked.sends or asked.receives)
        return names.service(NicService.of(asked, names.traffic.all))
    names.exclusive = names.exclusive or asked.exclusive
    return names.service(GpuService.of(asked))
