"""Keeps a server's sensors in step with the records of the control plane."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, ParamSpec

import aiokatcp

from katcp_iface.aggregates import Aggregates, task_counts
from katcp_iface.readings import (
    DEVICE_STATUS,
    TASK_SENSORS,
    Pages,
    Shown,
    derived_status,
    mirrored_sensor,
    product_sensors,
    system_sensors,
    task_sensors,
)
from sdpcontroller.control import ControlPlane, ProductRecord, TaskRecord, TaskSensor

logger = logging.getLogger(__name__)
P = ParamSpec("P")

MAX_MIRRORED: Final = 1000
"""Sensors of one task that are mirrored; what it publishes beyond is dropped, and logged once."""
INFORM_INTERVAL: Final = 1.0
"""Seconds between two ``#interface-changed`` informs at least."""
INFORM_DELAY: Final = 0.05
"""Seconds that a first change waits for others that come with it."""
REFRESH_DELAY: Final = 0.1
"""Seconds after which news of a product's tasks count for what concerns the whole."""
TASKS_AT_ONCE: Final = 32
"""Tasks that are shown before the loop goes on; hundreds change together, and each has some sensors."""
MIRROR_PERIOD: Final = 0.5
"""Seconds between two updates of a mirrored sensor under the strategy ``auto`` at least."""
MIRROR_LONGEST: Final = 60.0
"""Seconds after which such an update is repeated."""
_SENSOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\[\]-]{0,199}")


def _contained(method: Callable[P, None]) -> Callable[P, None]:
    """Log what goes wrong in a listener: a façade's fault must not stop the controller in mid-act."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            logger.exception("sensors could not follow %s", method.__name__)

    return wrapper


class InterfaceChanged:
    """Tells all clients that sensors came or went: soon, once for many, and not too often."""

    def __init__(self, server: aiokatcp.DeviceServer) -> None:
        self._server = server
        self._handle: asyncio.TimerHandle | None = None
        self._last = float("-inf")

    def mark(self) -> None:
        """Note a change; the inform follows."""
        if self._handle is None:
            loop = asyncio.get_running_loop()
            when = max(loop.time() + INFORM_DELAY, self._last + INFORM_INTERVAL)
            self._handle = loop.call_at(when, self._send)

    def _send(self) -> None:
        self._handle = None
        self._last = asyncio.get_running_loop().time()
        self._server.mass_inform("interface-changed", "sensor-list")

    def close(self) -> None:
        """Forget a change that was not told yet."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class SensorMirror:
    """A :class:`~sdpcontroller.control.Listener` that shows records as sensors."""

    def __init__(
        self,
        server: aiokatcp.DeviceServer,
        control: ControlPlane,
        gui_urls: Sequence[Mapping[str, str]],
    ) -> None:
        self._sensors = server.sensors
        self._control = control
        self._pages = Pages(gui_urls)
        self._aggregates = Aggregates()
        self._changed = InterfaceChanged(server)
        self._products: dict[str, ProductRecord] = {}
        self._shown: dict[str, dict[str, TaskRecord]] = {}
        """Tasks as their sensors are, by product and name."""
        self._ours: dict[tuple[str, str], set[str]] = {}
        """Names of the sensors that the controller has of a task, by product and task."""
        self._mirrored: dict[tuple[str, str], set[str]] = {}
        """Names of the sensors that are mirrored, by product and task."""
        self._overflowed: set[tuple[str, str]] = set()
        self._due: dict[tuple[str, str], None] = {}
        """Product and task, in order, of what changed and is not shown yet."""
        self._showing: asyncio.Handle | None = None
        self._refreshing: asyncio.TimerHandle | None = None
        self._quiet = False

    @_contained
    def product_changed(self, record: ProductRecord) -> None:
        """Show a product and those of its tasks that differ from what is shown; of many tasks, some soon."""
        old = self._products.get(record.name)
        self._products[record.name] = record
        self._show(product_sensors(record))
        self._show(task_counts(record))
        shown = self._shown.setdefault(record.name, {})
        before = shown.keys() if old is None else shown.keys() | old.tasks.keys()
        for name in before - record.tasks.keys():
            shown.pop(name, None)
            self._drop_task(record.name, name)
        for name, task in record.tasks.items():
            if shown.get(name) != task:
                self._due[record.name, name] = None
        if self._showing is None:
            self._show_due()
        if old is None or old.state is not record.state:
            self.refresh()
        elif self._refreshing is None:  # tasks of many products change one after the other
            loop = asyncio.get_running_loop()
            self._refreshing = loop.call_later(REFRESH_DELAY, self.refresh)

    @_contained
    def _show_due(self) -> None:
        """Show the first of the tasks that are due, as they are now, and go on with the rest soon."""
        _cancel(self._showing)
        self._showing = None
        now = tuple(itertools.islice(self._due, TASKS_AT_ONCE))
        for key in now:
            del self._due[key]
        if self._due:
            self._showing = asyncio.get_running_loop().call_soon(self._show_due)
        for product, name in now:
            record = self._products.get(product)
            task = record.tasks.get(name) if record is not None else None
            if task is not None and self._show_task(product, task):
                self._shown[product][name] = task

    async def catch_up(self) -> None:
        """Wait until all is shown that has changed up to now."""
        for _ in range(math.ceil(len(self._due) / TASKS_AT_ONCE)):
            self._show_due()
            await asyncio.sleep(0)

    @_contained
    def product_gone(self, name: str) -> None:
        """Remove a product's sensors."""
        record = self._products.pop(name, None)
        self._shown.pop(name, None)
        if record is not None:
            for task in record.tasks:
                self._drop_task(name, task)
            self._remove(shown.name for shown in product_sensors(record))
            self._remove(shown.name for shown in task_counts(record))
            self._remove(self._aggregates.forget(name))
        self.refresh()

    @_contained
    def sensor_changed(self, sensor: TaskSensor) -> None:
        """Mirror a task's sensor."""
        record = self._products.get(sensor.product)
        if record is None or sensor.task not in record.tasks:
            return  # a reading that was under way when the task went
        if sensor.name in TASK_SENSORS or not _SENSOR_NAME.fullmatch(sensor.name):
            return
        key = (sensor.product, sensor.task)
        shown = mirrored_sensor(sensor)
        if sensor.name == DEVICE_STATUS:  # the task's own goes before what was derived
            self._ours.get(key, set()).discard(shown.name)
        if shown.name in self._ours.get(key, ()):
            return  # a port of this name is shown
        names = self._mirrored.setdefault(key, set())
        if shown.name not in names and len(names) >= MAX_MIRRORED:
            self._note_overflow(key)
            return
        names.add(shown.name)
        self._show([shown])
        combined = self._aggregates.taken(sensor)
        if combined is not None:
            self._show([combined])

    @_contained
    def system_changed(self) -> None:
        """Show the state of the whole."""
        self.refresh()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Show what concerns the whole once, at the end, however many products are told of meanwhile."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
        self.refresh()

    def refresh(self) -> None:
        """Show what concerns the whole, agents included."""
        if self._quiet:
            return
        _cancel(self._refreshing)
        self._refreshing = None
        control, pages = self._control, self._pages.text(self._products)
        agents, queues = control.agents(), control.queues()
        self._show(system_sensors(control.system(), self._products, agents, pages, queues))

    def close(self) -> None:
        """Show no more, and send no more informs."""
        self._changed.close()
        self._due.clear()
        _cancel(self._showing)
        self._showing = None
        _cancel(self._refreshing)
        self._refreshing = None

    def _show_task(self, product: str, task: TaskRecord) -> bool:
        key = (product, task.name)
        wanted = list(task_sensors(product, task))
        names = {shown.name for shown in wanted}
        self._remove(self._ours.get(key, set()) - names)
        mirrored = self._mirrored.get(key, set())
        mirrored.difference_update(names)
        if f"{product}.{task.name}.{DEVICE_STATUS}" not in mirrored | names:
            reading = derived_status(product, task, time.time())
            wanted.append(mirrored_sensor(reading))
            names.add(wanted[-1].name)
            self._show(filter(None, [self._aggregates.taken(reading)]))
        self._ours[key] = names
        return self._show(wanted)

    def _drop_task(self, product: str, task: str) -> None:
        key = (product, task)
        self._remove(self._ours.pop(key, set()))
        self._remove(self._mirrored.pop(key, set()))
        self._overflowed.discard(key)
        self._show(list(self._aggregates.without(product, task)))

    def _note_overflow(self, key: tuple[str, str]) -> None:
        if key not in self._overflowed:
            self._overflowed.add(key)
            logger.warning(
                "%s.%s has more than %d sensors: the rest are dropped", *key, MAX_MIRRORED
            )

    def _show(self, wanted: Iterable[Shown]) -> bool:
        """Show all of these; whether that worked: one that cannot be shown keeps no other from it."""
        well = True
        for shown in wanted:
            try:
                self._show_one(shown)
            except Exception:
                logger.exception("sensor %s cannot be shown", shown.name)
                well = False
        return well

    def _show_one(self, shown: Shown) -> None:
        sensor = self._sensors.get(shown.name)
        if (
            sensor is None
            or sensor.stype is not shown.kind
            or sensor.description != shown.description
        ):
            sensor = _make(shown)
            self._sensors.add(sensor)
            self._changed.mark()
        value = sensor.value if shown.value is None else shown.value
        if shown.timestamp is not None or (value, shown.status) != (sensor.value, sensor.status):
            sensor.set_value(value, shown.status, shown.timestamp)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            if self._sensors.pop(name, None) is not None:
                self._changed.mark()


def _cancel(handle: asyncio.Handle | None) -> None:
    """Cancel what was to happen, if anything was."""
    if handle is not None:
        handle.cancel()


def _make(shown: Shown) -> aiokatcp.Sensor[Any]:
    default = aiokatcp.Address.parse(b"0.0.0.0") if shown.kind is aiokatcp.Address else None
    if not shown.limited:
        return aiokatcp.Sensor(shown.kind, shown.name, shown.description, shown.units, default)
    return aiokatcp.Sensor(
        shown.kind,
        shown.name,
        shown.description,
        shown.units,
        default,
        auto_strategy=aiokatcp.SensorSampler.Strategy.EVENT_RATE,
        auto_strategy_parameters=(MIRROR_PERIOD, MIRROR_LONGEST),
    )
