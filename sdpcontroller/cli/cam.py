"""A KATCP client in the place of the telescope's control system: it asks, and reads sensors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiokatcp

from sdpcontroller.errors import ControllerError

CONNECT_TIMEOUT: Final = 10.0
"""Seconds in which a controller must answer."""


class CamError(ControllerError):
    """The controller refused a request, or cannot be reached."""


class NotAnsweringError(CamError):
    """No controller answers at an address."""


class Cam:
    """One KATCP connection to the controller. An asynchronous context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._endpoint = f"{host}:{port}"
        self._client = aiokatcp.Client(host, port)

    async def __aenter__(self) -> Cam:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._client.wait_connected()
        except BaseException as exc:
            await self._close()
            if isinstance(exc, TimeoutError):
                raise NotAnsweringError(
                    f"no controller answers at {self._endpoint}; is 'sdp master' running there?"
                ) from None
            if isinstance(exc, aiokatcp.ProtocolError):
                raise NotAnsweringError(f"{self._endpoint} is no controller: {exc}") from None
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def _close(self) -> None:
        self._client.close()
        await self._client.wait_closed()

    async def request(self, name: str, *args: object) -> list[str]:
        """Make a request and return the arguments of its reply.

        Raises
        ------
        CamError
            If it is refused, or the connection breaks.
        """
        reply, _ = await self._ask(name, *args)
        return [argument.decode() for argument in reply]

    async def informs(self, name: str, *args: object) -> list[list[str]]:
        """Make a request and return the arguments of each of its informs; raises as :meth:`request`."""
        _, informs = await self._ask(name, *args)
        return [[argument.decode() for argument in inform.arguments] for inform in informs]

    async def _ask(
        self, name: str, *args: object
    ) -> tuple[Sequence[bytes], Sequence[aiokatcp.Message]]:
        try:
            return await self._client.request(name, *args)
        except (aiokatcp.FailReply, aiokatcp.InvalidReply) as exc:
            raise CamError(f"{name} was refused: {exc}") from exc
        except (ConnectionError, OSError) as exc:
            raise CamError(f"{name}: the controller at {self._endpoint} is gone ({exc})") from exc

    async def sensors(self, pattern: str) -> dict[str, str]:
        """Return the values of all sensors whose name matches a regular expression."""
        values: dict[str, str] = {}
        for inform in await self.informs("sensor-value", f"/{pattern}/"):
            # #sensor-value timestamp count name status value
            name, status, value = inform[2:5]
            if status not in ("unknown", "unreachable", "inactive"):
                values[name] = value
        return values

    async def sensor(self, name: str) -> str:
        """Return the value of one sensor, whatever its status."""
        informs = await self.informs("sensor-value", name)
        return informs[0][4]

    async def capture_blocks(self, product: str) -> Mapping[str, str]:
        """Return the state of each capture block of a product."""
        blocks: dict[str, str] = json.loads(await self.sensor(f"{product}.capture-block-state"))
        return blocks

    async def point(self, product: str, simulator: str, target: str) -> None:
        """Point the simulated array; this request goes to the simulator itself."""
        host, _, port = (await self.sensor(f"{product}.{simulator}.katcp")).rpartition(":")
        async with Cam(host, int(port)) as direct:
            await direct.request("target", target)


def number(values: Mapping[str, str], suffix: str) -> int:
    """Add up all integer sensors whose names end with `suffix`."""
    return sum(int(value) for name, value in values.items() if name.endswith(suffix))


def as_json(value: Any) -> str:
    """Write a document as a KATCP argument."""
    return json.dumps(value, separators=(",", ":"))
