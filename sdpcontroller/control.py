"""The control plane: what every façade speaks to.

Commands are frozen dataclasses, each with the type of its reply; state is read from records, and changes of
records come as events. A command either does all it says, or raises
:exc:`~sdpcontroller.errors.ControllerError` and has changed nothing or was undone.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

R = TypeVar("R")


class Command(Generic[R]):
    """Something that the controller can be told to do; `R` is the type of the reply."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ProductAddress:
    """Reply to a configure: the product's final name, and who answers its own requests."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ConfigureProduct(Command[ProductAddress]):
    """Bring up a product; replies when every task is ready."""

    name: str
    """A ``*`` is replaced by the first free number."""
    config: str
    """The configuration document, JSON text as it came in."""


@dataclass(frozen=True, slots=True)
class DeconfigureProduct(Command[None]):
    """Take a product down; with `force`, captures are ended first."""

    name: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class CaptureInit(Command[str]):
    """Begin a capture block; replies its id when everything is ready for data."""

    product: str
    override: str | None = None
    """JSON merged over the product's configuration for this block."""


@dataclass(frozen=True, slots=True)
class CaptureDone(Command[str]):
    """End the capture block; replies its id when the data is drained."""

    product: str


@dataclass(frozen=True, slots=True)
class SetTransmission(Command[None]):
    """Start or stop the data transmission of one simulated correlator stream."""

    product: str | None
    """None: the only product that has the stream."""
    stream: str
    on: bool


@dataclass(frozen=True, slots=True)
class PlanProduct(Command[str]):
    """Dry run of a configure: would it fit now, where, and if not why. The reply is text for people."""

    config: str


@dataclass(frozen=True, slots=True)
class ExplainProduct(Command[str]):
    """Why a product that is being configured is still waiting."""

    name: str


@dataclass(frozen=True, slots=True)
class MulticastGroups(Command[str]):
    """Reserve a range of multicast addresses for a product: ``239.192.0.8+3``."""

    product: str
    count: int


@dataclass(frozen=True, slots=True)
class ReconfigureProduct(Command[ProductAddress]):
    """Take a product down and bring it up again with the same document."""

    name: str


@dataclass(frozen=True, slots=True)
class SetConfigOverride(Command[None]):
    """Keep changes for the next configure of a product of that name."""

    name: str
    override: str
    """JSON that is merged over the document; an empty object forgets what was kept."""


@dataclass(frozen=True, slots=True)
class RestartTask(Command[tuple[str, ...]]):
    """Start a task of a product again; replies with all that were, as the graph demands."""

    product: str
    task: str


@dataclass(frozen=True, slots=True)
class TaskLog(Command[tuple[str, ...]]):
    """The last lines that a task has written."""

    product: str
    task: str


@dataclass(frozen=True, slots=True)
class ProductEvent:
    """Something that happened to a product."""

    at: float
    """Unix time, by the clock of the configuration database."""
    text: str


@dataclass(frozen=True, slots=True)
class ProductEvents(Command[tuple[ProductEvent, ...]]):
    """The newest events of a product, oldest first; also of one that is dead."""

    product: str
    count: int = 100


@dataclass(frozen=True, slots=True)
class LookUpImage(Command[str]):
    """What an image's tag means now: the full reference, with its digest."""

    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class DrainAgent(Command[tuple[str, ...]]):
    """Let a host get no new tasks; replies with those that are still there, which go on."""

    host: str
    reason: str = ""
    """For people; shown beside the agent's state."""


@dataclass(frozen=True, slots=True)
class UndrainAgent(Command[None]):
    """Let a host get new tasks again."""

    host: str


@dataclass(frozen=True, slots=True)
class ResumeRepair(Command[str]):
    """Let products start tasks again by themselves; replies with why they did not, empty if they did."""


@dataclass(frozen=True, slots=True)
class SetTargetState(Command[None]):
    """Command the state of the whole; it is reached later."""

    target: str
    """ON, DISABLE, STANDBY or OFF."""


@dataclass(frozen=True, slots=True)
class ShutDown(Command[tuple[str, ...]]):
    """Take all products down and switch machines off; replies with the hosts that were."""


class ProductState(enum.Enum):
    """The life of a product; see the state machines in ``docs/architecture.md``."""

    CONFIGURING = "configuring"
    IDLE = "idle"
    CAPTURING = "capturing"
    DECONFIGURING = "deconfiguring"
    POSTPROCESSING = "postprocessing"
    DEAD = "dead"
    ERROR = "error"


class CaptureBlockState(enum.Enum):
    """The life of a capture block."""

    INITIALISING = "initialising"
    CAPTURING = "capturing"
    BURNDOWN = "burndown"
    POSTPROCESSING = "postprocessing"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """What is known of one task of a product."""

    name: str
    kind: str
    task_id: str
    state: str
    """Word of the task's state machine: planned, placed, launching, waiting, starting, ready, …."""
    mesos_state: str = ""
    host: str = ""
    outcome: str = ""
    """Empty until dead, then finished, failed, killed, lost or error, with the reason."""
    held: str = ""
    """Why it is not started though it could be: what is waited for, such as an operator."""
    resources: str = ""
    """What it holds, as text: ``cpus:1.5; mem:512; cores:[2-3]``."""
    ports: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Endpoint (host, port) by port name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRecord:
    """What is known of one product."""

    name: str
    state: ProductState
    config: str
    """The document as it was given."""
    capture_blocks: Mapping[str, CaptureBlockState] = field(default_factory=dict)
    """State by capture block id, oldest first; dead ones are dropped."""
    current_block: str | None = None
    """The block that captures, if one does."""
    reason: str = ""
    """Why the product is in the state it is in, for people; empty when all is as it should be."""
    telstate: tuple[str, int] | None = None
    """Endpoint of the product's telescope state, once known."""
    tasks: Mapping[str, TaskRecord] = field(default_factory=dict)
    """By task name."""
    queue: str = ""
    """In which its graph waited for its place, and waits for what is started anew."""


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """What is known of one agent."""

    host: str
    agent_id: str
    state: str
    """up, draining, quarantined or lost."""
    free: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """What is known of one queue of graphs that wait for their place."""

    name: str
    priority: int
    """Everybody of a higher queue is tried before all of a lower one."""
    waiting: int
    """How many graphs wait; of batch graphs each task by itself."""
    oldest: float
    """For how long the first of them waits, seconds."""
    terms: str
    """For whom it is, and what is particular to it, for people."""


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One data stream of a simulated correlator."""

    product: str
    name: str
    endpoint: str
    state: str
    """up or down: whether data is sent."""


@dataclass(frozen=True, slots=True)
class TaskSensor:
    """One reading of a sensor that a task publishes over KATCP, to be mirrored."""

    product: str
    task: str
    name: str
    """Name at the task."""
    description: str
    units: str
    type_name: str
    """KATCP type: integer, float, boolean, discrete, string, address, timestamp."""
    params: tuple[str, ...]
    """Values of a discrete type."""
    status: str
    """KATCP status: unknown, nominal, warn, error, failure, unreachable, inactive."""
    value: Any
    timestamp: float
    """Unix time of the reading."""


class Listener(Protocol):
    """Is told of every change, on the event loop, right after it was recorded. Must not block."""

    def product_changed(self, record: ProductRecord) -> None:
        """A product appeared or changed; its tasks come along in the record."""

    def product_gone(self, name: str) -> None:
        """A product is dead and will not be heard of again."""

    def sensor_changed(self, sensor: TaskSensor) -> None:
        """A task's sensor has a new reading (or a new status: ``unknown`` when the task is gone)."""

    def system_changed(self) -> None:
        """Something of :class:`SystemRecord` changed."""


class Severity(enum.Enum):
    """How grave something is that is wrong."""

    FAULT = 0
    """Nothing goes on without an operator."""
    ALARM = 1
    """It goes on, and somebody should look."""
    WARNING = 2


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that is wrong."""

    name: str
    """``mesos``, ``repair``, ``product.NAME``, ``task.PRODUCT.TASK``, ``agent.HOST``, ``agents``,
    ``certificate.USE``, ``queues``, ``queues.preempted``."""
    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class SystemRecord:
    """The state of the whole."""

    state: str
    """Reported state: INIT, ON, DISABLE, STANDBY, OFF, ALARM, FAULT, UNKNOWN."""
    target_state: str
    """ON, DISABLE, STANDBY, OFF."""
    mesos_state: str
    """disconnected, connected or lost."""
    mesos_master: str
    """Address of the leading master, or empty."""
    alarms: tuple[Alarm, ...] = ()
    """What is wrong, the gravest first."""
    standbys: tuple[str, ...] = ()
    """Controllers that stand by to take over, ``host:port`` each."""


class ControlPlane(Protocol):
    """What a façade can do and see. In the master's process this is the master itself."""

    async def execute(self, command: Command[R]) -> R:
        """Do what the command says and return its reply."""

    def products(self) -> Mapping[str, ProductRecord]:
        """All products that are not dead, by name."""

    def agents(self) -> Sequence[AgentRecord]:
        """All agents known, by host."""

    def queues(self) -> Sequence[QueueRecord]:
        """Return the queues, the highest first."""

    def streams(self) -> Sequence[StreamRecord]:
        """All streams of simulated correlators."""

    def system(self) -> SystemRecord:
        """Return the state of the whole."""

    def limits(self) -> Mapping[type[Command[Any]], float]:
        """Seconds after which a command has certainly been answered, of those that may take long."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Register a listener; it is told of what exists at once. The returned function ends it."""
