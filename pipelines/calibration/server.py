"""Calibration's KATCP server: dumps to solution intervals, intervals to scans, scans to solutions."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiokatcp
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.calibration.flux import FluxScale
from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.publish import COUNTED, load_applied, publish_solutions
from pipelines.calibration.refant import Reference
from pipelines.calibration.report.record import BlockRecord
from pipelines.calibration.report.writing import ReportWriter
from pipelines.calibration.settings import CalMemory, CalSettings
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Applied, Solutions
from pipelines.calibration.solver import ScanSolver
from pipelines.calibration.targets import Calibrator, calibrator_at
from pipelines.common import telstate as ts
from pipelines.common.l0 import Dump
from pipelines.common.l0.server import L0_QUALITY, L0Input, L0Server

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Scan:
    """The scan in progress."""

    calibrator: Calibrator
    intervals: list[Interval] = field(default_factory=list)
    """Filled, or being filled, and not yet handed to the solver."""
    solver: ScanSolver | None = None
    n_dumps: int = 0
    start: float = 0.0
    """Unix s, its first dump."""


@dataclass(slots=True)
class _Block:
    """What is known of the block in progress."""

    record: BlockRecord
    applied: Applied
    reference: Reference | None
    flux: FluxScale = field(default_factory=FluxScale)
    scan: _Scan | None = None
    solving: asyncio.Task[None] | None = None

    @property
    def cbid(self) -> str:
        """Of the block."""
        return self.record.cbid


class CalServer(L0Server):
    """Solves the calibrator scans of every capture block and publishes the solutions."""

    STAGE = "calibration"
    QUALITY = (
        *L0_QUALITY,
        *(f"solutions-{product.lower()}" for product in COUNTED),
        "phase-rms",
        "scans-unsolved",
        "dumps-merged",
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
        self._pairs = Pairs.of(source.stream.bls_ordering)
        self._freqs = source.stream.channel_freqs
        int_time = source.stream.int_time
        self._dumps_per_gain = settings.dumps_per_gain(int_time)
        self._memory = CalMemory(self._pairs, source.stream.n_chans, settings.batch(int_time))
        self._counts = {
            product: self.add_sensor(int, f"solutions-{product.lower()}", f"{name} solutions")
            for product, name in COUNTED.items()
        }
        self._refant = self.add_sensor(str, "reference-antenna", "Antenna of phase 0")
        self._why = self.add_sensor(str, "reference-antenna-why", "Why it is the reference antenna")
        self._rms = self.add_sensor(
            float,
            "phase-rms",
            "Phase of the last calibrated scan, averaged over the band",
            units="rad",
        )
        self._unsolved = self.add_sensor(int, "scans-unsolved", "Scans without a solution")
        self._no_flux = self.add_sensor(int, "scans-without-flux", "Scans solved with 1 Jy assumed")
        self._merged = self.add_sensor(
            int, "dumps-merged", "Dumps put into the interval before, as solving did not keep up"
        )
        self._depth = self.add_sensor(
            int, "buffer-intervals", "Solution intervals that wait to be solved"
        )
        newest = self.add_sensor(str, "report", "File with the newest report")
        self._reports = ReportWriter(getattr(options, "data", None), newest)

    @property
    def antennas(self) -> tuple[str, ...]:
        """In the order of solutions."""
        return self._pairs.antennas

    async def capture(self, cbid: str, dumps: AsyncIterator[Dump]) -> None:
        """Add up the scans of calibrators, solve them as they go and when they end."""
        stream = self.source.stream
        block = await self._resume(cbid)
        try:
            async for dump in dumps:
                await self._take(block, dump, stream.sync_time + dump.timestamp)
            await self._end_scan(block)
            await self._solved(block)
            await self._publish_flux(block)
            self._reports.start(block.record)
        finally:
            if block.solving is not None:
                block.solving.cancel()
            self._give_back(block)

    async def _resume(self, cbid: str) -> _Block:
        """Begin a block, with what an earlier life of this program has found in it."""
        stream = self._settings.stream
        record = BlockRecord(cbid, stream, self.antennas, self._freqs)
        applied, refant = await load_applied(self.telstate, stream, cbid)
        if refant not in self.antennas:
            return _Block(record, applied, None)
        logger.info("capture block %s goes on, reference antenna %s", cbid, refant)
        reference = Reference(self.antennas.index(refant), "that of this block before")
        return _Block(record, applied, reference)

    async def _take(self, block: _Block, dump: Dump, time: float) -> None:
        """Add a dump of a calibrator to an interval; end the scan before when it is another's."""
        try:
            calibrator = await calibrator_at(self.telstate, time, self.layout.int_time)
            if block.scan is not None and calibrator != block.scan.calibrator:
                await self._end_scan(block)
            if calibrator is not None:
                scan = block.scan = block.scan or _Scan(calibrator, start=time)
                interval = self._interval(block, scan)
                await asyncio.to_thread(interval.add, dump, time)
                scan.n_dumps += 1
        finally:
            dump.release()

    def _interval(self, block: _Block, scan: _Scan) -> Interval:
        """Return the interval that the next dump goes into; a batch that is full is handed to the solver."""
        newest = scan.intervals[-1] if scan.intervals else None
        if newest is not None and len(newest.times) < self._dumps_per_gain:
            return newest
        if newest is not None and len(scan.intervals) == self._memory.batch:
            if block.solving is not None and not block.solving.done():
                # Solving does not keep up. An interval that becomes longer costs less than a dump that is lost.
                _warn(self._merged)
                return newest
            self._hand_over(block, scan, last=False)
        scan.intervals.append(self._memory.free.pop())
        self._depth.value = len(scan.intervals)
        return scan.intervals[-1]

    async def _end_scan(self, block: _Block) -> None:
        """Start to solve what is left of a scan, and its end; one at a time."""
        scan, block.scan = block.scan, None
        if scan is not None:
            await self._solved(block)
            self._hand_over(block, scan, last=True)

    def _hand_over(self, block: _Block, scan: _Scan, *, last: bool) -> None:
        if block.solving is not None and not block.solving.cancelled():
            block.solving.result()  # what failed must not be passed over
        batch, scan.intervals = scan.intervals, []
        self._depth.value = 0
        block.solving = asyncio.create_task(self._solve(block, scan, batch, last=last))

    async def _solved(self, block: _Block) -> None:
        """Wait for the solver."""
        if block.solving is not None:
            await block.solving
            block.solving = None

    def _give_back(self, block: _Block) -> None:
        """Have all intervals at hand again, whatever became of the block."""
        if block.scan is not None:
            for interval in block.scan.intervals:
                interval.clear()
            self._memory.free += block.scan.intervals
            block.scan = None

    async def _solve(
        self, block: _Block, scan: _Scan, batch: list[Interval], *, last: bool
    ) -> None:
        """Solve a batch; after the last, publish what the scan gave."""
        work = asyncio.get_running_loop().run_in_executor(None, self._add, block, scan, batch)
        # Whoever does not wait any more, the intervals are in use until the thread is through.
        work.add_done_callback(lambda _: self._memory.free.extend(batch))
        solver = await asyncio.shield(work)
        if last:
            outcome = await asyncio.to_thread(solver.finish)
            await self._conclude_scan(block, scan, solver, outcome)

    def _add(self, block: _Block, scan: _Scan, batch: Sequence[Interval]) -> ScanSolver:
        """Add a batch to a scan's solver, the first to a new one; in a thread: its memory is large."""
        try:
            if scan.solver is None:
                scan.solver = ScanSolver(
                    self._memory.scan,
                    self._freqs,
                    Sky.of(scan.calibrator.description, self._freqs),
                    scan.calibrator.products,
                    block.applied,
                    block.reference,
                    self._settings.preferred_refants,
                    self._settings.channels,
                )
            if batch:
                scan.solver.add(batch)
            return scan.solver
        finally:
            for interval in batch:
                interval.clear()

    async def _conclude_scan(
        self,
        block: _Block,
        scan: _Scan,
        solver: ScanSolver,
        outcome: tuple[Solutions, Applied] | None,
    ) -> None:
        name = scan.calibrator.name
        if not solver.sky.known:
            logger.warning("%s has no flux model in this band: 1 Jy assumed", name)
            _warn(self._no_flux)
        if outcome is None or solver.reference is None or outcome[0].empty:
            why = "too little data for a solution" if outcome is None else "no solution"
            logger.warning("scan of %s: %s", name, why)
            _warn(self._unsolved)
            block.record.fail(name, scan.n_dumps, why, scan.start)
            return
        solutions, block.applied = outcome
        if block.reference is None or self._refant.value != self.antennas[block.reference.antenna]:
            await self._publish_refant(block, solver.reference)
        stream = self._settings.stream
        counts = await publish_solutions(self.telstate, stream, block.cbid, solutions)
        for product, count in counts.items():
            self._counts[product].value += count
        block.flux.add(name, solutions, known=solver.sky.known)
        block.record.add(name, scan.n_dumps, solutions, counts)
        self._rms.value = solutions.phase_rms
        logger.info(
            "scan of %s, %d dumps: %s, phase rms %.3f rad",
            name,
            scan.n_dumps,
            ", ".join(f"{count} {product}" for product, count in counts.items() if count),
            solutions.phase_rms,
        )

    async def _publish_refant(self, block: _Block, reference: Reference) -> None:
        block.reference = reference
        block.record.refant, block.record.why = self.antennas[reference.antenna], reference.why
        self._refant.value = self.antennas[reference.antenna]
        self._why.value = reference.why
        view = self.telstate.view(self.telstate.join(block.cbid, self._settings.stream))
        await ts.publish(view, "refant", self._refant.value)

    async def _publish_flux(self, block: _Block) -> None:
        """Write the flux densities of the calibrators that had no model; katdal scales their gains by them."""
        measured = block.record.measured_flux = block.flux.measured()
        if measured:
            logger.info("flux densities measured: %s", measured)
            view = self.telstate.view(self.telstate.join(block.cbid, self._settings.stream))
            await ts.publish(view, "measured_flux", measured)

    async def on_stop(self) -> None:
        """Finish the block with what has come, and the reports."""
        await super().on_stop()
        await self._reports.finish()


def _warn(sensor: aiokatcp.Sensor[int]) -> None:
    sensor.set_value(sensor.value + 1, status=aiokatcp.Sensor.Status.WARN)
