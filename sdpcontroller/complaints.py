"""What running tasks say is wrong with them: alarms that an operator sees without looking at each task.

A task's ``device-status`` says how bad it is, the statuses of its other sensors say where to look.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, Final

from sdpcontroller.control import Alarm, Severity, TaskSensor

_STATUS: Final = "device-status"
_SEVERITIES: Final = {"degraded": Severity.WARNING, "fail": Severity.ALARM}
_TROUBLED: Final = frozenset({"warn", "error", "failure"})
_NAMED: Final = 5
"""Sensors that an alarm names."""


class Complaints:
    """The complaints of all tasks; told of every reading, it remembers only those that matter."""

    def __init__(self) -> None:
        self._severities: dict[tuple[str, str], Severity] = {}
        """By product and task."""
        self._troubled: dict[tuple[str, str], set[str]] = {}
        """Sensors that are not as they should be, by product and task."""

    def take(self, sensor: TaskSensor) -> bool:
        """Take a reading; return whether it changes what :meth:`alarms` tells."""
        task = (sensor.product, sensor.task)
        if sensor.name == _STATUS:
            return self._take_status(task, sensor.value)
        known = self._troubled.get(task)
        if (sensor.status in _TROUBLED) == (known is not None and sensor.name in known):
            return False
        if sensor.status in _TROUBLED:
            self._troubled.setdefault(task, set()).add(sensor.name)
        elif known is not None:
            known.remove(sensor.name)
            if not known:
                del self._troubled[task]
        return task in self._severities

    def _take_status(self, task: tuple[str, str], value: Any) -> bool:
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        before, now = self._severities.pop(task, None), _SEVERITIES.get(text)
        if now is not None:
            self._severities[task] = now
        return now is not before

    def forget(self, product: str) -> None:
        """Forget the tasks of a product that is gone."""
        for task in {*self._severities, *self._troubled}:
            if task[0] == product:
                self._severities.pop(task, None)
                self._troubled.pop(task, None)

    def alarms(self, products: Container[str]) -> Iterator[Alarm]:
        """Yield the complaints of the tasks of these products."""
        for (product, task), severity in sorted(self._severities.items()):
            if product not in products:
                continue
            names = sorted(self._troubled.get((product, task), ()))
            shown = ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
            text = f"it is {'degraded' if severity is Severity.WARNING else 'failing'}"
            yield Alarm(f"task.{product}.{task}", severity, f"{text}: {shown}" if shown else text)
