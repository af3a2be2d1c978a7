"""The reference page of the figures, from what is declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from prometheus_client.core import Metric

from pipelines.catalogue import EXPORTED_SENSORS
from sdpcontroller.control import ControlPlane, SystemRecord
from sdpcontroller.metrics.counted import Metrics
from sdpcontroller.metrics.exported import Exported, metric_name
from sdpcontroller.metrics.records import ControlCollector

_INTRODUCTION: Final = """\
# Figures for Prometheus

<!-- Made from the code by `python -m sdpcontroller.metrics`: change that, not this page. -->

`sdp master --metrics-port PORT` answers `http://127.0.0.1:PORT/metrics` (and `/health`). Histograms have
`_bucket`, `_sum` and `_count`. Outcomes of commands and requests: `ok`, `refused` (the caller's fault),
`failed` (ours), `abandoned`.

"""


class _Nothing:
    """A control plane of which nothing is known."""

    offers_held = 0

    def products(self) -> Mapping[str, Any]:
        """Return none."""
        return {}

    def agents(self) -> Sequence[Any]:
        """Return none."""
        return ()

    def system(self) -> SystemRecord:
        """Return what is known before anything is."""
        return SystemRecord("INIT", "ON", "disconnected", "")

    def queues(self) -> Sequence[Any]:
        return ()

    def waiting(self) -> Mapping[str, Sequence[float]]:
        """Return no queues."""
        return {}


def reference_page() -> str:
    """Return the page, in Markdown."""
    nothing = _Nothing()
    control = cast(ControlPlane, nothing)
    read = ControlCollector(control, Exported(), nothing).collect()
    return _INTRODUCTION + "\n".join(
        (
            *_table("Counted as it happens", Metrics().registry.collect()),
            *_table("Read when somebody asks", read),
            *_task_sensors(),
        )
    )


def _table(title: str, families: Iterable[Metric]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| name | kind | labels | meaning |\n| --- | --- | --- | --- |"
    for family in sorted(families, key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield f"| `{name}` | {family.type} | {_labels(family.name)} | {family.documentation} |"
    yield ""


def _labels(name: str) -> str:
    return ", ".join(f"`{label}`" for label in LABELS.get(name, ()))


LABELS: Final[Mapping[str, Sequence[str]]] = {
    **Metrics().labels,
    **dict.fromkeys(
        ("sdp_products", "sdp_capture_blocks", "sdp_tasks", "sdp_agents", "sdp_system_state"),
        ("state",),
    ),
    **dict.fromkeys(("sdp_queue_length", "sdp_queue_oldest_seconds"), ("queue",)),
}
"""By the name of the family; a family without samples does not tell."""


def _task_sensors() -> Iterator[str]:
    yield "## Sensors of tasks\n"
    yield "Gauges with the labels `product` and `task`, as long as the task tells a number.\n"
    yield "| name | meaning |\n| --- | --- |"
    for kind, sensors in EXPORTED_SENSORS.items():
        for sensor, meaning in sensors.items():
            yield f"| `{metric_name(kind, sensor)}` | {meaning} |"
    yield ""
