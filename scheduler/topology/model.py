"""One machine: its parts, what it advertises, and the rules that bind the parts together."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.errors import TopologyError
from scheduler.quantities import Millis, Ranges, Resources, format_millis
from scheduler.topology import legacy, schema
from scheduler.topology.parts import Gpu, Nic, NumaNode, Volume, mesos_text, refuse, require_text

_RANGES = frozenset(("cores", "ports"))
_SCALARS = frozenset(("cpus", "mem", "disk"))
_COUNTED = re.compile(r"(numa|gpu|nic|volume)\.([0-9]+)\.(mem|compute|in|out|disk)")


@functools.lru_cache(maxsize=20_000)
def _parsed(
    attributes: tuple[tuple[str, str], ...], memory: tuple[tuple[str, Millis], ...]
) -> tuple[Topology, Mapping[str, Millis | None]]:
    """Parse what one agent advertises; it comes again, unchanged, with every offer.

    Parameters
    ----------
    memory
        What is free of memory by node, by which an agent shows that it counts it.

    Returns
    -------
    topology, capacities
        The machine, and the most that there can be of each of its resources.
    """
    told = dict(attributes)
    parts = legacy.read(told) if legacy.speaks_legacy(told) else schema.read(told)
    topology = Topology(**schema.with_counted_memory(parts, Resources(dict(memory))))
    return topology, topology.capacities()


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What one agent is made of.

    Raises
    ------
    TopologyError
        If the parts contradict each other; the message names attribute, value and rule.
    """

    numa: tuple[NumaNode, ...] = ()
    smt: tuple[Ranges, ...] = ()
    """Logical CPUs that share a physical core, one set per physical core."""
    l3: tuple[Ranges, ...] = ()
    """Logical CPUs that share an L3 cache; empty where no node has several."""
    gpus: tuple[Gpu, ...] = ()
    nics: tuple[Nic, ...] = ()
    volumes: tuple[Volume, ...] = ()
    subsystems: tuple[str, ...] = ()
    """The agent serves only tasks of these; any, when there are none."""
    priority: Millis | None = None
    """Higher is kept free longer; None: as many as it has GPUs, interfaces and volumes."""
    rack: str | None = None
    island: str | None = None

    def __post_init__(self) -> None:
        for name in ("rack", "island"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, mesos_text(value))
                require_text(f"sdp.{name}", getattr(self, name))
        _check_nodes(self.numa)
        _check_groups("sdp.smt", self.smt, self.cores)
        _check_groups("sdp.l3", self.l3, self.cores)
        _check_smt_nodes(self.smt, self.numa)
        _check_smt_caches(self.smt, self.l3)
        for kind, parts in (("gpu", self.gpus), ("nic", self.nics), ("volume", self.volumes)):
            _check_locality(kind, parts, len(self.numa))
        _check_unique("sdp.gpu.N.uuid", (g.uuid for g in self.gpus if g.uuid is not None))
        _check_unique("sdp.nic.N.name", (n.name for n in self.nics))
        _check_unique("sdp.volume.N.name", (v.name for v in self.volumes))
        _check_unique("sdp.subsystem.N", self.subsystems)
        for n, subsystem in enumerate(self.subsystems):
            require_text(f"sdp.subsystem.{n}", subsystem)

    @property
    def cores(self) -> Ranges:
        """Logical CPUs of all nodes."""
        return Ranges.of(pair for node in self.numa for pair in node.cores.intervals)

    @property
    def effective_priority(self) -> Millis:
        """`priority`, or its default."""
        if self.priority is not None:
            return self.priority
        return 1000 * (len(self.gpus) + len(self.nics) + len(self.volumes))

    @classmethod
    def parse(cls, attributes: Mapping[str, str], resources: Resources) -> Topology:
        """Read what an agent advertises.

        Parameters
        ----------
        attributes
            Attributes as text, ranges in the form ``[0-3,8-11]``; other systems' are ignored.
        resources
            What is free (or all there is), already by the names of the schema: see
            :func:`scheduler.topology.legacy.translate`. An agent that advertises neither this schema nor
            that of katsdpcontroller is a plain one: no node, no device.

        Raises
        ------
        TopologyError
            Naming attribute, value and rule.
        """
        if not legacy.speaks_legacy(attributes) and not any(
            name.startswith("sdp.") for name in attributes
        ):
            return cls()
        counted = ((n, a) for n, a in resources.scalars.items() if n.startswith("numa."))
        topology, capacities = _parsed(tuple(attributes.items()), tuple(counted))
        topology.check_free(resources, capacities)
        return topology

    def to_attributes(self) -> dict[str, str]:
        """Write as attributes that :meth:`parse` reads back to an equal topology."""
        return schema.write(self.parts())

    def parts(self) -> schema.Parts:
        """Return the fields, as the writers of both forms take them."""
        return schema.Parts(
            numa=self.numa,
            smt=self.smt,
            l3=self.l3,
            gpus=self.gpus,
            nics=self.nics,
            volumes=self.volumes,
            subsystems=self.subsystems,
            priority=self.priority,
            rack=self.rack,
            island=self.island,
        )

    def resources(self) -> Resources:
        """Everything that the parts have to give: cores, memory by node, devices, counted volumes.

        Mesos' own ``cpus``, ``mem``, ``disk`` and ``ports`` are not facts of the parts and come on top.
        """
        capacities = {
            name: amount for name, amount in self.capacities().items() if amount is not None
        }
        return Resources(capacities, {"cores": self.cores})

    def capacities(self) -> dict[str, Millis | None]:
        """Capacity of every scalar that the parts may advertise, None where it is not told."""

        def units(value: int | None) -> Millis | None:
            return None if value is None else 1000 * value

        capacities = {f"numa.{n}.mem": units(node.mem_mib) for n, node in enumerate(self.numa)}
        for n, gpu in enumerate(self.gpus):
            capacities[f"gpu.{n}.compute"] = 1000
            capacities[f"gpu.{n}.mem"] = units(gpu.mem_mib)
        for n, nic in enumerate(self.nics):
            capacities[f"nic.{n}.in"] = capacities[f"nic.{n}.out"] = units(nic.speed_mbps)
        for n, volume in enumerate(self.volumes):
            capacities[f"volume.{n}.disk"] = units(volume.disk_mib)
        return capacities

    def check_free(self, free: Resources, capacities: Mapping[str, Millis | None]) -> None:
        """Refuse free resources that this machine cannot have.

        Raises
        ------
        TopologyError
            If a core is in no node, a device does not exist, or more is free than there is.
        """
        for name in _RANGES.intersection(free.scalars):
            refuse(name, format_millis(free.scalars[name]), "expected ranges, as [0-7]")
        for name in _SCALARS.intersection(free.ranges):
            refuse(name, free.ranges[name], "expected a number")
        if stray := free.ranges.get("cores", Ranges()) - self.cores:
            raise TopologyError(f"cores={stray}: in no NUMA node (see sdp.numa.N.cores)")
        for name, amount in free.scalars.items():
            if name not in capacities:
                if _COUNTED.fullmatch(name):
                    refuse(name, format_millis(amount), "there is no such device or node")
                continue
            capacity = capacities[name]
            if capacity is not None and amount > capacity:
                rule = f"more than its capacity {format_millis(capacity)}"
                refuse(name, format_millis(amount), rule)


def _check_nodes(nodes: Sequence[NumaNode]) -> None:
    seen = Ranges()
    for n, node in enumerate(nodes):
        if twice := seen & node.cores:
            refuse(f"sdp.numa.{n}.cores", node.cores, f"{twice} is also in another node")
        seen |= node.cores


def _check_groups(prefix: str, groups: Sequence[Ranges], cores: Ranges) -> None:
    seen = Ranges()
    for n, group in enumerate(groups):
        if not group:
            refuse(f"{prefix}.{n}", group, "has no CPU")
        if stray := group - cores:
            refuse(f"{prefix}.{n}", group, f"{stray} is in no NUMA node")
        if twice := seen & group:
            refuse(f"{prefix}.{n}", group, f"{twice} is also in another group")
        seen |= group


def _check_smt_nodes(smt: Sequence[Ranges], nodes: Sequence[NumaNode]) -> None:
    for n, group in enumerate(smt):
        if sum(1 for node in nodes if group & node.cores) > 1:
            refuse(f"sdp.smt.{n}", group, "the siblings of a core are on one NUMA node")


def _check_smt_caches(smt: Sequence[Ranges], l3: Sequence[Ranges]) -> None:
    cache = {cpu: n for n, group in enumerate(l3) for cpu in group}
    for n, group in enumerate(smt):
        if len({cache.get(cpu) for cpu in group}) > 1:
            refuse(f"sdp.smt.{n}", group, "the siblings of a core share their L3 cache")


def _check_locality(kind: str, parts: Iterable[Gpu | Nic | Volume], nodes: int) -> None:
    for n, part in enumerate(parts):
        if part.numa is not None and not 0 <= part.numa < nodes:
            refuse(f"sdp.{kind}.{n}.numa", part.numa, f"there are {nodes} NUMA nodes, from 0")


def _check_unique(attribute: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            refuse(attribute, value, "is there twice")
        seen.add(value)
