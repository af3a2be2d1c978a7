"""One figure of a product where an operator wants one: sums and worst cases over its tasks' sensors.

Pure but for what it remembers; :mod:`katcp_iface.mirror` tells it of every reading.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiokatcp

from katcp_iface.readings import Shown, Status
from sdpcontroller.control import ProductRecord, TaskSensor

_USELESS: Final = frozenset({"unknown", "unreachable", "inactive"})


@dataclass(frozen=True, slots=True)
class Rule:
    """How the sensors of one name become one of the product's."""

    kind: type[Any]
    combine: Callable[[Sequence[Any]], Any]
    description: str
    units: str = ""
    warn_above: float | None = None
    tasks: str = ""
    """Only of tasks whose names begin so; empty: of all."""
    read: Callable[[Any], Any] = lambda value: value
    """What is combined, of a reading: each is read once, and combined with each of the others."""


_STATUSES: Final = tuple(aiokatcp.DeviceStatus)
"""From best to worst."""
_SEVERITY: Final = {status.name: number for number, status in enumerate(_STATUSES)}


def _worst(severities: Sequence[int]) -> aiokatcp.DeviceStatus:
    return _STATUSES[max(severities)]


def _severity(value: Any) -> int:
    if isinstance(value, enum.Enum):  # of a type made after the task's own
        value = value.name
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return _SEVERITY.get(text.upper(), len(_STATUSES) - 1)


RULES: Final = {
    "device-status": Rule(
        aiokatcp.DeviceStatus, _worst, "Worst device-status of the tasks", read=_severity
    ),
    "input-heaps-total": Rule(
        int, sum, "Correlator heaps that the ingests have received", tasks="ingest."
    ),
    "input-heaps-lost": Rule(
        int, sum, "Correlator heaps that the ingests lack", warn_above=0, tasks="ingest."
    ),
    "input-rate": Rule(float, sum, "Rate of the ingests' input", units="B/s", tasks="ingest."),
}
"""By the sensors' name at the tasks, which is the name at the product as well."""

_STATUS: Final = {
    aiokatcp.DeviceStatus.OK: Status.NOMINAL,
    aiokatcp.DeviceStatus.DEGRADED: Status.WARN,
    aiokatcp.DeviceStatus.FAIL: Status.ERROR,
}


class Aggregates:
    """The newest readings of all tasks, as far as a rule wants them."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], dict[str, Any]] = {}
        """What rules have read, by product and sensor, then by task."""

    def taken(self, sensor: TaskSensor) -> Shown | None:
        """Take a reading; return what the product shows now, None where no rule wants it."""
        rule = RULES.get(sensor.name)
        if rule is None or not sensor.task.startswith(rule.tasks):
            return None
        values = self._values.setdefault((sensor.product, sensor.name), {})
        if sensor.status in _USELESS or sensor.value is None:
            values.pop(sensor.task, None)
        else:
            values[sensor.task] = rule.read(sensor.value)
        return _shown(sensor.product, sensor.name, rule, values)

    def without(self, product: str, task: str) -> Iterator[Shown]:
        """Forget a task; yield what the product shows now."""
        for (owner, name), values in self._values.items():
            if owner == product and values.pop(task, None) is not None:
                yield _shown(product, name, RULES[name], values)

    def forget(self, product: str) -> list[str]:
        """Forget a product; return the names of the sensors that it had."""
        names = [name for owner, name in self._values if owner == product]
        for name in names:
            del self._values[product, name]
        return [f"{product}.{name}" for name in names]


def _shown(product: str, name: str, rule: Rule, values: dict[str, Any]) -> Shown:
    value = status = None
    if values:
        try:
            value = rule.combine(list(values.values()))
        except TypeError:  # a task that publishes something else under this name
            status = Status.UNREACHABLE
    if status is None:
        status = Status.UNKNOWN if value is None else _status_of(rule, value)
    return Shown(
        name=f"{product}.{name}",
        kind=rule.kind,
        description=rule.description,
        value=value,
        status=status,
        units=rule.units,
        timestamp=time.time(),
        limited=True,
    )


def _status_of(rule: Rule, value: Any) -> Status:
    if isinstance(value, aiokatcp.DeviceStatus):
        return _STATUS[value]
    if rule.warn_above is not None and value > rule.warn_above:
        return Status.WARN
    return Status.NOMINAL


def task_counts(record: ProductRecord) -> Iterator[Shown]:
    """Yield how many tasks a product has, and how many of them are ready."""
    states = [task.state for task in record.tasks.values()]
    name = record.name
    ready = states.count("ready")
    yield Shown(f"{name}.tasks-total", int, "Tasks", len(states), Status.NOMINAL)
    yield Shown(f"{name}.tasks-ready", int, "Tasks that are ready", ready, Status.NOMINAL)
