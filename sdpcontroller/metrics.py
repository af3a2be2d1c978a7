"""Figures for Prometheus: what the controller did, what there is, and how the event loop keeps up.

What can be read off records when somebody asks is read then; only what happens is counted as it happens.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

import prometheus_client as prometheus
from aiohttp import web
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.catalogue import EXPORTED_SENSORS
from sdpcontroller.control import (
    AgentRecord,
    CaptureBlockState,
    Command,
    ControlPlane,
    Listener,
    ProductRecord,
    ProductState,
    StreamRecord,
    SystemRecord,
    TaskSensor,
)
from sdpcontroller.errors import ControllerError

R = TypeVar("R")

_COMMAND_BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_LAG_BUCKETS: Final = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.3, 1)
LAG_PERIOD: Final = 0.25
"""Seconds between two looks at the event loop."""
SYSTEM_STATES: Final = ("INIT", "ON", "DISABLE", "STANDBY", "OFF", "ALARM", "FAULT", "UNKNOWN")


class Metrics:
    """The figures of one controller."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._commands = prometheus.Histogram(
            "sdp_command_seconds",
            "Time from a command to its reply",
            ["command", "outcome"],
            buckets=_COMMAND_BUCKETS,
            registry=self.registry,
        )
        self._lag = prometheus.Histogram(
            "sdp_loop_lag_seconds",
            "How late the event loop was with what was due",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self._worst = prometheus.Gauge(
            "sdp_loop_lag_max_seconds", "The worst since the start", registry=self.registry
        )
        self._started = prometheus.Gauge(
            "sdp_start_time_seconds", "Unix time of the start", registry=self.registry
        )
        self._started.set(time.time())
        self.worst_lag = 0.0
        """Seconds."""

    def observe_command(self, command: str, outcome: str, seconds: float) -> None:
        """Count a command: `outcome` is ok, refused (the caller's fault) or failed (ours)."""
        self._commands.labels(command, outcome).observe(seconds)

    def observe_lag(self, seconds: float) -> None:
        """Count a look at the event loop."""
        self._lag.observe(seconds)
        if seconds > self.worst_lag:
            self.worst_lag = seconds
            self._worst.set(seconds)

    async def watch_loop(self) -> None:
        """Look at the event loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_PERIOD
            await asyncio.sleep(LAG_PERIOD)
            self.observe_lag(max(0.0, loop.time() - due))

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return prometheus.generate_latest(self.registry)


class MeasuredControl:
    """A control plane that counts the commands that pass through it."""

    def __init__(self, control: ControlPlane, metrics: Metrics) -> None:
        self._control = control
        self._metrics = metrics

    async def execute(self, command: Command[R]) -> R:
        """Do what the command says, and count it."""
        begin, outcome = time.monotonic(), "failed"
        try:
            reply = await self._control.execute(command)
            outcome = "ok"
        except ControllerError:
            outcome = "refused"
            raise
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        else:
            return reply
        finally:
            name = _snake(type(command).__name__)
            self._metrics.observe_command(name, outcome, time.monotonic() - begin)

    def products(self) -> Mapping[str, ProductRecord]:
        """All products that are not dead, by name."""
        return self._control.products()

    def agents(self) -> Sequence[AgentRecord]:
        """All agents known, by host."""
        return self._control.agents()

    def streams(self) -> Sequence[StreamRecord]:
        """All streams of simulated correlators."""
        return self._control.streams()

    def system(self) -> SystemRecord:
        """Return the state of the whole."""
        return self._control.system()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Register a listener."""
        return self._control.listen(listener)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


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
            name = f"sdp_task_{kind}_{sensor}".replace("-", "_").replace(".", "_")
            family = families.get(name)
            if family is None:
                help_text = EXPORTED_SENSORS[kind][sensor]
                family = families[name] = GaugeMetricFamily(
                    name, help_text, labels=["product", "task"]
                )
            family.add_metric([product, task], value)
        return families.values()


class ControlCollector(Collector):
    """Reads the records when somebody asks."""

    def __init__(self, control: ControlPlane, exported: Exported) -> None:
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
        connected = GaugeMetricFamily("sdp_mesos_connected", "Whether a Mesos master is connected")
        connected.add_metric([], float(system.mesos_state == "connected"))
        yield connected
        yield from self._exported.collect()


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


@asynccontextmanager
async def serve(metrics: Metrics, host: str, port: int) -> AsyncIterator[int]:
    """Answer ``/metrics`` and ``/health`` until the context ends; gives the port (0 takes a free one).

    Raises
    ------
    OSError
        The address cannot be listened on.
    """

    async def figures(request: web.Request) -> web.Response:
        return web.Response(
            body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    async def health(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", figures)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def attach(control: ControlPlane, metrics: Metrics) -> Callable[[], None]:
    """Let the records of a control plane be read when somebody asks; the returned function ends it."""
    exported = Exported()
    collector = ControlCollector(control, exported)
    metrics.registry.register(collector)
    unlisten = control.listen(exported)

    def detach() -> None:
        unlisten()
        metrics.registry.unregister(collector)

    return detach
