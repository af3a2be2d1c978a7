"""Calibration's KATCP server: dumps to scans, scans to solutions."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiokatcp
import numpy as np
import numpy.typing as npt
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.calibration.publish import publish_solutions
from pipelines.calibration.scan import ParallelHands, Scan, ScanDump, dump_bytes, keep
from pipelines.calibration.solver import Applied, Products, Solutions, choose_refant, solve_scan
from pipelines.calibration.targets import Calibrator, calibrator_at, flux_density
from pipelines.common import telstate as ts
from pipelines.common.l0 import Dump
from pipelines.common.l0.server import L0_QUALITY, L0Input, L0Server

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CalSettings:
    """How to calibrate."""

    stream: str
    """Name of the calibration stream."""
    buffer_time: float
    """Longest scan that is kept whole, s; of a longer one the newest part is."""
    g_solint: float = 0.0
    """Interval of the gains, s; 0 for one solution per dump."""
    preferred_refants: Sequence[str] = ()
    """Reference antennas in order of preference; the first that has data is taken, or else the best."""

    def buffer_dumps(self, int_time: float) -> int:
        """Dumps in the buffer of a scan."""
        return max(1, math.ceil(self.buffer_time / int_time))

    def dumps_per_gain(self, int_time: float) -> int:
        """Whole dumps in a solution interval."""
        return max(1, round(self.g_solint / int_time))


def scan_buffer_bytes(settings: CalSettings, n_chans: int, n_antennas: int, int_time: float) -> int:
    """Memory of the visibilities of two scans, bytes: one is filled while the other is solved."""
    return 2 * settings.buffer_dumps(int_time) * dump_bytes(n_chans, n_antennas)


@dataclass(slots=True)
class _Block:
    """What is known of the block in progress."""

    cbid: str
    buffer: deque[ScanDump]
    calibrator: Calibrator | None = None
    applied: Applied = field(default_factory=Applied)
    refant: int | None = None
    dropped: int = 0
    """Dumps of the scan in progress that the buffer had no room for."""
    solving: asyncio.Task[None] | None = None


class CalServer(L0Server):
    """Solves the calibrator scans of every capture block and publishes the solutions."""

    STAGE = "calibration"
    QUALITY = (
        *L0_QUALITY,
        "solutions-k",
        "solutions-b",
        "solutions-g",
        "phase-rms",
        "scans-unsolved",
        "dumps-dropped",
    )

    def __init__(
        self,
        options: argparse.Namespace,
        telstate: TelescopeState,
        source: L0Input,
        settings: CalSettings,
    ) -> None:
        super().__init__(options, telstate, source)
        self._settings = settings
        self._hands = ParallelHands.of(source.stream.bls_ordering)
        self._freqs = source.stream.channel_freqs
        self._counts = {
            product: self.add_sensor(int, f"solutions-{product.lower()}", f"{name} solutions")
            for product, name in (("K", "Delay"), ("B", "Bandpass"), ("G", "Gain"))
        }
        self._refant = self.add_sensor(str, "reference-antenna", "Antenna of phase 0")
        self._rms = self.add_sensor(
            float,
            "phase-rms",
            "Phase of the last calibrated scan, averaged over the band",
            units="rad",
        )
        self._unsolved = self.add_sensor(int, "scans-unsolved", "Scans without a solution")
        self._no_flux = self.add_sensor(int, "scans-without-flux", "Scans solved with 1 Jy assumed")
        self._dropped = self.add_sensor(
            int, "dumps-dropped", "Dumps of scans longer than the buffer"
        )
        self._depth = self.add_sensor(int, "buffer-dumps", "Dumps of the scan in progress")

    async def capture(self, cbid: str, dumps: AsyncIterator[Dump]) -> None:
        """Collect the scans of calibrators and have each solved when it ends."""
        stream = self.source.stream
        limit = self._settings.buffer_dumps(stream.int_time)
        block = _Block(cbid, deque(maxlen=limit))
        try:
            async for dump in dumps:
                await self._take(block, dump, stream.sync_time + dump.timestamp)
            await self._end_scan(block)
            if block.solving is not None:
                await block.solving
        finally:
            if block.solving is not None:
                block.solving.cancel()

    async def _take(self, block: _Block, dump: Dump, time: float) -> None:
        """Put a dump of a calibrator into the buffer; end the scan before when it is another's."""
        try:
            calibrator = await calibrator_at(self.telstate, time, self.layout.int_time)
            if calibrator != block.calibrator:
                await self._end_scan(block)
                block.calibrator = calibrator
            if calibrator is not None:
                kept = await asyncio.to_thread(keep, dump, time, self._hands, self.layout.n_chans)
                self._buffer(block, kept)
        finally:
            dump.release()

    def _buffer(self, block: _Block, dump: ScanDump) -> None:
        if len(block.buffer) == block.buffer.maxlen:
            block.dropped += 1
            self._dropped.set_value(self._dropped.value + 1, status=aiokatcp.Sensor.Status.WARN)
            if block.dropped == 1:
                logger.warning("scan longer than the buffer: its oldest dumps are dropped")
        block.buffer.append(dump)
        self._depth.value = len(block.buffer)

    async def _end_scan(self, block: _Block) -> None:
        """Start to solve what is in the buffer; one scan at a time."""
        if block.solving is not None:
            await block.solving
            block.solving = None
        if block.calibrator is not None and block.buffer:
            dumps = block.buffer
            block.buffer = deque(maxlen=dumps.maxlen)
            block.solving = asyncio.create_task(self._solve(block, block.calibrator, dumps))
        block.buffer.clear()
        block.calibrator = None
        block.dropped = 0
        self._depth.value = 0

    async def _solve(self, block: _Block, calibrator: Calibrator, dumps: deque[ScanDump]) -> None:
        n_dumps = len(dumps)
        flux, known = flux_density(calibrator.description, self._freqs)
        if not known:
            logger.warning("%s has no flux model in this band: 1 Jy assumed", calibrator.name)
            _warn(self._no_flux)
        outcome = await asyncio.to_thread(
            self._solve_in_thread, calibrator.products, dumps, flux, block.applied, block.refant
        )
        if outcome is None:
            logger.warning("scan of %s: too little data for a solution", calibrator.name)
            _warn(self._unsolved)
            return
        solutions, block.applied = outcome
        if solutions.empty:
            logger.warning("scan of %s: no solution", calibrator.name)
            _warn(self._unsolved)
            return
        if block.refant is None:
            await self._publish_refant(block, solutions.refant)
        counts = await publish_solutions(
            self.telstate, self._settings.stream, block.cbid, solutions
        )
        for product, count in counts.items():
            self._counts[product].value += count
        self._rms.value = solutions.phase_rms
        logger.info(
            "scan of %s, %d dumps: %s, phase rms %.3f rad",
            calibrator.name,
            n_dumps,
            ", ".join(f"{count} {product}" for product, count in counts.items()),
            solutions.phase_rms,
        )

    async def _publish_refant(self, block: _Block, refant: int) -> None:
        block.refant = refant
        self._refant.value = self._hands.antennas[refant]
        view = self.telstate.view(self.telstate.join(block.cbid, self._settings.stream))
        await ts.publish(view, "refant", self._refant.value)

    def _solve_in_thread(
        self,
        wanted: Products,
        dumps: deque[ScanDump],
        flux: npt.NDArray[np.float64],
        applied: Applied,
        refant: int | None,
    ) -> tuple[Solutions, Applied] | None:
        scan = Scan.of(dumps, self._hands, self._freqs, flux)
        if refant is None:
            refant = choose_refant(scan, self._settings.preferred_refants)
        if refant is None:
            return None
        per_gain = self._settings.dumps_per_gain(self.layout.int_time)
        return solve_scan(scan, wanted, applied, refant, per_gain)


def _warn(sensor: aiokatcp.Sensor[int]) -> None:
    sensor.set_value(sensor.value + 1, status=aiokatcp.Sensor.Status.WARN)
