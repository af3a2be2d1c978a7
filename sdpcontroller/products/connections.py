"""KATCP links to the tasks of a product: requests with deadlines, and their sensors mirrored."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiokatcp
from aiokatcp.client import AbstractSensorWatcher, SyncState

from scheduler.breath import Ration
from sdpcontroller.control import TaskSensor
from sdpcontroller.errors import CommandError
from sdpcontroller.products.task_client import TaskClient

logger = logging.getLogger(__name__)

_DECODERS: Final[dict[str, type]] = {
    "integer": int,
    "float": float,
    "boolean": bool,
    "timestamp": aiokatcp.Timestamp,
    "address": aiokatcp.Address,
}
"""Python type by KATCP type; everything else is text."""

MAX_SENSORS: Final = 1000
"""Sensors mirrored of one task; what it declares beyond is not mirrored, and logged once."""

_NOT_LEADING: Final = 0.05
"""Seconds between two looks whether this controller leads again."""

_SETTLING: Final = 0.5
"""Seconds for which the beginning of a link is waited for."""

_CLOSING: Final = 2.0
"""Seconds for which the end of a link is waited for."""

SensorCallback = Callable[[TaskSensor], None]


@dataclass(frozen=True, slots=True)
class _Declared:
    description: str
    units: str
    type_name: str
    params: tuple[str, ...]


class _Mirror(AbstractSensorWatcher):
    """Turns what a task says of its sensors into :class:`TaskSensor` readings."""

    def __init__(
        self, product: str, task: str, callback: SensorCallback, settled: Callable[[], None]
    ) -> None:
        self._settled = settled
        self._product = product
        self._task = task
        self._callback = callback
        self._declared: dict[str, _Declared] = {}
        self._overflowed = False

    def sensor_added(
        self, name: str, description: str, units: str, type_name: str, *args: bytes
    ) -> None:
        """Remember what the task says of a sensor, as far as there is room."""
        if len(self._declared) >= MAX_SENSORS and name not in self._declared:
            if not self._overflowed:
                logger.warning(
                    "%s of %s has more than %d sensors: the rest are not mirrored",
                    self._task,
                    self._product,
                    MAX_SENSORS,
                )
            self._overflowed = True
            return
        params = tuple(arg.decode(errors="replace") for arg in args)
        self._declared[name] = _Declared(description, units, type_name, params)

    def sensor_removed(self, name: str) -> None:
        """Tell that a sensor cannot be reached any more."""
        declared = self._declared.pop(name, None)
        if declared is not None:
            self._emit(name, declared, None, "unreachable", time.time())

    def sensor_updated(
        self, name: str, value: bytes, status: aiokatcp.Sensor.Status, timestamp: float
    ) -> None:
        """Tell a reading (`timestamp` in Unix seconds); one that is not of its type is dropped."""
        declared = self._declared.get(name)
        if declared is None:
            return
        try:
            decoded: Any = aiokatcp.decode(_DECODERS.get(declared.type_name, str), value)
        except ValueError as exc:
            logger.warning("%s of %s: sensor %s: %s", self._task, self._product, name, exc)
            return
        self._emit(name, declared, decoded, status.name.lower(), timestamp)

    def state_updated(self, state: SyncState) -> None:
        """Note that all readings are here, or that none can be had."""
        if state is SyncState.SYNCED:
            self._settled()
        if state is SyncState.DISCONNECTED:
            for name, declared in self._declared.items():
                self._emit(name, declared, None, "unreachable", time.time())

    def _emit(
        self, name: str, declared: _Declared, value: Any, status: str, timestamp: float
    ) -> None:
        self._callback(
            TaskSensor(
                product=self._product,
                task=self._task,
                name=name,
                description=declared.description,
                units=declared.units,
                type_name=declared.type_name,
                params=declared.params,
                status=status,
                value=value,
                timestamp=timestamp,
            )
        )


class TaskConnection:
    """The KATCP link to one task; reconnects by itself as long as it is open."""

    def __init__(
        self,
        product: str,
        task: str,
        host: str,
        port: int,
        callback: SensorCallback | None,
        may_act: Callable[[], bool] = lambda: True,
        reading: Ration | None = None,
    ) -> None:
        self.task = task
        self._may_act = may_act
        self._endpoint = f"{host}:{port}"
        self._closed = False
        self._limits: set[asyncio.Timeout] = set()
        self._settled = asyncio.Event()
        self._client = TaskClient(host, port, reading)
        self._client.add_failed_connect_callback(lambda _: self._settled.set())
        if callback is not None:
            self._client.add_sensor_watcher(_Mirror(product, task, callback, self._settled.set))
        else:  # nothing is to be known of it
            self._settled.set()

    async def request(self, name: str, *args: object, timeout: float) -> Sequence[str]:
        """Make a request and return the arguments of its reply.

        Raises
        ------
        CommandError
            If the task refuses, is not reached, or does not answer within `timeout` seconds. While this
            controller does not lead, nothing is sent.
        """
        reply, _ = await self._ask(name, *args, timeout=timeout)
        return [argument.decode(errors="replace") for argument in reply]

    async def sensor(self, name: str, *, timeout: float) -> str:
        """Return the value of a sensor, as text.

        Raises
        ------
        CommandError
            As :meth:`request`; also if there is no such sensor.
        """
        _, informs = await self._ask("sensor-value", name, timeout=timeout)
        # #sensor-value timestamp count name status value
        if len(informs) != 1 or len(informs[0].arguments) != 5:
            raise CommandError(f"{self.task} at {self._endpoint} has no sensor {name}")
        return informs[0].arguments[4].decode(errors="replace")

    async def _ask(
        self, name: str, *args: object, timeout: float
    ) -> tuple[Sequence[bytes], Sequence[aiokatcp.Message]]:
        if self._closed:
            raise CommandError(f"{self.task} at {self._endpoint}: {name}: its link is closed")
        limit = asyncio.timeout(timeout)
        self._limits.add(limit)
        try:
            async with limit:
                await self._client.wait_connected()
                # This process may have slept, or the database is away: no event tells, only a clock.
                while not self._may_act():  # noqa: ASYNC110
                    await asyncio.sleep(_NOT_LEADING)
                return await self._client.request(name, *args)
        except aiokatcp.FailReply as exc:
            raise CommandError(f"{self.task} refused {name}: {exc}") from exc
        except TimeoutError as exc:
            waited = "before its link was closed" if self._closed else f"within {timeout:g} s"
            raise CommandError(
                f"{self.task} at {self._endpoint} did not answer {name} {waited}"
            ) from exc
        except (aiokatcp.InvalidReply, aiokatcp.ProtocolError, OSError) as exc:
            raise CommandError(f"{self.task} at {self._endpoint}: {name} failed: {exc}") from exc
        finally:
            self._limits.discard(limit)

    async def settled(self) -> None:
        """Wait until the first try to connect failed or the sensors are known; not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLING):
                await self._settled.wait()

    def close(self) -> None:
        """Begin to close the link; requests that wait for an answer fail at once.

        It closes by itself, whoever is cancelled meanwhile.
        """
        if self._closed:
            return
        self._closed = True
        self._settled.set()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())
        self._client.close()

    async def wait_closed(self) -> None:
        """Wait until the link is closed; not for long, when the other side takes nothing any more."""
        try:
            async with asyncio.timeout(_CLOSING):
                await self._client.wait_closed()
        except TimeoutError:
            logger.warning("the link to %s at %s does not close", self.task, self._endpoint)
