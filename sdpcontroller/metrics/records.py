"""What is read off the records when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.policy import Queue
from sdpcontroller.control import CaptureBlockState, ControlPlane, ProductState
from sdpcontroller.metrics.exported import Exported

SYSTEM_STATES: Final = ("INIT", "ON", "DISABLE", "STANDBY", "OFF", "ALARM", "FAULT", "UNKNOWN")


class Queues(Protocol):
    """What waits in the scheduler."""

    def queues(self) -> Sequence[Queue]:
        """Return the queues in which graphs can wait."""

    def waiting(self) -> Mapping[str, Sequence[float]]:
        """Return for how long the graphs in each queue that is not empty wait, seconds."""

    @property
    def offers_held(self) -> int:
        """How many offers are held at the moment."""


class ControlCollector(Collector):
    """Reads the records when somebody asks."""

    def __init__(self, control: ControlPlane, exported: Exported, queues: Queues | None) -> None:
        self._queues = queues
        self._control = control
        self._exported = exported

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        products = self._control.products().values()
        tasks = [task for product in products for task in product.tasks.values()]
        blocks = [state for product in products for state in product.capture_blocks.values()]
        yield _counts(
            "sdp_products", "Products", (p.state.value for p in products), _words(ProductState)
        )
        yield _counts(
            "sdp_capture_blocks",
            "Capture blocks",
            (state.value for state in blocks),
            _words(CaptureBlockState),
        )
        yield _counts("sdp_tasks", "Tasks of products", (task.state for task in tasks), ())
        states = (agent.state for agent in self._control.agents())
        yield _counts("sdp_agents", "Agents", states, ("up", "draining", "quarantined", "lost"))
        system = self._control.system()
        yield _counts("sdp_system_state", "Reported state", (system.state,), SYSTEM_STATES)
        connected = system.mesos_state == "connected"
        yield _gauge("sdp_mesos_connected", "Whether a Mesos master is connected", connected)
        yield _gauge("sdp_standbys", "Controllers that stand by to take over", len(system.standbys))
        if self._queues is not None:
            yield from _queue_figures(self._queues)
        yield from self._exported.collect()


def _queue_figures(queues: Queues) -> Iterable[Metric]:
    length = GaugeMetricFamily("sdp_queue_length", "Graphs that wait for a place", labels=["queue"])
    oldest = GaugeMetricFamily(
        "sdp_queue_oldest_seconds", "How long the first of them waits", labels=["queue"]
    )
    waiting = {**{queue.name: () for queue in queues.queues()}, **queues.waiting()}
    for queue, seconds in waiting.items():
        length.add_metric([queue], len(seconds))
        oldest.add_metric([queue], max(seconds, default=0.0))
    yield length
    yield oldest
    yield _gauge("sdp_offers_held", "Offers of Mesos that are held", queues.offers_held)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], float(value))
    return family


def _words(kind: type[ProductState] | type[CaptureBlockState]) -> tuple[str, ...]:
    return tuple(member.value for member in kind)


def _counts(
    name: str, what: str, states: Iterable[str], always: Sequence[str]
) -> GaugeMetricFamily:
    """Return a gauge by state; the states of `always` are there with 0, so that alerts can be written."""
    family = GaugeMetricFamily(name, f"{what}, by state", labels=["state"])
    for state, count in {**dict.fromkeys(always, 0), **Counter(states)}.items():
        family.add_metric([state], count)
    return family
