"""The task sensors that the catalogue declares for export."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from contextlib import suppress

from prometheus_client.core import GaugeMetricFamily, Metric

from pipelines.catalogue import EXPORTED_SENSORS
from sdpcontroller.control import Listener, ProductRecord, TaskSensor


@functools.lru_cache(maxsize=1000)
def metric_name(kind: str, sensor: str) -> str:
    """Return what Prometheus calls a sensor of a kind of program."""
    return f"sdp_task_{kind}_{sensor}".replace("-", "_").replace(".", "_")


class Exported(Listener):
    """The newest values of the task sensors that the catalogue declares for export."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, str]] = {}
        """Of the tasks that live, by product and task."""
        self._values: dict[str, dict[tuple[str, str], float]] = {}
        """By product, then by task and sensor."""

    def product_changed(self, record: ProductRecord) -> None:
        """Learn the tasks; forget those that are gone or dead."""
        kinds = {t.name: t.kind for t in record.tasks.values() if t.state != "dead"}
        gone = self._kinds.get(record.name, {}).keys() - kinds.keys()
        self._kinds[record.name] = kinds
        if gone:
            values = self._values.get(record.name, {})
            self._values[record.name] = {k: v for k, v in values.items() if k[0] not in gone}

    def product_gone(self, name: str) -> None:
        """Forget a product."""
        self._kinds.pop(name, None)
        self._values.pop(name, None)

    def sensor_changed(self, sensor: TaskSensor) -> None:
        """Keep a reading, if it is declared and a number."""
        kind = self._kinds.get(sensor.product, {}).get(sensor.task)
        if kind is None or sensor.name not in EXPORTED_SENSORS.get(kind, {}):
            return
        values, key = self._values.setdefault(sensor.product, {}), (sensor.task, sensor.name)
        if sensor.status in ("unknown", "unreachable", "inactive") or sensor.value is None:
            values.pop(key, None)
            return
        with suppress(TypeError, ValueError):
            values[key] = float(sensor.value)

    def system_changed(self) -> None:
        """Nothing of the system is kept here."""

    def collect(self) -> Iterable[Metric]:
        """Yield one family for each sensor that has values, as they are when this begins."""
        found: dict[str, tuple[str, list[tuple[str, str, float]]]] = {}
        for product, values in self._values.items():
            for (task, sensor), value in values.items():
                kind = self._kinds[product][task]
                help_text = EXPORTED_SENSORS[kind][sensor]
                _, readings = found.setdefault(metric_name(kind, sensor), (help_text, []))
                readings.append((product, task, value))
        for name, (help_text, readings) in found.items():
            family = GaugeMetricFamily(name, help_text, labels=["product", "task"])
            for product, task, value in readings:
                family.add_metric([product, task], value)
            yield family
