"""What sensors show, as a pure function of records."""

from __future__ import annotations

import enum
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiokatcp

from katcp_iface import types
from sdpcontroller.control import (
    AgentRecord,
    Alarm,
    ProductRecord,
    ProductState,
    QueueRecord,
    Severity,
    SystemRecord,
    TaskRecord,
    TaskSensor,
)

Status = aiokatcp.Sensor.Status
_STATUSES: Final = dict(Status.__members__)

TASK_SENSORS: Final = ("state", "mesos-state", "host", "resources")
"""Sensors that every task has; a port or a sensor of the task's own cannot take these names."""
DEVICE_STATUS: Final = "device-status"
"""Sensor that every task has: its own, or else what the controller makes of its state."""
_DEVICE_STATUS_WORDS: Final = ("ok", "degraded", "fail")
PRODUCT_SENSORS: Final = ("state", "capture-block-state", "config", "reason", "queue")
"""Sensors that every product has."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One sensor and what it shows."""

    name: str
    kind: type
    description: str
    value: Any
    """None: not known; the sensor keeps its last value."""
    status: Status
    units: str = ""
    timestamp: float | None = None
    """Unix time of the reading; None: now."""
    limited: bool = False
    """Whether updates are rate-limited unless a client asks otherwise."""


def system_sensors(
    system: SystemRecord,
    products: Mapping[str, ProductRecord],
    agents: Sequence[AgentRecord],
    pages: str,
    queues: Sequence[QueueRecord] = (),
) -> Iterator[Shown]:
    """Yield the sensors of the whole.

    Parameters
    ----------
    pages
        What :class:`Pages` makes of the products.
    """
    whole = device_status(system, products, agents)
    status = {"OK": Status.NOMINAL, "DEGRADED": Status.WARN, "FAIL": Status.ERROR}[whole.name]
    yield Shown("device-status", aiokatcp.DeviceStatus, "State of the whole", whole, status)
    yield _word("state", types.SystemWord, "Reported state of the system", system.state)
    yield _word(
        "target-state", types.TargetWord, "Commanded state of the system", system.target_state
    )
    yield _text("products", "Names of the products, a JSON list", json.dumps(sorted(products)))
    yield _text("gui-urls", "Pages that a person can open, as JSON", pages)
    yield _alarms(system.alarms)
    yield _word("mesos-state", types.MesosWord, "The framework's link to Mesos", system.mesos_state)
    yield _text("mesos-master", "Address of the leading Mesos master", system.mesos_master)
    yield _count("standbys", "Controllers that stand by to take over", len(system.standbys))
    listed = [{"name": q.name, "priority": q.priority, "terms": q.terms} for q in queues]
    yield _text("queues", "Queues for a place, a JSON list, the highest first", json.dumps(listed))
    states = [agent.state for agent in agents]
    yield _count("agents-total", "Agents known", len(agents))
    for state in ("quarantined", "draining"):
        yield _count(f"agents-{state}", f"Agents that are {state}", states.count(state))


class Pages:
    """All pages that a person can open, as JSON: made anew only of a product that has changed.

    Parameters
    ----------
    fixed
        Those that are always there.
    """

    def __init__(self, fixed: Sequence[Mapping[str, str]] = ()) -> None:
        self._fixed = [json.dumps(page) for page in fixed]
        self._known: dict[str, tuple[ProductRecord, list[str]]] = {}
        self._text = ""

    def text(self, products: Mapping[str, ProductRecord]) -> str:
        """Return a JSON list of all."""
        before = self._known
        known = {name: self._of(name, record) for name, record in products.items()}
        same = known.keys() == before.keys() and all(known[n] is before[n] for n in known)
        if not (self._text and same):
            self._known = known
            pages = itertools.chain(self._fixed, *(pages for _, pages in known.values()))
            self._text = f"[{', '.join(pages)}]"
        return self._text

    def _of(self, name: str, record: ProductRecord) -> tuple[ProductRecord, list[str]]:
        known = self._known.get(name)
        if known is not None and known[0] is record:
            return known
        return record, [json.dumps(page) for page in pages_of(record)]


def pages_of(product: ProductRecord) -> Iterator[dict[str, str]]:
    """Yield the pages of a product's tasks: all that serve HTTP and are ready."""
    for task in product.tasks.values():
        if "http" in task.ports and task.state == "ready":
            host, port = task.ports["http"]
            yield {
                "title": f"{task.name} of {product.name}",
                "description": f"Page of {task.name} of subarray product {product.name}",
                "href": f"http://{host}:{port}/",
                "category": "Plot",
            }


def _alarms(alarms: Sequence[Alarm]) -> Shown:
    """Show what is wrong, with the status of the gravest."""
    listed = [{"name": a.name, "severity": a.severity.name.lower(), "text": a.text} for a in alarms]
    status = Status.NOMINAL
    if alarms:
        gravest = min(alarm.severity.value for alarm in alarms)
        status = Status.WARN if gravest == Severity.WARNING.value else Status.ERROR
    description = "What is wrong, a JSON list, the gravest first"
    return Shown("alarms", str, description, json.dumps(listed), status)


def device_status(
    system: SystemRecord, products: Mapping[str, ProductRecord], agents: Sequence[AgentRecord]
) -> aiokatcp.DeviceStatus:
    """Sum up: FAULT fails; an alarm, no Mesos, a product in error or an agent out of use degrades."""
    if system.state == "FAULT":
        return aiokatcp.DeviceStatus.FAIL
    impaired = (
        system.state == "ALARM"
        or system.mesos_state != "connected"
        or any(product.state is ProductState.ERROR for product in products.values())
        or any(agent.state in ("quarantined", "lost") for agent in agents)
    )
    return aiokatcp.DeviceStatus.DEGRADED if impaired else aiokatcp.DeviceStatus.OK


def product_sensors(record: ProductRecord) -> Iterator[Shown]:
    """Yield the product's own sensors, without those of its tasks."""
    name = record.name
    status = Status.ERROR if record.state is ProductState.ERROR else Status.NOMINAL
    yield Shown(f"{name}.state", ProductState, f"State of product {name}", record.state, status)
    blocks = json.dumps({block: state.value for block, state in record.capture_blocks.items()})
    yield _text(f"{name}.capture-block-state", "State by capture block, a JSON object", blocks)
    yield _text(f"{name}.config", "The configuration as it was given", record.config)
    yield _text(f"{name}.reason", "Why the product is in its state", record.reason)
    yield _text(f"{name}.queue", "Queue in which the product waits for its place", record.queue)


def task_sensors(product: str, task: TaskRecord) -> Iterator[Shown]:
    """Yield the sensors that the controller itself has of a task."""
    prefix = f"{product}.{task.name}"
    for port, (host, number) in task.ports.items():
        if port not in TASK_SENSORS:
            yield _endpoint(f"{prefix}.{port}", host, number)
    state = types.word(types.TaskWord, task.state)
    status = Status.ERROR if _failed(task) else Status.WARN if task.held else _known(state)
    yield Shown(f"{prefix}.state", types.TaskWord, f"State of {task.name}", state, status)
    yield _text(f"{prefix}.mesos-state", "What Mesos says of the task", task.mesos_state)
    yield _text(f"{prefix}.host", "Host where the task runs", task.host)
    yield _text(f"{prefix}.resources", "What the task holds", task.resources)


def _failed(task: TaskRecord) -> bool:
    return task.state == "dead" and task.outcome.startswith(("failed", "lost", "error"))


def derived_status(product: str, task: TaskRecord, now: float) -> TaskSensor:
    """Return the device-status of a task that publishes none itself, as far as the controller can tell.

    Parameters
    ----------
    now
        Unix time.
    """
    value, status = None, "unknown"
    if _failed(task):
        value, status = "fail", "error"
    elif task.held or task.mesos_state == "TASK_UNREACHABLE":
        value, status = "degraded", "warn"
    elif task.state == "ready":
        value, status = "ok", "nominal"
    elif task.state in ("stopping", "dead"):
        status = "inactive"
    return TaskSensor(
        product=product,
        task=task.name,
        name=DEVICE_STATUS,
        description=f"State of {task.name}, as the controller sees it",
        units="",
        type_name="discrete",
        params=_DEVICE_STATUS_WORDS,
        status=status,
        value=value,
        timestamp=now,
    )


def mirrored_sensor(sensor: TaskSensor) -> Shown:
    """Return a task's own sensor under its name here.

    A value that does not fit the sensor's type is not shown, and the sensor is ``unreachable``.
    """
    kind = types.python_type(sensor.type_name, sensor.params)
    status = _STATUSES.get(sensor.status.upper(), Status.UNKNOWN)
    value = None
    if sensor.value is not None:
        try:
            value = _cast(kind, sensor.value)
        except (TypeError, ValueError):
            status = Status.UNREACHABLE
    return Shown(
        name=f"{sensor.product}.{sensor.task}.{sensor.name}",
        kind=kind,
        description=sensor.description,
        value=value,
        status=status,
        units=sensor.units,
        timestamp=sensor.timestamp,
        limited=True,
    )


def _cast(kind: type[Any], value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if isinstance(value, bytes):
        return aiokatcp.decode(kind, value)
    if issubclass(kind, aiokatcp.Address):
        return kind.parse(str(value).encode())
    return kind(value)


def _word(name: str, kind: type[enum.Enum], description: str, text: str) -> Shown:
    value = types.word(kind, text)
    return Shown(name, kind, description, value, _known(value))


def _known(value: enum.Enum) -> Status:
    return Status.UNKNOWN if value.name == "UNKNOWN" else Status.NOMINAL


def _text(name: str, description: str, text: str) -> Shown:
    return Shown(name, str, description, text, Status.NOMINAL)


def _count(name: str, description: str, count: int) -> Shown:
    return Shown(name, int, description, count, Status.NOMINAL)


def _endpoint(name: str, host: str, port: int) -> Shown:
    address = types.address(host, port)
    if address is None:
        return _text(name, "Endpoint of the task", f"{host}:{port}")
    return Shown(name, aiokatcp.Address, "Endpoint of the task", address, Status.NOMINAL)
