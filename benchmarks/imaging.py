"""Images beside wsclean's: CPU time of whole processes, at a known accuracy.

::

    python3 -m benchmarks.imaging [--dumps 200] [--threads 1] [--only dirty|clean]

Both programs image the same simulated MeasurementSet (`benchmarks.imaging_data`): 64 antennas, 32 channels, 8 s
dumps, five sources and noise; 2048 × 2048 pixels of 1.5″.

*Dirty*: natural weights; the yardstick is wsclean with its default gridder. Accuracy is the largest difference
from a direct transform in double precision, at the sources and at random pixels, of the peak. Ours writes a
FITS image with the fitted beam in it, and neither seeks sources nor draws, as wsclean does not.

*CLEAN*: Briggs 0, down to the same threshold everywhere; the yardstick is wsclean with its w-gridder, whose
accuracy is comparable. The residual's rms is that of all pixels. Ours does everything that it does by default:
sources, picture, report.

CPU time is user and system time of the processes, with equally many threads; on a machine where others compute,
use one, since OpenMP spins.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from astropy.io import fits

from benchmarks.imaging_data import (
    SPEED_OF_LIGHT,
    Simulation,
    write_measurement_set,
)
from pipelines.imaging.geometry import ARCSEC
from pipelines.imaging.source import open_source

SIZE, PIXEL = 2048, 1.5
RANDOM_PIXELS = 55

Image = npt.NDArray[np.float32]


def cpu_of(command: Sequence[str], threads: int) -> float:
    """Run a program and return its CPU seconds, user and system."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{(done.stderr or done.stdout)[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wsclean(data: Path, name: Path, threads: int, *more: str) -> float:
    """Run wsclean; return its CPU seconds."""
    command = ["wsclean", "-j", str(threads), "-name", str(name), "-no-update-model-required"]
    command += ["-size", str(SIZE), str(SIZE), "-scale", f"{PIXEL}asec", "-pol", "i", *more]
    return cpu_of([*command, str(data)], threads)


def ours(data: Path, output: Path, threads: int, *more: str) -> float:
    """Run the imager; return its CPU seconds."""
    command = [sys.executable, "-m", "pipelines.imaging", str(data), "--output", str(output)]
    command += ["--size", str(SIZE), "--pixel", str(PIXEL), "--threads", str(threads), *more]
    return cpu_of(command, threads)


def read(path: Path) -> Image:
    """Pixels of an image, float32 (size, size)."""
    return np.asarray(fits.getdata(path), np.float32).reshape(SIZE, SIZE)


@numba.njit(nogil=True, cache=True)
def _transform(vis, uvw, frequencies, places):  # type: ignore[no-untyped-def] # compiled by numba
    sums = np.zeros(places.shape[0])
    for p in range(places.shape[0]):
        l, m = places[p]  # noqa: E741
        n = math.sqrt(1 - l * l - m * m) - 1
        for row in range(vis.shape[0]):
            path = uvw[row, 0] * l + uvw[row, 1] * m + uvw[row, 2] * n
            for channel in range(frequencies.size):
                phase = 2 * math.pi / SPEED_OF_LIGHT * path * frequencies[channel]
                value = vis[row, channel]
                sums[p] += value.real * math.cos(phase) + value.imag * math.sin(phase)
    return sums


def truth(data: Path, pixels: npt.NDArray[np.int64], directory: Path) -> npt.NDArray[np.float64]:
    """Naturally weighted dirty image at some pixels (row, column), by direct sums in double precision."""
    source = open_source(data, None, applycal=True)
    channels = range(source.observation.frequencies.size)
    offsets = (pixels - SIZE // 2) * PIXEL * ARCSEC
    places = np.stack([-offsets[:, 1], offsets[:, 0]], axis=1)
    with source.read(directory, channels, lambda fraction: None) as spool:
        vis = np.asarray(spool.vis).reshape(-1, len(channels))
        sums = _transform(vis, spool.uvw.reshape(-1, 3), spool.frequencies, places)
        return np.asarray(sums / vis.size, np.float64)


def sample_pixels(simulation: Simulation) -> npt.NDArray[np.int64]:
    """The sources' pixels and random ones, (row, column)."""
    at = np.array([(m, -l) for l, m, *_ in simulation.sky]) / (PIXEL * ARCSEC)  # noqa: E741
    random = np.random.default_rng(3).integers(0, SIZE, (RANDOM_PIXELS, 2))
    return np.concatenate([np.round(at).astype(np.int64) + SIZE // 2, random])


def benchmark_dirty(data: Path, simulation: Simulation, work: Path, threads: int) -> None:
    """Dirty images with natural weights."""
    natural = ("-niter", "0", "-weight", "natural")
    bare = ("--niter", "0", "--weighting", "natural", "--no-picture", "--no-sources")
    used = {
        "wsclean": wsclean(data, work / "default", threads, *natural),
        "wsclean -use-wgridder": wsclean(data, work / "w", threads, "-use-wgridder", *natural),
        "pipelines.imaging": ours(data, work / "dirty", threads, *bare),
    }
    pixels = sample_pixels(simulation)
    expected = truth(data, pixels, work)
    images = ("default-image.fits", "w-image.fits", "dirty/image.fits")
    print(f"dirty image, natural weights, {threads} thread(s)")
    print(f"{'':24}{'CPU s':>8}{'ratio':>8}{'largest error / peak':>24}")
    for (name, seconds), path in zip(used.items(), images, strict=True):
        image = read(work / path)
        error = np.abs(image[pixels[:, 0], pixels[:, 1]] - expected).max() / expected.max()
        print(f"{name:24}{seconds:8.2f}{seconds / used['wsclean']:8.3f}{error:24.2g}")


def benchmark_clean(data: Path, simulation: Simulation, work: Path, args: Any) -> None:
    """CLEANed images with Briggs' weights."""
    threads, threshold = args.threads, f"{args.threshold:g}"
    deep = ("-niter", "1000000", "-mgain", "0.8", "-threshold", threshold, "-weight", "briggs", "0")
    used = {
        "wsclean -use-wgridder": wsclean(data, work / "c", threads, "-use-wgridder", *deep),
        "pipelines.imaging": ours(data, work / "clean", threads, "--threshold", threshold),
    }
    names = (("c-residual.fits", "c-image.fits"), ("clean/image-residual.fits", "clean/image.fits"))
    print(f"CLEAN to {1e6 * args.threshold:g} µJy/beam, Briggs 0, {threads} thread(s)")
    print(f"{'':24}{'CPU s':>8}{'ratio':>8}{'residual rms, µJy':>20}  peaks at the sources, Jy")
    for (name, seconds), (residual, image) in zip(used.items(), names, strict=True):
        rms = 1e6 * float(read(work / residual).std())
        peaks = peaks_of(read(work / image), simulation)
        ratio = seconds / used["wsclean -use-wgridder"]
        print(f"{name:24}{seconds:8.2f}{ratio:8.3f}{rms:20.2f}  {peaks}")


def peaks_of(image: Image, simulation: Simulation) -> str:
    """Largest pixel within two of each source."""
    places = sample_pixels(simulation)[: len(simulation.sky)]
    return " ".join(f"{image[r - 2 : r + 3, c - 2 : c + 3].max():.4f}" for r, c in places)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dumps", type=int, default=200, help="of 8 s [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="for each program [%(default)s]")
    parser.add_argument("--threshold", type=float, default=1e-4, help="of CLEAN, Jy [%(default)s]")
    parser.add_argument("--only", choices=("dirty", "clean"))
    args = parser.parse_args()
    simulation = Simulation(dumps=args.dumps)
    with tempfile.TemporaryDirectory() as folder:
        work, data = Path(folder), Path(folder) / "synthetic.ms"
        start = time.process_time()
        write_measurement_set(data, simulation)
        n_rows = simulation.antennas * (simulation.antennas - 1) // 2 * args.dumps
        print(
            f"{n_rows} rows of {simulation.channels} channels, "
            f"written in {time.process_time() - start:.0f} CPU s"
        )
        # Whatever was not compiled yet is; `pipelines.warm_up` does it where the imager is installed.
        ours(data, work / "warm", args.threads, "--niter", "1", "--no-picture")
        if args.only != "clean":
            benchmark_dirty(data, simulation, work, args.threads)
        if args.only != "dirty":
            benchmark_clean(data, simulation, work, args)


if __name__ == "__main__":
    main()
