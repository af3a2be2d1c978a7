"""The task sensors that the catalogue declares for export."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from prometheus_client.core import GaugeMetricFamily, Metric

from pipelines.catalogue import EXPORTED_SENSORS
from sdpcontroller.control import Listener, ProductRecord, TaskSensor


def metric_name(kind: str, sensor: str) -> str:
    """Return what Prometheus calls a sensor of a kind of program."""
    return f"sdp_task_{kind}_{sensor}".replace("-", "_").replace(".", "_")


class Exported(Listener):
    """The newest values of the task sensors that the catalogue declares for export."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, str], float] = {}
        """By product, task and sensor."""
        self._kinds: dict[tuple[str, str], str] = {}

    def product_changed(self, record: ProductRecord) -> None:
        """Learn the tasks; forget those that are gone or dead."""
        live = {t.name: t.kind for t in record.tasks.values() if t.state != "dead"}
        self._kinds = {k: v for k, v in self._kinds.items() if k[0] != record.name}
        self._kinds |= {(record.name, name): kind for name, kind in live.items()}
        self._keep(lambda product, task: product != record.name or task in live)

    def product_gone(self, name: str) -> None:
        """Forget a product."""
        self._kinds = {k: v for k, v in self._kinds.items() if k[0] != name}
        self._keep(lambda product, task: product != name)

    def _keep(self, wanted: Callable[[str, str], bool]) -> None:
        self._values = {k: v for k, v in self._values.items() if wanted(k[0], k[1])}

    def sensor_changed(self, sensor: TaskSensor) -> None:
        """Keep a reading, if it is declared and a number."""
        kind = self._kinds.get((sensor.product, sensor.task))
        if kind is None or sensor.name not in EXPORTED_SENSORS.get(kind, {}):
            return
        key = (sensor.product, sensor.task, sensor.name)
        if sensor.status in ("unknown", "unreachable", "inactive") or sensor.value is None:
            self._values.pop(key, None)
            return
        with suppress(TypeError, ValueError):
            self._values[key] = float(sensor.value)

    def system_changed(self) -> None:
        """Nothing of the system is kept here."""

    def collect(self) -> Iterable[Metric]:
        """Yield one family for each sensor that has values."""
        families: dict[str, GaugeMetricFamily] = {}
        for (product, task, sensor), value in self._values.items():
            kind = self._kinds[product, task]
            name = metric_name(kind, sensor)
            family = families.get(name)
            if family is None:
                help_text = EXPORTED_SENSORS[kind][sensor]
                family = families[name] = GaugeMetricFamily(
                    name, help_text, labels=["product", "task"]
                )
            family.add_metric([product, task], value)
        return families.values()
