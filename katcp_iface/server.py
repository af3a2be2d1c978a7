"""The KATCP façade: starts and stops the server, and ties it to the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from katcp_iface.bounded import Limits, Observed
from katcp_iface.cluster_requests import SystemRequests
from katcp_iface.mirror import SensorMirror
from scheduler.listening import begin, stop_accepting
from sdpcontroller.control import ControlPlane

DEFAULT_PORT: Final = 5001
"""Where clients expect the master controller."""
_REFRESH: Final = 0.5
"""Seconds between two looks at what no event tells of: the agents, and clients that do not read."""

_STOP_GRACE: Final = 1.0
"""Seconds that clients have to read what is left for them when the server stops."""


class Facade(SystemRequests):
    """The device server with all requests."""


class KatcpServer:
    """Serves a control plane over KATCP.

    Parameters
    ----------
    control
        What is served.
    host, port
        Where to listen; port 0 takes any, see :attr:`address`.
    gui_urls
        Pages that a person can open, for the sensor of that name: objects with ``title``, ``description`` and
        ``href``.
    limits
        What clients may use.
    observed
        Is told of every request that was answered.
    """

    def __init__(
        self,
        control: ControlPlane,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        gui_urls: Sequence[Mapping[str, str]] = (),
        limits: Limits = Limits(),  # noqa: B008  # frozen
        observed: Observed | None = None,
    ) -> None:
        self._control = control
        self._server = Facade(control, host, port, limits, observed)
        self._mirror = SensorMirror(self._server, control, gui_urls)
        self._unlisten: Callable[[], None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on.

        Raises
        ------
        RuntimeError
            If it does not.
        """
        if not self._server.sockets:
            raise RuntimeError("the KATCP server is not started")
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def start(self) -> None:
        """Show what there is as sensors, then listen.

        Raises
        ------
        OSError
            If the address cannot be listened on.
        """
        with self._mirror.quiet():
            self._unlisten = self._control.listen(self._mirror)
        try:
            await self._mirror.catch_up()
            await begin(self._server.start(), self._server.stop)
        except BaseException:
            self._stop_listening()
            raise
        self._server.add_service_task(asyncio.create_task(self._refresh(), name="katcp agents"))

    async def stop(self) -> None:
        """Answer the requests in progress (with a failure), take leave of the clients, and close."""
        self._stop_listening()
        await stop_accepting(self._server.sockets)
        # aiokatcp waits until every client has read what was sent to it, for ever if it does not read.
        loop = asyncio.get_running_loop()
        cut_off = loop.call_later(_STOP_GRACE, self._server.abort_clients)
        try:
            await self._server.stop()
        finally:
            cut_off.cancel()

    async def join(self) -> None:
        """Wait until the server has stopped; raises what made it stop, if it was not :meth:`stop`."""
        await self._server.join()

    def _stop_listening(self) -> None:
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        self._mirror.close()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH)
            self._mirror.refresh()
            self._server.cut_off_slow()
            self._server.count_malformed()
