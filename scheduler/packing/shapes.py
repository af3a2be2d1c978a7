"""What of an agent's layout follows from its topology alone, made once.

An agent advertises the same with every offer, so what was made of a topology is kept and found again; machines
of one kind share it. Numbers of nodes, slots and devices count from the agent's first.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np

from scheduler.packing.arrays import (
    MEM,
    NODE_SLOTS,
    NOWHERE,
    OWN_SLOTS,
    PLACE_COLUMNS,
    PLENTY,
    WHOLE,
    Ints,
    Kind,
)
from scheduler.packing.counting import Sets, packed
from scheduler.quantities import Millis
from scheduler.topology import Gpu, Nic, Topology

MOST_KNOWN: Final = 20_000
"""Topologies that are kept; when there are more, all are made anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """How machines of one kind are laid out."""

    kinds: Ints
    """(slots,) :class:`~scheduler.packing.arrays.Kind`."""
    blank: Ints
    """(slots,) what is free before anything is read: 0, and PLENTY of what is not counted, which are whole
    cores, unless somebody asks, and memory of nodes where the agent does not count it."""
    names: tuple[str, ...]
    """The scalar resources that are counted."""
    named: Ints
    """(names,) their slots."""
    nodes: Ints
    """(nodes, 9) rows of `Cluster.places`, but for the number of logical CPUs."""
    agent: Ints
    """(1, 9) row of `Cluster.places`."""
    device: Ints
    """(devices, 2) rows of `Cluster.device`."""
    parts: tuple[Gpu | Nic, ...]
    """(devices,) such as these, except for names and addresses."""
    whole_mem: Ints
    """(devices,) memory of a GPU of which nothing is taken; 0 for interfaces, and where it is not told."""
    silent: bool
    """Whether an interface has no multicast loopback."""


class Frame(NamedTuple):
    """All that is used of a topology in every layout."""

    shape: Shape
    cores: Sets
    """A set for each node: its logical CPUs."""
    priority: Millis
    for_all: bool
    """Whether the agent serves tasks of no subsystem."""


_frames: Final[dict[int, tuple[Topology, Frame]]] = {}
"""By id; the topology is kept beside it, so that no other one gets the id."""
_shapes: Final[dict[Hashable, Shape]] = {}


def frame_of(topology: Topology) -> Frame:
    """Return what follows from a topology."""
    if (found := _frames.get(id(topology))) is not None and found[0] is topology:
        return found[1]
    return _frame(topology)


def _frame(topology: Topology) -> Frame:
    """Return what follows from a topology that is not known yet."""
    if len(_frames) >= MOST_KNOWN:
        _frames.clear()
        _shapes.clear()
    key = (
        tuple([node.mem_mib is None for node in topology.numa]),
        tuple(map(_of_gpu, topology.gpus)),
        tuple(map(_of_nic, topology.nics)),
        tuple([bool(nic.infiniband) for nic in topology.nics]),
    )
    if (shape := _shapes.get(key)) is None:
        shape = _shapes[key] = _shape(topology)
    cores = packed(*[node.cores.intervals for node in topology.numa])
    frame = Frame(shape, cores, topology.effective_priority, not topology.subsystems)
    _frames[id(topology)] = topology, frame
    return frame


_of_gpu: Final = attrgetter("name", "compute_capability", "mem_mib", "numa")
_of_nic: Final = attrgetter("networks", "multicast_loopback", "numa")
"""What of a device makes the shape."""


def _shape(topology: Topology) -> Shape:
    parts: tuple[Gpu | Nic, ...] = (*topology.gpus, *topology.nics)
    names, kinds = _slots(topology)
    first_node = OWN_SLOTS + 2 * len(parts)
    slots = first_node + NODE_SLOTS * np.arange(len(topology.numa))
    blank = np.zeros(len(names), np.int64)
    blank[slots + WHOLE] = PLENTY
    blank[slots + MEM] = [PLENTY if node.mem_mib is None else 0 for node in topology.numa]
    named = [n for n, name in enumerate(names) if name and not blank[n]]
    nodes = [(0, n, 0, slot, 0, len(parts), NOWHERE, 1, 0) for n, slot in enumerate(slots.tolist())]
    agent = (0, NOWHERE, 0, NOWHERE, 0, len(parts), NOWHERE, 1, 0)
    device = [
        (OWN_SLOTS + 2 * d, NOWHERE if part.numa is None else part.numa)
        for d, part in enumerate(parts)
    ]
    whole_mem = [1000 * (p.mem_mib or 0) if isinstance(p, Gpu) else 0 for p in parts]
    return Shape(
        kinds=np.array(kinds, np.int64),
        blank=blank,
        names=tuple([names[n] for n in named]),
        named=np.array(named, np.int64),
        nodes=np.array(nodes, np.int64).reshape(-1, PLACE_COLUMNS),
        agent=np.array([agent], np.int64),
        device=np.array(device, np.int64).reshape(-1, 2),
        parts=parts,
        whole_mem=np.array(whole_mem, np.int64),
        silent=not all(nic.multicast_loopback for nic in topology.nics),
    )


def _slots(topology: Topology) -> tuple[list[str], list[int]]:
    """Return of each slot the scalar resource behind it, if any, and the kind."""
    names = ["cpus", "mem", "disk", ""]
    kinds = [Kind.CPUS, Kind.MEM, Kind.DISK, Kind.PORTS]
    for n in range(len(topology.gpus)):
        names += (f"gpu.{n}.compute", f"gpu.{n}.mem")
        kinds += (Kind.GPU_COMPUTE, Kind.GPU_MEM)
    for n in range(len(topology.nics)):
        names += (f"nic.{n}.in", f"nic.{n}.out")
        kinds += (Kind.NIC_IN, Kind.NIC_OUT)
    for n in range(len(topology.numa)):
        names += ("", f"numa.{n}.mem", "")
        kinds += (Kind.CORES, Kind.NODE_MEM, Kind.WHOLE_CORES)
    return names, [int(kind) for kind in kinds]


NOTHING: Final = _shape(Topology())
"""The shape of machines of which nothing is told."""
