"""What calibration costs, beside other solvers on the same data.

::

    python3 -m benchmarks.calibration [--antennas 64] [--channels 4096] [--dp3-channels 256]

A calibrator of 1 Jy with all four products, noise of a third of a jansky in a sample; bandpasses that bend by
0.4 rad and some tenths, leakages of two per cent. Printed is CPU time of all threads.

*bandpass*: gains of both polarisations for each channel, and leakages, from the sums of a scan. Beside it the
same gains by StEFCal in numpy, all channels at a time, and by DP3's ``gaincal`` (diagonal), whose own time is
that of its run less that of a run that only reads; both for the parallel hands alone.

*scan*: all that becomes of a scan of eight solution intervals: adding its dumps, delays, bandpass, gains,
leakages; per dump.

The largest difference from DP3 is that of gains, relative, on the same data.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import katpoint
import numpy as np
from numpy.typing import NDArray

from benchmarks import referees
from pipelines.calibration.bandpass import solve_bandpass
from pipelines.calibration.cross_hands import CrossHands
from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.polarisation import solve_polarisation
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Applied, Products
from pipelines.calibration.solver import ScanSolver
from pipelines.calibration.stefcal import MAX_ITERATIONS, solve
from pipelines.calibration.warm_up import warm_up
from pipelines.common.baselines import correlator_ordering
from pipelines.common.l0 import Dump, DumpPart, L0Layout
from pipelines.common.stream_info import VisStream
from pipelines.correlator.meerkat import ENU, antenna_description
from pipelines.writer.describe_ms import Facts, describe
from pipelines.writer.measurement_set import MeasurementSetSink
from pipelines.writer.timeline import timeline

START: Final = 1_577_836_800.0
INT_TIME: Final = 8.0
NOISE: Final = 0.3
N_INTERVALS: Final = 8
REFANT: Final = 0
SOURCE: Final = "cal, radec bpcal, 10:00:00.0, -30:00:00.0, (800 2000 0.0)"


@dataclass(frozen=True)
class Observation:
    """Visibilities of one dump of a calibrator."""

    stream: VisStream
    antennas: tuple[katpoint.Antenna, ...]
    vis: NDArray[np.complex64]
    """(chan, bls)"""
    flags: NDArray[np.uint8]
    """(chan, bls)"""
    weights: NDArray[np.uint8]
    """(chan, bls)"""
    gains: NDArray[np.complex128]
    """(chan, pol, ant), those of the first antenna real."""

    @property
    def dump(self) -> Dump:
        """As received."""
        n_chans = len(self.vis)
        scale = np.full(n_chans, 0.01 / NOISE**2, np.float32)
        part = DumpPart(range(n_chans), self.vis, self.flags, self.weights, scale)
        return Dump(0, INT_TIME / 2, (part,))

    @property
    def sky(self) -> Sky:
        """The calibrator's model."""
        n_chans = self.stream.n_chans
        return Sky(np.ones((2, n_chans)), np.zeros(n_chans, np.complex128))


def observe(
    n_antennas: int, n_chans: int, seed: int = 0, noise: float = NOISE, *, uneven: bool = False
) -> Observation:
    """Simulate a dump; an uneven one has flags, and weights that differ from sample to sample."""
    rng = np.random.default_rng(seed)
    names = sorted(ENU)[:n_antennas]
    stream = VisStream(
        name="sdp_l0",
        n_chans=n_chans,
        bandwidth=856e6,
        center_freq=1284e6,
        sync_time=START,
        int_time=INT_TIME,
        bls_ordering=correlator_ordering(names),
        src_streams=("bcp",),
    )
    shape = (2, n_antennas)
    x = np.linspace(-1, 1, n_chans)[:, np.newaxis, np.newaxis]
    gains = rng.uniform(0.8, 1.2, shape) + 0.2 * x**2 * rng.uniform(-1, 1, shape)
    gains = gains * np.exp(0.4j * np.cos(np.pi * x) * rng.uniform(-1, 1, shape))
    gains = gains * (np.abs(gains) / gains)[..., :1]
    leakage = 0.02 * (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
    vis = np.empty((n_chans, stream.n_bls), np.complex64)
    for index, (a, b) in enumerate(stream.bls_ordering):
        i, j = names.index(a[:-1]), names.index(b[:-1])
        p, q = "hv".index(a[-1]), "hv".index(b[-1])
        seen = 1.0 if p == q else leakage[p, i] + leakage[q, j].conj()
        vis[:, index] = seen * gains[:, p, i] * gains[:, q, j].conj()
    error = rng.standard_normal((*vis.shape, 2), np.float32).view(np.complex64)[..., 0]
    vis += np.float32(noise / np.sqrt(2)) * error
    flags, weights = np.zeros(vis.shape, np.uint8), np.full(vis.shape, 100, np.uint8)
    if uneven:
        # The same for all four products: DP3 looks at the first.
        pairs = (n_chans, stream.n_bls // 4)
        flags[:] = np.repeat(rng.uniform(size=pairs) < 0.05, 4, axis=1)
        weights[:] = np.repeat(rng.integers(20, 200, pairs), 4, axis=1)
    antennas = tuple(katpoint.Antenna(antenna_description(name)) for name in names)
    return Observation(stream, antennas, vis, flags, weights, gains)


# ------------------------------------------------------------------ ours


def scan_of(observation: Observation) -> Interval:
    """Return the sums of a scan of one dump."""
    scan = Interval(Pairs.of(observation.stream.bls_ordering), observation.stream.n_chans)
    scan.add(observation.dump, START)
    return scan


def bandpass(scan: Interval, sky: Sky, freqs: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Solve for all that the four products tell of each channel; return the gains (chan, pol, ant)."""
    gains, _ = solve_bandpass(scan, REFANT)
    cross = CrossHands.of(scan, gains, sky, freqs)
    if cross is not None:
        solve_polarisation(cross, REFANT)
    return gains


def whole_scan(observation: Observation, intervals: list[Interval], scan: Interval) -> None:
    """Go through a scan of as many dumps as there are intervals."""
    everything = Products(delay=True, bandpass=True, gain=True, polarisation=True)
    freqs = observation.stream.channel_freqs
    solver = ScanSolver(scan, freqs, observation.sky, everything, Applied())
    for interval in intervals:
        interval.clear()
        interval.add(observation.dump, START)
    solver.add(intervals)
    if solver.finish() is None:
        raise RuntimeError("the scan was not solved")


# ------------------------------------------------------------------ numpy


def numpy_stefcal(
    vis: NDArray[np.complex64],
    ant1: NDArray[np.int64],
    ant2: NDArray[np.int64],
    n: int,
    tolerance: float,
) -> NDArray[np.complex64]:
    """Solve (chan, P) for gains (chan, ant), of all channels at a time, from 1 on."""
    matrix = np.zeros((len(vis), n, n), np.complex64)
    matrix[:, ant1, ant2] = vis
    matrix[:, ant2, ant1] = vis.conj()
    gains = np.ones((len(vis), n), np.complex64)
    for iteration in range(MAX_ITERATIONS):
        power = np.abs(gains) ** 2
        new = np.matmul(matrix, gains[:, :, np.newaxis])[..., 0]
        new /= power.sum(axis=1, keepdims=True) - power
        if iteration % 2:
            new = 0.5 * (new + gains)
            change = np.abs(new - gains) ** 2
            done = change.sum(axis=1) <= tolerance**2 * (np.abs(new) ** 2).sum(axis=1)
            if done.all():
                break
        gains = new
    turn: NDArray[np.complex64] = new[:, REFANT].conj() / np.abs(new[:, REFANT])
    return new * turn[:, np.newaxis]


# ------------------------------------------------------------------ DP3


def write_measurement_set(observation: Observation, path: Path) -> None:
    """Write the dump as a MeasurementSet, by our own writer."""
    stream = observation.stream
    sink = MeasurementSetSink(path, stream, L0Layout(stream.n_chans, stream.n_bls, 1, INT_TIME))
    sink.write(observation.dump)
    seen = timeline([(SOURCE, START - 1)], [("track", START - 1)], sink.times(), INT_TIME)
    describe(sink, Facts(observation.antennas, "", ""), seen)
    sink.finish()


def by_dp3(observation: Observation, folder: Path) -> tuple[NDArray[np.complex128], float]:
    """Return the gains (chan, pol, ant) that DP3 solves for, and the CPU seconds of its solver.

    Raises
    ------
    referees.RefereeError
        It is not installed, or failed.
    """
    referees.environment("dp3")
    write_measurement_set(observation, folder / "cal.ms")
    (folder / "cal.skymodel").write_text(
        "FORMAT = Name, Type, Ra, Dec, I\ncal, POINT, 10:00:00.0, -30.00.00.0, 1.0\n"
    )
    reading = _cpu_of_children(
        lambda: referees.run_dp3(["msin=cal.ms", "msout=", "steps=[]"], folder)
    )
    solving = _cpu_of_children(
        lambda: referees.run_dp3(
            [
                *("msin=cal.ms", "msout=", "steps=[gaincal]", "gaincal.caltype=diagonal"),
                *("gaincal.sourcedb=cal.skymodel", "gaincal.parmdb=gains.h5", "gaincal.nchan=1"),
                *(
                    "gaincal.solint=1",
                    "gaincal.tolerance=1e-7",
                    f"gaincal.maxiter={MAX_ITERATIONS}",
                ),
            ],
            folder,
        )
    )
    return _gains_of(folder / "gains.h5", observation), solving - reading


def _gains_of(path: Path, observation: Observation) -> NDArray[np.complex128]:
    """Read an H5parm: amplitudes and phases by time, frequency, antenna and polarisation."""
    with h5py.File(path) as parm:
        tables = parm["sol000"]
        parts = {}
        for kind in ("amplitude", "phase"):
            values = tables[f"{kind}000"]["val"]
            axes = values.attrs["AXES"].decode().split(",")
            order = [axes.index(axis) for axis in ("time", "freq", "pol", "ant")]
            parts[kind] = np.asarray(values).transpose(order)[0]
            names = [name.decode() for name in tables[f"{kind}000"]["ant"][:]]
    gains = parts["amplitude"] * np.exp(1j * parts["phase"])
    gains = gains[..., [names.index(antenna.name) for antenna in observation.antennas]]
    turned: NDArray[np.complex128] = gains * (np.abs(gains) / gains)[..., REFANT : REFANT + 1]
    return turned


# ------------------------------------------------------------------ the table


def _cpu_of_children(work: Callable[[], Any]) -> float:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    work()
    return used() - before


def cpu_of(work: Callable[[], Any], repeats: int = 3) -> float:
    """Return the least CPU seconds that this process used for something."""
    taken = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        taken.append(time.process_time() - before)
    return min(taken)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--antennas", type=int, default=64, help="[%(default)s]")
    parser.add_argument("--channels", type=int, default=4096, help="[%(default)s]")
    parser.add_argument(
        "--dp3-channels", type=int, default=256, help="that DP3 solves, scaled up [%(default)s]"
    )
    options = parser.parse_args()
    n, n_chans = options.antennas, options.channels
    warm_up()
    observation = observe(n, n_chans)
    freqs = observation.stream.channel_freqs
    scan = scan_of(observation)
    pairs = scan.pairs
    print(
        f"{n} antennas, {n_chans} channels, 4 products, SNR {1 / NOISE:.1f} a sample; CPU seconds"
    )

    def hands() -> None:
        for pol in range(2):
            vis, weights = scan.sums[pol], scan.weights[pol]
            solve(vis, weights, pairs.ant1, pairs.ant2, n, REFANT, near_one=True)

    ours = cpu_of(lambda: bandpass(scan, observation.sky, freqs))
    parallel = cpu_of(hands)
    chosen = scan.sums[:2] / scan.weights[:2]
    reference = cpu_of(
        lambda: [numpy_stefcal(vis, pairs.ant1, pairs.ant2, n, 1e-6) for vis in chosen], 1
    )
    print(f"bandpass, 4 products               {ours:8.3f}")
    print(f"  the parallel hands of it         {parallel:8.3f}")
    print(f"  those by numpy                   {reference:8.3f}   ratio {parallel / reference:.3f}")
    try:
        _compare_with_dp3(n, options.dp3_channels, n_chans, parallel)
    except referees.RefereeError as exc:
        print(f"  by DP3: {exc}")
    intervals = [Interval(pairs, n_chans) for _ in range(N_INTERVALS)]
    whole_scan(observation, intervals, scan)
    taken = cpu_of(lambda: whole_scan(observation, intervals, scan), 1)
    print(f"scan of {N_INTERVALS} dumps, per dump           {taken / N_INTERVALS:8.3f}")


def _compare_with_dp3(n_antennas: int, n_chans: int, of: int, parallel: float) -> None:
    observation = observe(n_antennas, n_chans)
    with tempfile.TemporaryDirectory() as name:
        theirs, used = by_dp3(observation, Path(name))
    scan = scan_of(observation)
    ours = bandpass(scan, observation.sky, observation.stream.channel_freqs)
    difference = np.abs(ours / theirs - 1)
    rms = np.sqrt((difference**2).mean())
    scaled = used * of / n_chans
    print(
        f"  those by DP3, {n_chans:4} channels scaled {scaled:8.3f}   ratio {parallel / scaled:.3f}"
    )
    print(f"  largest difference from DP3      {difference.max():8.1e}   rms {rms:.1e}")


if __name__ == "__main__":
    main()
