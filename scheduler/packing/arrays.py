"""The arrays that packing works on, and their layout.

Everything that can be drawn from is a *slot*, an integer amount in one array ``free``. Slots lie agent by
agent: the agent's own (CPUs, memory, disk, ports), then two for each NUMA node (cores, memory), each GPU
(compute, memory) and each interface (in, out), and one for each volume asked for. What is not counted, such as
memory by node where an agent does not advertise it, has :data:`PLENTY`, so that the loops need no case for
it. A *device* is a GPU or an interface; a *want* is a task's request for one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]

OWN_SLOTS: Final = 4
"""CPUs, memory, disk, ports."""
MEM: Final = 1
"""Place of memory among an agent's own slots, and of a node's memory after its cores."""
NOWHERE: Final = -1
"""Stands for no task, place, node or device."""

AGENT: Final = 0
NODE: Final = 1
OWN: Final = 2
CORES: Final = 3
DEVICE: Final = 4
DEVICE_END: Final = 5
"""Columns of `Cluster.places`."""

N_CORES: Final = 0
ADMISSION: Final = 1
PLACE: Final = 2
PLACE_END: Final = 3
WANT: Final = 4
WANT_END: Final = 5
VOLUME: Final = 6
VOLUME_END: Final = 7
"""Columns of `Demand.task`."""
GPU: Final = 0
"""Number of the service that GPUs give; networks have the other numbers."""

PLENTY: Final = 1 << 60
"""Amount of what is not counted: more than all tasks together can ask for."""
MOST: Final = 1 << 40
"""Requests for more are cut to this, which no slot but one of PLENTY holds (1 PiB, in thousandths of MiB)."""

FIRST: Final = 0
"""Rule: where the task first fits."""
TIGHTEST: Final = 1
"""Rule: where the task leaves least over."""
HUMBLEST: Final = 2
"""Rule: on the agents of lowest priority on which it fits; among these, where it leaves least over."""


class Cluster(NamedTuple):
    """Where the slots of each agent are. Indices of nodes and devices run over all agents."""

    places: Ints
    """(nodes + agents, 6) where a task can be: agent, node or NOWHERE, first slot of the agent, slot of the
    node's cores (its memory is the next) or NOWHERE, first device, end of the devices. First come the nodes,
    for tasks that need one, then the agents, for those that do not."""
    device: Ints
    """(devices, 2) slot of compute or of the bandwidth in (memory or out is the next); node or NOWHERE. The
    GPUs of an agent come before its interfaces."""
    serves: Bytes
    """(devices, services) whether it gives that service."""
    volume_slot: Ints
    """(agents, volume names) slot, NOWHERE where the agent has no such volume."""
    admits: Bytes
    """(kinds of admission, agents) whether tasks of that kind may run on the agent."""
    rank: Ints
    """(agents,) priority: higher is kept free longer."""
    weight: Floats
    """(slots,) one over the mean amount that is free in slots of that kind; 0 for what is not counted."""


class Demand(NamedTuple):
    """What each task asks for."""

    own: Ints
    """(tasks, OWN_SLOTS) amounts; CPUs include those under pinned cores."""
    task: Ints
    """(tasks, 8) number of pinned cores; row of `Cluster.admits`; first and end of the places, of the wants,
    and of the volume requests that concern the task. Wants for GPUs come before those for interfaces."""
    want: Ints
    """(wants, 4) amounts of the device's two slots, affinity, service."""
    volume: Ints
    """(volume requests, 2) volume name, disk."""
    size: Floats
    """(tasks,) all that the task asks for, each relative to the mean that is free in such slots."""


class Plan(NamedTuple):
    """Which task is where, and what it draws there; changed in place."""

    free: Ints
    """(slots,) what is left."""
    where: Ints
    """(tasks,) place, or NOWHERE."""
    device: Ints
    """(tasks, most wants) device behind each want."""
    draws: Ints
    """(tasks,) number of draws."""
    slot: Ints
    """(tasks, most draws) slots drawn from."""
    amount: Ints
    """(tasks, most draws) amounts drawn."""
    first: Ints
    """(agents,) a task on each agent, or NOWHERE: head of a doubly linked list."""
    links: Ints
    """(tasks, 2) next and previous task on the same agent."""


class Best(NamedTuple):
    """The fullest plan so far; written when a fuller one is found."""

    where: Ints
    device: Ints


def empty_plan(free: Ints, n_agents: int, demand: Demand) -> Plan:
    """Return a plan with no task placed."""
    n_tasks = len(demand.own)
    wants = int((demand.task[:, WANT_END] - demand.task[:, WANT]).max(initial=0))
    volumes = int((demand.task[:, VOLUME_END] - demand.task[:, VOLUME]).max(initial=0))
    draws = OWN_SLOTS + 2 + 2 * wants + volumes
    return Plan(
        free=free.copy(),
        where=np.full(n_tasks, NOWHERE, np.int64),
        device=np.full((n_tasks, wants), NOWHERE, np.int64),
        draws=np.zeros(n_tasks, np.int64),
        slot=np.zeros((n_tasks, draws), np.int64),
        amount=np.zeros((n_tasks, draws), np.int64),
        first=np.full(n_agents, NOWHERE, np.int64),
        links=np.full((n_tasks, 2), NOWHERE, np.int64),
    )
