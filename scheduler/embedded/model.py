"""What master and agents know about each other, as frozen data."""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from scheduler.embedded.pool import UNRESERVED, Pool
from scheduler.errors import QuantityError
from scheduler.quantities import Ranges, Resources, format_millis, millis

VERSION = "1.12.0"
"""The Mesos version whose behaviour this is."""
DEFAULT_ROLE = "*"
DEFAULT_KILL_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL of a command task without kill policy."""
DOCKER_KILL_GRACE = 5.0
"""Likewise of a Docker task."""


class TaskState(enum.StrEnum):
    """States of a task, under Mesos' names."""

    STAGING = "TASK_STAGING"
    STARTING = "TASK_STARTING"
    RUNNING = "TASK_RUNNING"
    KILLING = "TASK_KILLING"
    FINISHED = "TASK_FINISHED"
    FAILED = "TASK_FAILED"
    KILLED = "TASK_KILLED"
    ERROR = "TASK_ERROR"
    LOST = "TASK_LOST"
    DROPPED = "TASK_DROPPED"
    UNREACHABLE = "TASK_UNREACHABLE"
    GONE = "TASK_GONE"
    GONE_BY_OPERATOR = "TASK_GONE_BY_OPERATOR"
    UNKNOWN = "TASK_UNKNOWN"

    @property
    def is_terminal(self) -> bool:
        """Whether a task in this state has ended and holds nothing any more."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        TaskState.FINISHED,
        TaskState.FAILED,
        TaskState.KILLED,
        TaskState.ERROR,
        TaskState.LOST,
        TaskState.DROPPED,
        TaskState.GONE,
        TaskState.GONE_BY_OPERATOR,
    }
)

_WITHOUT_PARTITION_AWARE = frozenset(
    {
        TaskState.DROPPED,
        TaskState.UNREACHABLE,
        TaskState.GONE,
        TaskState.GONE_BY_OPERATOR,
        TaskState.UNKNOWN,
    }
)


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent to be started.

    Attributes are written as on the command line of ``mesos-agent``: the text decides the type
    (see :func:`attribute_message`).
    """

    hostname: str
    """Name or address under which the agent advertises itself; where its tasks listen."""
    resources: Resources
    attributes: Mapping[str, str] = field(default_factory=dict)
    default_role: str = UNRESERVED
    """The role that `resources` are reserved for (``--default_role``)."""
    reserved: Mapping[str, Resources] = field(default_factory=dict)
    """What there is besides, by the role that it is reserved for."""

    @property
    def pool(self) -> Pool:
        """All that the agent has.

        Raises
        ------
        QuantityError
            If a range member is there twice.
        """
        return Pool({self.default_role: self.resources}) + Pool(self.reserved)


@functools.lru_cache(maxsize=65_536)
def _as_address(hostname: str) -> str | None:
    """Return a host name that is an address; None for any other."""
    try:
        return str(ipaddress.ip_address(hostname))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """An agent that has registered."""

    id: str
    number: int
    """1 for the first agent of the process; part of its path on the HTTP server."""
    spec: AgentSpec
    address: tuple[str, int]
    """Where the HTTP server listens that serves the agent's endpoints."""

    @property
    def path(self) -> str:
        """Path of the agent's endpoints, ``/slave(1)``."""
        return f"/slave({self.number})"

    @property
    def ip(self) -> str:
        """Address of the agent's tasks: its host name where that is one, else the server's."""
        return _as_address(self.spec.hostname) or self.address[0]

    @property
    def url(self) -> dict[str, Any]:
        """The ``URL`` below which the agent's endpoints are."""
        host, port = self.address
        return {
            "scheme": "http",
            "address": {"hostname": host, "ip": host, "port": port},
            "path": self.path,
        }

    @property
    def pid(self) -> str:
        """The agent's name in Mesos' own addressing."""
        return f"slave({self.number})@{self.address[0]}:{self.address[1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkInfo:
    """What a framework says about itself when it subscribes."""

    id: str
    name: str
    user: str = ""
    roles: tuple[str, ...] = (DEFAULT_ROLE,)
    capabilities: tuple[str, ...] = ()
    failover_timeout: float = 0.0
    """Seconds that its tasks outlive a lost connection; negative counts as 0."""
    checkpoint: bool = False
    hostname: str = ""
    webui_url: str = ""
    principal: str | None = None
    labels: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_mesos(cls, document: Mapping[str, Any], framework_id: str) -> Self:
        """Read a validated ``FrameworkInfo``."""
        capabilities = tuple(c.get("type", "UNKNOWN") for c in document.get("capabilities", []))
        multi_role = "MULTI_ROLE" in capabilities
        roles = document.get("roles", []) if multi_role else [document.get("role", DEFAULT_ROLE)]
        return cls(
            id=framework_id,
            name=document["name"],
            user=document["user"],
            roles=tuple(roles),
            capabilities=capabilities,
            failover_timeout=document.get("failover_timeout", 0.0),
            checkpoint=document.get("checkpoint", False),
            hostname=document.get("hostname", ""),
            webui_url=document.get("webui_url", ""),
            principal=document.get("principal"),
            labels=tuple(document.get("labels", {}).get("labels", [])),
        )

    def updated(self, new: FrameworkInfo) -> FrameworkInfo:
        """Return what counts after a subscription with `new`: user and checkpoint never change."""
        return replace(new, id=self.id, user=self.user, checkpoint=self.checkpoint)

    def can(self, capability: str) -> bool:
        """Whether the framework has announced a capability."""
        return capability in self.capabilities

    def reportable(self, state: TaskState) -> TaskState:
        """Return the state as this framework understands it: the finer ones need PARTITION_AWARE."""
        if state in _WITHOUT_PARTITION_AWARE and not self.can("PARTITION_AWARE"):
            return TaskState.LOST
        return state


@dataclass(frozen=True, slots=True)
class Offer:
    """Resources of one agent, held for one framework in one role."""

    id: str
    framework_id: str
    agent_id: str
    role: str
    resources: Pool


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task that has been validated."""

    id: str
    name: str
    agent_id: str
    role: str
    pool: Pool
    document: Mapping[str, Any]
    """The ``TaskInfo`` message."""

    @property
    def resources(self) -> Resources:
        """What it may use, whoever that is reserved for."""
        return self.pool.plain

    @property
    def is_docker(self) -> bool:
        """Whether it asks for a Docker container."""
        return bool(self.document.get("container", {}).get("type") == "DOCKER")

    @property
    def kill_grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        policy = self.document.get("kill_policy", {})
        default = DOCKER_KILL_GRACE if self.is_docker else DEFAULT_KILL_GRACE
        return seconds(policy.get("grace_period"), default)

    @property
    def max_completion_time(self) -> float | None:
        """Seconds that the task may run, None without limit."""
        limit = self.document.get("max_completion_time")
        return None if limit is None else seconds(limit, 0.0)

    @property
    def labels(self) -> Sequence[Mapping[str, Any]]:
        """Labels of the task."""
        found: Sequence[Mapping[str, Any]] = self.document.get("labels", {}).get("labels", [])
        return found


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks that are launched together, and what their executor needs itself."""

    executor: Pool
    tasks: tuple[TaskInfo, ...]

    @property
    def total(self) -> Pool:
        """All that the group takes."""
        total = self.executor
        for task in self.tasks:
            total += task.pool
        return total


def seconds(duration: Mapping[str, Any] | None, default: float) -> float:
    """Read a ``DurationInfo``."""
    return default if duration is None else float(duration["nanoseconds"]) / 1e9


@functools.lru_cache(maxsize=65_536)
def attribute_message(name: str, text: str) -> dict[str, Any]:
    """Write an attribute as Mesos does: ``[0-7]`` are ranges, ``2.5`` a scalar, all else is text.

    The message is shared by all who ask for it: it is to be sent, not changed.
    """
    try:
        ranges = Ranges.parse(text)
    except QuantityError:
        pass
    else:
        pairs = [{"begin": b, "end": e} for b, e in ranges.intervals]
        return {"name": name, "type": "RANGES", "ranges": {"range": pairs}}
    try:
        return {"name": name, "type": "SCALAR", "scalar": {"value": millis(text) / 1000}}
    except QuantityError:
        return {"name": name, "type": "TEXT", "text": {"value": text}}


def ranges_text(ranges: Ranges) -> str:
    """Write ranges as Mesos' JSON endpoints do: ``[0-7, 9-9]``."""
    return "[" + ", ".join(f"{begin}-{end}" for begin, end in ranges.intervals) + "]"


def resource_messages(pool: Pool, role: str, framework: FrameworkInfo) -> list[dict[str, Any]]:
    """Write offered resources in the dialect that the framework's capabilities ask for."""
    allocation = {"allocation_info": {"role": role}} if framework.can("MULTI_ROLE") else {}
    refined = framework.can("RESERVATION_REFINEMENT")
    return [
        entry | reservation_message(reserved, refined=refined) | allocation
        for reserved, part in pool
        for entry in part.to_mesos()
    ]


def reservation_message(role: str, *, refined: bool = True) -> dict[str, Any]:
    """Write the field of a ``Resource`` that says whom it is reserved for.

    Parameters
    ----------
    role
        Key of a :class:`~scheduler.embedded.pool.Pool`.
    refined
        In the form of RESERVATION_REFINEMENT, or in the older one.
    """
    if not refined:
        return {"role": role}
    return {} if role == UNRESERVED else {"reservations": [{"type": "STATIC", "role": role}]}


def container_message(document: Mapping[str, Any]) -> dict[str, Any]:
    """Write a ``ContainerInfo`` as Mesos shows it: without empty lists, with the defaults of Docker's part."""
    shown = {name: value for name, value in document.items() if value != []}
    if "docker" in shown:
        docker = {"network": "HOST", "privileged": False, **shown["docker"]}
        shown["docker"] = {name: value for name, value in docker.items() if value != []}
    return shown


def describe(pool: Pool, role: str) -> str:
    """Write resources as Mesos does in its error texts."""
    parts: list[str] = []
    for reserved, resources in pool:
        note = f"(allocated: {role})"
        if reserved != UNRESERVED:
            note += f"(reservations: [(STATIC,{reserved})])"
        parts += [f"{n}{note}:{format_millis(v)}" for n, v in resources.scalars.items()]
        parts += [f"{n}{note}:{ranges_text(r)}" for n, r in resources.ranges.items()]
    return "; ".join(parts)
