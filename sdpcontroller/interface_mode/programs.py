"""What stands in for a program: a KATCP server that says yes, with sensors as the program has them.

Without postponed annotations: aiokatcp reads those of request handlers when the class is made.
"""

from typing import Any, Final

import aiokatcp

from pipelines.catalogue import CORRELATOR, EXPORTED_SENSORS
from scheduler.listening import begin, stop_accepting

HEAPS: Final = "input-heaps-total"
"""The sensor that grows while a capture is on, where there is one."""


class StandInProgram(aiokatcp.DeviceServer):
    """Answers what the controller asks of programs, at once.

    Parameters
    ----------
    kind
        Kind of program, as in the catalogue.
    host, port
        Where it listens; port 0 takes a free one.
    """

    VERSION = "sdp-interface-mode-1.0"
    BUILD_STATE = "sdp-interface-mode-1.0"

    def __init__(self, kind: str, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port)
        self.block: aiokatcp.Sensor[str] = _sensor(str, "capture-block-id", "Capture block")
        status: aiokatcp.Sensor[aiokatcp.DeviceStatus] = aiokatcp.Sensor(
            aiokatcp.DeviceStatus,
            "device-status",
            "State of the program",
            default=aiokatcp.DeviceStatus.OK,
            initial_status=aiokatcp.Sensor.Status.NOMINAL,
        )
        self.transmitting: aiokatcp.Sensor[bool] = _sensor(
            bool, "transmitting", "Whether heaps are being sent"
        )
        for sensor in (self.block, status):
            self.sensors.add(sensor)
        if kind == CORRELATOR.kind:
            self.sensors.add(self.transmitting)
        for name, description in EXPORTED_SENSORS.get(kind, {}).items():
            whole = not name.endswith(("fraction", "rate", "rms"))
            self.sensors.add(_sensor(int if whole else float, name, description))

    async def start(self) -> None:
        """Begin to listen; it is as if nothing had been when that is cancelled."""
        await begin(super().start(), self.stop)

    async def stop(self, cancel: bool = True) -> None:
        """Stop, and take leave of all clients."""
        await stop_accepting(self.sockets)
        await super().stop(cancel)

    def tick(self) -> None:
        """Let time pass: heaps come in while a capture is on."""
        heaps = self.sensors.get(HEAPS)
        if heaps is not None and self.block.value:
            heaps.value += 1

    async def request_capture_init(self, ctx: aiokatcp.RequestContext, cbid: str) -> None:
        """Begin a capture block."""
        if self.block.value:
            raise aiokatcp.FailReply(f"capture block {self.block.value} is on: capture-done first")
        self.block.value = cbid
        self.transmitting.value = True

    async def request_capture_done(self, ctx: aiokatcp.RequestContext) -> None:
        """End the capture block."""
        if not self.block.value:
            raise aiokatcp.FailReply("no capture block is on")
        self.block.value = ""
        self.transmitting.value = False

    async def request_capture_start(self, ctx: aiokatcp.RequestContext, stream: str) -> None:
        """Send data of a stream."""
        self._transmit(on=True)

    async def request_capture_stop(self, ctx: aiokatcp.RequestContext, stream: str) -> None:
        """Send no data of a stream."""
        self._transmit(on=False)

    def _transmit(self, *, on: bool) -> None:
        if not self.block.value:
            raise aiokatcp.FailReply("no capture block is under way: send ?capture-init first")
        self.transmitting.value = on

    async def request_target(self, ctx: aiokatcp.RequestContext, target: str) -> None:
        """Point the array."""


def _sensor(kind: type[Any], name: str, description: str) -> aiokatcp.Sensor[Any]:
    return aiokatcp.Sensor(kind, name, description, initial_status=aiokatcp.Sensor.Status.NOMINAL)
