"""The standard requests for many sensors at once, answered piece by piece.

Annotations are evaluated here, unlike in other modules: aiokatcp decodes arguments by them.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

import aiokatcp
from aiokatcp.server import RequestContext

from katcp_iface.bounded import BoundedServer
from katcp_iface.patterns import PatternError, compiled

PIECE: Final = 500
"""Informs that are written before others have their turn, and before the client must have read them."""
SEARCH_SECONDS: Final = 5.0
"""For which the sensors of a pattern are looked for."""
TURN_SECONDS: Final = 0.01
"""After which others have their turn."""


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


def _pieces(sensors: Sequence[aiokatcp.Sensor[Any]]) -> Iterator[Sequence[aiokatcp.Sensor[Any]]]:
    return (sensors[first : first + PIECE] for first in range(0, len(sensors), PIECE))


async def _breathe(ctx: RequestContext) -> None:
    await ctx.drain()
    await asyncio.sleep(0)
