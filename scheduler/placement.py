"""Where one task of a graph goes, and what it draws there: the answer of packing, as frozen data."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

from scheduler.quantities import Millis, Ranges, Resources
from scheduler.requests import TaskRequest


@dataclass(frozen=True, slots=True)
class Assignment:
    """One task on one agent.

    The tuples run parallel to those of the task's request: ``cores[i]`` is the logical CPU behind the core
    named ``request.cores[i]``, ``gpus[i]`` the number of the GPU that serves ``request.gpus[i]``, and so on.
    """

    task: str
    agent_id: str
    host: str
    numa: int | None = None
    """NUMA node of the cores; None when the task pins none."""
    cores: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    nics: tuple[int, ...] = ()
    volumes: tuple[int, ...] = ()
    numa_mem: bool = False
    """Whether the agent counts memory by node, so that the task draws ``numa.N.mem`` as well."""
    volume_disk: tuple[bool, ...] = ()
    """Whether volume ``i`` advertises a capacity, so that the request's disk is drawn from it."""
    role: str = ""
    """The role whose offers it draws from; empty when the offers do not say."""
    held_cores: tuple[int, ...] = ()
    """Logical CPUs that come with the cores and are nobody else's: siblings of whole cores, and the rest of
    the share of the node that was asked for."""
    whole_gpu_mem: tuple[Millis, ...] = ()
    """Where GPU ``i`` is exclusive: all its memory, thousandths of MiB; 0 for the others. Empty: none is."""

    @classmethod
    def of_columns(cls, count: int, **columns: Iterable[Any]) -> list[Assignment]:
        """Make that many at once, of the values of each field one after the other.

        Field by field, without a step in Python for each: ten thousand take a third of the time so. Fields that
        are not given have their defaults.
        """
        made = list(map(object.__new__, repeat(cls, count)))
        for known in fields(cls):
            values = columns.pop(known.name, None)
            column = repeat(known.default, count) if values is None else values
            deque(map(getattr(cls, known.name).__set__, made, column), maxlen=0)
        if columns:
            raise TypeError(f"an assignment has no {', '.join(columns)}")
        return made

    @classmethod
    def with_columns(
        cls, known: Sequence[Assignment], **columns: Iterable[Any]
    ) -> list[Assignment]:
        """Return the same assignments with other values of these fields, one after the other."""
        same = {
            f.name: map(attrgetter(f.name), known) for f in fields(cls) if f.name not in columns
        }
        return cls.of_columns(len(known), **same, **columns)

    def unusual(self, *left_out: str) -> dict[str, Any]:
        """Return the fields that are not as they are by default; what is left out of a record is so."""
        return {
            name: value
            for name, usual in _DEFAULTS.items()
            if (value := getattr(self, name)) != usual and name not in left_out
        }

    @property
    def cpuset(self) -> tuple[int, ...]:
        """All logical CPUs that are the task's own, in order."""
        return tuple(sorted((*self.cores, *self.held_cores) if self.held_cores else self.cores))

    def resources(self, request: TaskRequest) -> Resources:
        """Everything that this assignment takes from its agent, by Mesos resource name.

        Units are those of ``design/agents.md``: MiB, Mbit/s, CPUs; a pinned core also takes one of ``cpus``.
        """
        cpuset = self.cpuset
        scalars: dict[str, int] = {
            "cpus": request.cpus + 1000 * len(cpuset),
            "mem": request.mem,
            "disk": request.disk,
        }

        def draw(name: str, amount: int) -> None:
            scalars[name] = scalars.get(name, 0) + amount

        if self.numa is not None and self.numa_mem:
            draw(f"numa.{self.numa}.mem", request.mem)
        whole_mem = self.whole_gpu_mem or (0,) * len(self.gpus)
        for gpu, number, whole in zip(request.gpus, self.gpus, whole_mem, strict=True):
            draw(f"gpu.{number}.compute", gpu.compute)
            draw(f"gpu.{number}.mem", max(gpu.mem, whole))
        for nic, number in zip(request.nics, self.nics, strict=True):
            draw(f"nic.{number}.in", nic.bandwidth_in)
            draw(f"nic.{number}.out", nic.bandwidth_out)
        for volume, number, counted in zip(
            request.volumes, self.volumes, self.volume_disk, strict=True
        ):
            if counted:
                draw(f"volume.{number}.disk", volume.disk)
        return Resources(
            scalars,
            {"cores": Ranges.of_values(cpuset), "ports": Ranges.of_values(self.ports)},
        )

    def __str__(self) -> str:
        """Say it for people: ``ingest.0 on agent-1: NUMA node 0, cores 2 3, nics 0, ports 31000``."""
        node = () if self.numa is None else (f"NUMA node {self.numa}",)
        devices = (
            f"{kind.replace('_', ' ')} {' '.join(map(str, numbers))}"
            for kind in ("cores", "held_cores", "gpus", "nics", "volumes", "ports")
            if (numbers := getattr(self, kind))
        )
        held = ", ".join((*node, *devices))
        return f"{self.task} on {self.host}" + (f": {held}" if held else "")


_DEFAULTS: Final = {field.name: field.default for field in fields(Assignment)}


@dataclass(frozen=True, slots=True)
class Running:
    """A task that runs already, as far as it matters to those that are placed beside it."""

    request: TaskRequest
    assignment: Assignment
    sibling: bool = False
    """Whether it is of the same graph, so that relations hold to it; multicast concerns every graph."""

    @property
    def name(self) -> str:
        """Name of the task within its graph."""
        return self.assignment.task

    @property
    def agent_id(self) -> str:
        """Mesos' id of its agent."""
        return self.assignment.agent_id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Placement:
    """A whole graph, placed: one assignment for every task, by task name."""

    assignments: Mapping[str, Assignment] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line per task."""
        return "\n".join(map(str, self.assignments.values()))
