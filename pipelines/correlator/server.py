"""KATCP of the correlator simulator.

aiokatcp reads the annotations of requests, so this module must not postpone them.
"""

import argparse

import aiokatcp
from aiokatcp import FailReply, RequestContext, Sensor

from pipelines.common.errors import PipelineError
from pipelines.common.program import ProgramServer, check_capture_block_id
from pipelines.correlator.faults import Fate
from pipelines.correlator.simulator import Progress, Simulator


class CorrelatorServer(ProgramServer):
    """Requests and sensors; what they mean is `Simulator`'s."""

    def __init__(self, options: argparse.Namespace, wall_dump: float) -> None:
        """`wall_dump` is the wall time of a dump, s; 0 where dumps are never late."""
        super().__init__(options)
        self._simulator: Simulator | None = None
        self._wall_dump = wall_dump
        self._dumps = self.add_sensor(int, "dumps-sent", "Dumps sent (prometheus: counter)")
        self._heaps = self.add_sensor(int, "heaps-sent", "Heaps sent whole (prometheus: counter)")
        self._bytes = self.add_sensor(
            int, "bytes-sent", "Bytes of packets sent (prometheus: counter)", units="B"
        )
        self._rate = self.add_sensor(
            float, "rate", "Rate over the last dump (prometheus: gauge)", units="Gb/s"
        )
        self._behind = self.add_sensor(
            float, "behind", "How late the last dump was (prometheus: gauge)", units="s"
        )
        self._target = self.add_sensor(str, "target", "Where the array is pointed")
        self._block = self.add_sensor(str, "capture-block-id", "Capture block, empty for none")
        self._transmitting = self.add_sensor(bool, "transmitting", "Whether heaps are being sent")
        self._finished = self.add_sensor(
            bool, "replay-finished", "Whether a recording has been sent to its end"
        )
        self._fates = {
            fate: self.add_sensor(
                int, f"heaps-{fate.value}", f"Heaps {fate.value} on purpose (prometheus: counter)"
            )
            for fate in Fate
            if fate is not Fate.SENT
        }

    def attach(self, simulator: Simulator) -> None:
        """Serve a simulator; before the server is started."""
        self._simulator = simulator
        if simulator.target is not None:
            self._target.value = simulator.target.description

    @property
    def simulator(self) -> Simulator:
        """The simulator that is served."""
        if self._simulator is None:
            raise RuntimeError("attach() comes before start()")
        return self._simulator

    def update(self, progress: Progress) -> None:
        """Set the sensors to how far transmission is."""
        self._dumps.value = progress.dumps
        self._heaps.value = progress.heaps
        self._bytes.value = progress.bytes
        self._rate.value = progress.rate * 1e-9
        self._finished.value = progress.finished
        for fate, sensor in self._fates.items():
            sensor.value = progress.fates.get(fate, 0)
        late = self._wall_dump > 0 and progress.behind > self._wall_dump
        self._behind.set_value(
            progress.behind, Sensor.Status.WARN if late else Sensor.Status.NOMINAL
        )
        self.set_device_status(
            aiokatcp.DeviceStatus.DEGRADED if late else aiokatcp.DeviceStatus.OK,
            f"{progress.behind:.3f} s behind the clock",
        )

    def _show_transmitting(self) -> None:
        self._transmitting.value = self.simulator.transmitting

    async def request_target(self, ctx: RequestContext, description: str) -> str:
        """Point the array at a target (?target katpoint-description); holds from the next dump."""
        try:
            target = self.simulator.point(description)
        except PipelineError as exc:
            raise FailReply(str(exc)) from exc
        self._target.value = target.description
        return str(target.description)

    async def request_capture_init(self, ctx: RequestContext, cbid: str) -> None:
        """Begin to send dumps of a capture block (?capture-init CBID)."""
        check_capture_block_id(cbid)
        try:
            task = await self.simulator.capture_init(cbid)
        except PipelineError as exc:
            raise FailReply(str(exc)) from exc
        self._block.value = cbid
        self._show_transmitting()
        # A failure of the task halts the server.
        self.add_service_task(task)

    async def request_capture_done(self, ctx: RequestContext) -> tuple[int, int]:
        """End the capture block; replies when all is sent, with the numbers of dumps and of heaps."""
        try:
            return await self.simulator.capture_done()
        except PipelineError as exc:
            raise FailReply(str(exc)) from exc
        finally:
            self._block.value = ""
            self._show_transmitting()

    async def request_capture_start(self, ctx: RequestContext, stream: str = "") -> None:
        """Send heaps again after capture-stop (?capture-start [STREAM])."""
        self._switch(stream, on=True)

    async def request_capture_stop(self, ctx: RequestContext, stream: str = "") -> None:
        """Stop sending heaps; the observation goes on (?capture-stop [STREAM])."""
        self._switch(stream, on=False)

    def _switch(self, stream: str, *, on: bool) -> None:
        known = self.simulator.source.stream.name
        if stream not in ("", known):
            raise FailReply(f"no stream {stream!r:.60}: this program sends {known!r}")
        if not self._block.value:
            raise FailReply("no capture block is under way: send ?capture-init first")
        self.simulator.transmitting = on
        self._show_transmitting()

    async def on_stop(self) -> None:
        """Stop sending."""
        await self.simulator.close()
