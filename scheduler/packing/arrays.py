"""The arrays that packing works on, and their layout.

Everything that can be drawn from is a *slot*, an integer amount in one array ``free``. Slots lie agent by
agent: the agent's own (CPUs, memory, disk, ports), then two for each GPU (compute, memory) and each interface
(in, out), and three for each NUMA node (cores, memory, whole physical cores). Behind those of all agents are
slots that are there only if somebody asks: two for each L3 cache (cores, whole ones), and one for each volume.
What is not counted, such as memory by node where an agent does not advertise it, has :data:`PLENTY`, so that
the loops need no case for it. A *device* is a GPU or an interface; a *want* is a task's request for one.

What tasks may not do beside each other is a slot, too: a *ticket*. Whoever draws all of it keeps the others
out, who draw one each. Tickets of a zone (an agent, a rack) are found as volumes are, those of a device by the
device.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]

OWN_SLOTS: Final = 4
"""CPUs, memory, disk, ports."""
NODE_SLOTS: Final = 3
"""Cores, memory, whole physical cores."""
CORE_DRAWS: Final = 2
SPECIAL_CORE_DRAWS: Final = 5
"""Slots of a node and of an L3 cache that one task draws from, at most; if it just counts cores, and if not."""
MEM: Final = 1
"""Place of memory among an agent's own slots, and of a node's memory after its cores."""
WHOLE: Final = 2
"""Place of whole physical cores after a node's cores; after those of an L3 cache they come next."""
NOWHERE: Final = -1
"""Stands for no task, place, node or device."""

AGENT: Final = 0
NODE: Final = 1
OWN: Final = 2
CORES: Final = 3
DEVICE: Final = 4
DEVICE_END: Final = 5
L3: Final = 6
WIDTH: Final = 7
NODE_CORES: Final = 8
PLACE_COLUMNS: Final = 9
"""Columns of `Cluster.places`, and how many there are."""

N_CORES: Final = 0
ADMISSION: Final = 1
PLACE: Final = 2
PLACE_END: Final = 3
WANT: Final = 4
WANT_END: Final = 5
VOLUME: Final = 6
VOLUME_END: Final = 7
N_WHOLE: Final = 8
NODE_SHARE: Final = 9
BREAKS: Final = 10
SPECIAL: Final = 11
TASK_COLUMNS: Final = 12
"""Columns of `Demand.task`, and how many there are."""
SERVICE: Final = 3
TICKET: Final = 4
TICKET_END: Final = 5
"""Columns of `Demand.want`."""

PLENTY: Final = 1 << 60
"""Amount of what is not counted: more than all tasks together can ask for."""
MOST: Final = 1 << 40
"""Requests for more are cut to this, which no slot but one of PLENTY holds (1 PiB, in thousandths of MiB)."""

NO: Final = 0
YES: Final = 1
RATHER_ELSEWHERE: Final = 2
"""Grades of admission to an agent. The last: the task's data are elsewhere, though it may run here."""

FIRST: Final = 0
"""Rule: where the task first fits."""
TIGHTEST: Final = 1
"""Rule: where the task leaves least over."""
HUMBLEST: Final = 2
"""Rule: on the agents of lowest priority on which it fits; among these, where it leaves least over."""


class Kind(enum.IntEnum):
    """Kinds of slots: amounts of one kind can be compared over agents."""

    CPUS = 0
    MEM = 1
    DISK = 2
    PORTS = 3
    CORES = 4
    NODE_MEM = 5
    WHOLE_CORES = 6
    GPU_COMPUTE = 7
    GPU_MEM = 8
    NIC_IN = 9
    NIC_OUT = 10
    VOLUME = 11
    L3_CORES = 12
    L3_WHOLE_CORES = 13
    TICKET = 14


class Cluster(NamedTuple):
    """Where the slots of each agent are. Indices of nodes and devices run over all agents."""

    places: Ints
    """(nodes + agents + L3 caches, 9) where a task can be: agent, node or NOWHERE, first slot of the agent,
    slot of the node's cores (its memory and its whole cores are the next) or NOWHERE, first device, end of
    the devices, slot of the cores of the L3 cache (its whole cores are the next) or NOWHERE, logical CPUs of a
    whole core, and those of the node, whether free or not. First come the nodes, for tasks that need one, then
    the agents, for those that do not, then the caches, for those whose cores share one; of these there are
    none if no task asks."""
    device: Ints
    """(devices, 2) slot of compute or of the bandwidth in (memory or out is the next); node or NOWHERE. The
    GPUs of an agent come before its interfaces."""
    serves: Bytes
    """(devices, services) whether it gives that service."""
    device_ticket: Ints
    """(devices, tickets) slot, NOWHERE where the ticket is not asked for."""
    volume_slot: Ints
    """(agents, volume names and tickets) slot, NOWHERE where the agent has no such volume, or is in no zone."""
    admits: Bytes
    """(kinds of admission, agents) whether tasks of that kind may run on the agent: 0 no, 1 yes, 2 yes, but
    rather elsewhere."""
    zone: Ints
    """(ties, agents) zone of the agent, NOWHERE if it is in none."""
    rank: Ints
    """(agents,) priority: higher is kept free longer."""
    weight: Floats
    """(slots,) one over the mean amount that is free in slots of that kind; 0 for what is not counted."""


class Demand(NamedTuple):
    """What each task asks for."""

    own: Ints
    """(tasks, OWN_SLOTS) amounts; CPUs include those under pinned cores."""
    task: Ints
    """(tasks, 12) number of pinned cores; row of `Cluster.admits`; first and end of the places, of the wants,
    and of the volume requests and tickets that concern the task; number of those cores that are to be whole;
    least share of the node in thousandths; 1 if its cores may have to be counted as whole ones that it breaks;
    1 if its cores are not just a number. Wants for GPUs come before those for interfaces."""
    want: Ints
    """(wants, 6) amounts of the device's two slots, affinity, service; first and end of its tickets."""
    want_ticket: Ints
    """(any, 2) ticket of a device, amount."""
    volume: Ints
    """(volume requests and tickets, 2) volume name or ticket, amount."""
    tie: Ints
    """(tasks, facts) tie that the task is in, NOWHERE if none. All tasks of one tie are in one zone."""
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
    tie: Ints
    """As `Demand.tie`."""
    tied: Ints
    """(ties, 2) number of its tasks that are placed; the zone in which they are."""


class Best(NamedTuple):
    """The fullest plan so far; written when a fuller one is found."""

    where: Ints
    device: Ints


def empty_plan(free: Ints, n_agents: int, demand: Demand) -> Plan:
    """Return a plan with no task placed."""
    n_tasks = len(demand.own)
    wants = int((demand.task[:, WANT_END] - demand.task[:, WANT]).max(initial=0))
    volumes = int((demand.task[:, VOLUME_END] - demand.task[:, VOLUME]).max(initial=0))
    tickets = int((demand.want[:, TICKET_END] - demand.want[:, TICKET]).max(initial=0))
    cores = SPECIAL_CORE_DRAWS if demand.task[:, SPECIAL].any() else CORE_DRAWS
    draws = OWN_SLOTS + cores + (2 + tickets) * wants + volumes
    return Plan(
        free=free.copy(),
        where=np.full(n_tasks, NOWHERE, np.int64),
        device=np.full((n_tasks, wants), NOWHERE, np.int64),
        draws=np.zeros(n_tasks, np.int64),
        slot=np.zeros((n_tasks, draws), np.int64),
        amount=np.zeros((n_tasks, draws), np.int64),
        first=np.full(n_agents, NOWHERE, np.int64),
        links=np.full((n_tasks, 2), NOWHERE, np.int64),
        tie=demand.tie,
        tied=np.zeros((int(demand.tie.max(initial=NOWHERE)) + 1, 2), np.int64),
    )
