"""Agents laid out in arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.packing.admission import Admission, GpuService, Multicast, NicService
from scheduler.packing.arrays import DEVICE, NO, YES, Bytes, Cluster, Floats, Ints, Kind
from scheduler.packing.counting import Pools
from scheduler.packing.names import Names
from scheduler.packing.readings import Reading
from scheduler.packing.relations import Tickets
from scheduler.packing.shapes import Shape
from scheduler.packing.sizes import weigh
from scheduler.packing.slots import (
    Agents,
    Fleet,
    MainSlots,
    MoreSlots,
    count_whole_cores,
    joined,
    main_slots,
    zones,
)
from scheduler.requests import MAX_SHARE
from scheduler.topology import Gpu, Nic


def lay_out(
    agents: Agents,
    readings: Sequence[Reading],
    names: Names,
    tickets: tuple[Tickets, Tickets],
    tie_facts: Sequence[str],
) -> tuple[Cluster, Ints, Floats, Pools]:
    """Lay agents out.

    Parameters
    ----------
    readings
        What is known of each agent.
    tickets
        Those of zones and those of devices.
    tie_facts
        By tie: what makes its zones.

    Returns
    -------
    Cluster
    free
        (slots,) what is free.
    by_kind
        (kinds,) `Cluster.weight` of the counted slots of each :class:`Kind`.
    cores
        Of each node those of its logical CPUs that are free.
    """
    by_zone, by_device = tickets
    fleet = Fleet(readings)
    main = main_slots(readings, fleet)
    if names.whole_cores:
        count_whole_cores(agents, main)
    more = MoreSlots(len(main.free))
    caches = more.caches(agents, main.nodes) if names.one_l3 else main.nodes[:0]
    volumes = more.volumes(agents, names.volumes)
    volume_slot = np.hstack((volumes, more.zone_tickets(agents, by_zone)))
    device_ticket = more.device_tickets(agents, by_device, len(main.device))
    free = np.append(main.free, more.amounts).astype(np.int64)
    kinds = np.append(main.kinds, more.kinds).astype(np.int64)
    by_kind, weight = weigh(free, kinds, len(Kind))
    cluster = Cluster(
        places=np.concatenate((main.nodes, main.agents, caches)),
        device=main.device,
        serves=_services(agents, fleet, main, names),
        device_ticket=device_ticket,
        volume_slot=volume_slot,
        admits=_admissions(agents, readings, names),
        zone=np.array([zones(agents, fact) for fact in tie_facts], np.int64).reshape(
            len(tie_facts), len(agents)
        ),
        rank=np.array([reading.frame.priority for reading in readings], np.int64),
        weight=weight,
    )
    return cluster, free, by_kind, main.cores


def _admissions(agents: Agents, readings: Sequence[Reading], names: Names) -> Bytes:
    """Return `Cluster.admits`."""
    rows = np.empty((len(names.admissions), len(agents)), np.uint8)
    anywhere = np.array([YES if reading.frame.for_all else NO for reading in readings], np.uint8)
    for row, key in zip(rows, names.admissions, strict=True):
        row[:] = anywhere if key == Admission() else [key.grade(agent) for agent in agents]
    return rows


def _services(agents: Agents, fleet: Fleet, main: MainSlots, names: Names) -> Bytes:
    """Return `Cluster.serves`."""
    serves = joined([_shape_services(shape, names) for shape in fleet.shapes])[main.part]
    services = names.services.items()
    exclusive = [n for s, n in services if isinstance(s, GpuService) and s.exclusive]
    if exclusive:
        whole_mem = joined([shape.whole_mem for shape in fleet.shapes])[main.part]
        compute, mem = main.free[main.device[:, 0]], main.free[main.device[:, 0] + 1]
        touched = (compute < MAX_SHARE) | (mem < whole_mem)
        serves[np.ix_(np.flatnonzero(touched), np.array(exclusive))] = 0
    if names.traffic.by_interface:
        _mind_traffic(serves, agents, main, names)
    return serves


def _shape_services(shape: Shape, names: Names) -> Bytes:
    """Return (devices, services) what untouched devices serve on which nothing runs."""
    rows = [[_serves(part, service) for service in names.services] for part in shape.parts]
    return np.array(rows, np.uint8).reshape(len(shape.parts), len(names.services))


def _serves(part: Gpu | Nic, service: GpuService | NicService) -> bool:
    if isinstance(part, Gpu):
        return isinstance(service, GpuService) and service.given_by(part, untouched=True)
    return isinstance(service, NicService) and service.given_by(part, Multicast())


def _mind_traffic(serves: Bytes, agents: Agents, main: MainSlots, names: Names) -> None:
    """Let interfaces not serve what cannot be beside the multicast that they carry already."""
    for agent, here in zip(agents, main.agents, strict=True):
        first = here[DEVICE] + len(agent.topology.gpus)
        for n, nic in enumerate(agent.topology.nics):
            traffic = names.traffic.on(agent, n)
            for service, number in names.services.items():
                if isinstance(service, NicService) and not service.given_by(nic, traffic):
                    serves[first + n, number] = 0
