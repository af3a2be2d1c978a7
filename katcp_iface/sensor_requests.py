"""The standard requests for many sensors at once, answered piece by piece.

Annotations are evaluated here, unlike in other modules: aiokatcp decodes arguments by them.
"""

import asyncio
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, TypeVar

import aiokatcp
from aiokatcp.sensor import SensorSampler
from aiokatcp.server import ClientConnection, RequestContext

from katcp_iface.bounded import BoundedServer
from katcp_iface.patterns import PatternError, compiled

T = TypeVar("T")

PIECE: Final = 500
"""Informs that are written before others have their turn, and before the client must have read them."""
SEARCH_SECONDS: Final = 5.0
"""For which the sensors of a pattern are looked for."""
TURN_SECONDS: Final = 0.01
"""After which others have their turn."""
MAX_READINGS: Final = 5000.0
"""Readings a second that one client may be sent by the clock, whether values change or not."""
_TIMES: Final = {
    SensorSampler.Strategy.PERIOD: 0,
    SensorSampler.Strategy.EVENT_RATE: 0,
    SensorSampler.Strategy.DIFFERENTIAL_RATE: 1,
}
"""Strategies with times, and which of their parameters is the first of these; the last is the longest time."""


class SensorRequests(BoundedServer):
    """Twenty thousand sensors are listed without holding anybody up."""

    async def _chosen(self, name: str | None) -> list[aiokatcp.Sensor[Any]]:
        """Return the sensors that a client means; looking for them holds nobody up."""
        if name is None or not (len(name) > 1 and name.startswith("/") and name.endswith("/")):
            return self._get_sensors(name)
        try:
            pattern = compiled(name[1:-1])
        except PatternError as exc:
            raise aiokatcp.FailReply(str(exc)) from exc
        loop = asyncio.get_running_loop()
        begun = turn = loop.time()
        found = []
        for sensor in sorted(self.sensors.values(), key=lambda sensor: sensor.name):
            if pattern.search(sensor.name):
                found.append(sensor)
            if (now := loop.time()) - begun > SEARCH_SECONDS:
                raise aiokatcp.FailReply(f"the search takes longer than {SEARCH_SECONDS:g} s")
            if now - turn > TURN_SECONDS:
                await asyncio.sleep(0)
                turn = loop.time()
        return found

    async def request_sensor_list(self, ctx: RequestContext, name: str | None = None) -> int:
        """List the sensors.

        Parameters
        ----------
        name : str, optional
            Name of a sensor; between slashes, a regular expression for a part of the names.

        Informs
        -------
        name : str
            Name of the sensor.
        description : str
            What it shows.
        units : str
            Units of its value.
        type : str
            Its KATCP type.
        params : list of str
            Words of a discrete type.

        Returns
        -------
        informs : int
            Number of sensors.
        """
        sensors = await self._chosen(name)
        for piece in _pieces(sensors):
            ctx.informs(
                ((s.name, s.description, s.units, s.type_name, *s.params) for s in piece),
                send_reply=False,
            )
            await _breathe(ctx)
        return len(sensors)

    async def request_sensor_value(self, ctx: RequestContext, name: str | None = None) -> None:
        """List values of sensors.

        Parameters
        ----------
        name : str, optional
            Name of a sensor; between slashes, a regular expression for a part of the names.

        Informs
        -------
        timestamp : float
            Unix time of the reading, seconds.
        count : {1}
            Sensors in this inform.
        name : str
            Name of the sensor.
        status : {unknown, nominal, warn, error, failure, unreachable, inactive}
            How good the value is.
        value : object
            The value, as its type is written.

        Returns
        -------
        informs : int
            Number of sensors.
        """
        sensors = await self._chosen(name)
        for piece in _pieces(sensors):
            ctx.informs(
                ((s.timestamp, 1, s.name, s.status, s.value) for s in piece), send_reply=False
            )
            await _breathe(ctx)
        ctx.reply(aiokatcp.Message.OK, len(sensors))

    async def request_sensor_sampling(
        self,
        ctx: RequestContext,
        name: str,
        strategy: SensorSampler.Strategy | None = None,
        *args: bytes,
    ) -> tuple[Any, ...]:
        """Set how readings of sensors are sent to this client, or say how they are.

        Parameters
        ----------
        name : str
            Name of a sensor; to set, also several with commas in between.
        strategy : {none, auto, event, differential, period, event-rate, differential-rate}, optional
            When a reading is sent: never; as the sensor has it; at every change; at a change by more than
            params[0]; every params[0] seconds; at a change, but at least params[0] and at most params[1]
            seconds after the one before; the same of a change by more than params[0], with params[1] and
            params[2].
        params : list of str, optional
            Parameters of the strategy. Readings that are sent by the clock may be 5000 a second of a client.

        Returns
        -------
        name : str
            The names.
        strategy : str
            The strategy.
        params : list of str
            Its parameters.
        """
        if strategy is None:
            return await super().request_sensor_sampling(ctx, name)
        names = name.split(",")
        self._check_times(ctx.conn, set(names), strategy, args)
        if len(names) > PIECE:
            await self._check_names(names)
        for piece in _pieces(names):  # of many names, some may have gone since they were checked
            some = piece if len(names) <= PIECE else [n for n in piece if n in self.sensors]
            if some:
                reply = await super().request_sensor_sampling(ctx, ",".join(some), strategy, *args)
        return (name, *reply[1:])

    async def _check_names(self, names: Sequence[str]) -> None:
        """Refuse what aiokatcp would refuse, before anything is done for the first of many."""
        if len(set(names)) != len(names):
            raise aiokatcp.FailReply("Duplicate sensor name")
        for piece in _pieces(names):
            for name in piece:
                if name not in self.sensors:
                    raise aiokatcp.FailReply(f"Unknown sensor {name!r}")
            await asyncio.sleep(0)

    def _check_times(
        self,
        conn: ClientConnection,
        names: Collection[str],
        strategy: SensorSampler.Strategy,
        args: Sequence[bytes],
    ) -> None:
        """Refuse times that are none, and so many readings that the client would hold others up."""
        if strategy not in _TIMES:
            return
        times = [_time(arg) for arg in args[_TIMES[strategy] :]]
        if not times or times[-1] == 0:
            return  # aiokatcp refuses that
        self._take_readings(conn, names, len(names) / times[-1])

    def _take_readings(self, conn: ClientConnection, names: Collection[str], rate: float) -> None:
        """Add readings a second to those of a client, or refuse them."""
        lane = self._lanes.get(conn)
        if lane is None:
            return  # the client has gone
        lane.readings += rate
        if lane.readings <= MAX_READINGS:
            return
        # Of what was added up before, much may have been replaced or have gone.
        others = (
            1 / sampler.longest
            for sensor, sampler in self._samplers(conn)
            if sampler.longest and sensor.name not in names
        )
        before = sum(others)
        lane.readings = before
        if before + rate > MAX_READINGS:
            raise aiokatcp.FailReply(
                f"it would be {before + rate:.0f} readings a second for this client: at most "
                f"{MAX_READINGS:.0f} are sent; ask for longer times, or for changes (event)"
            )
        lane.readings += rate

    def _samplers(
        self, conn: ClientConnection
    ) -> Iterator[tuple[aiokatcp.Sensor[Any], SensorSampler[Any]]]:
        for sensor in self.sensors.values():
            if (sampler := conn.get_sampler(sensor)) is not None:
                yield sensor, sampler


def _time(argument: bytes) -> float:
    """Read a time of a strategy, in seconds."""
    try:
        time = float(aiokatcp.decode(aiokatcp.Timestamp, argument))
    except ValueError as exc:
        raise aiokatcp.FailReply(str(exc)) from exc
    if not 0 <= time < math.inf:
        told = argument.decode(errors="replace")[:40]
        raise aiokatcp.FailReply(f"{told!r} is no time: seconds were expected, 0 or more")
    return time


def _pieces(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[first : first + PIECE] for first in range(0, len(things), PIECE))


async def _breathe(ctx: RequestContext) -> None:
    await ctx.drain()
    await asyncio.sleep(0)
