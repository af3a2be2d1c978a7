"""A whole observation in real time, and what came of it.

::

    python3 -m benchmarks.observation [--minutes 10] [--output observation-output]

Sixteen antennas of MeerKAT look at a calibrator and a field in turns, in the embedded cluster, with every
program that a product has: correlator, ingest, calibration, flags, writers, display. Then the data are looked
at with other people's programs: katdal opens them and applies the solutions, its ``mvftoms`` makes a
MeasurementSet with the solutions applied, and wsclean images that. Printed, and written to ``report.html``
beside its pictures: heaps sent, received and lost on each leg; our image and wsclean's beside the sky that was
simulated; what calibration does to the calibrator; the operator's display as it was in mid-capture.

Losses are what the machine does to real-time programs: run it at a raised priority (``nice -n -10``).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp
import katpoint
import numpy as np
from katdal.dataset import DataSet
from rich.console import Console

from benchmarks import observation_report
from benchmarks.observation_images import ForeignImage, image_with_wsclean
from pipelines.common import uvw
from pipelines.common.dataset import open_dataset
from sdpcontroller.cli import demo_config
from sdpcontroller.cli.cam import Cam
from sdpcontroller.cli.demo import Demo, interruptible
from sdpcontroller.cli.demo_config import CAL, VIS, Observation

ANTENNAS: Final = (
    *("m000", "m002", "m005", "m007", "m011", "m015", "m019", "m022"),
    *("m025", "m031", "m034", "m038", "m040", "m044", "m051", "m055"),
)
FLAGS: Final = "sdp_l1_flags"
CYCLES: Final = 2
CALIBRATOR_PART: Final = 0.1
"""Of the time, for each of the three visits to the calibrator."""
SHOT_AT: Final = 0.8
"""Part of the time after which the display is photographed."""
CHANNEL_BIN: Final = 2
"""Channels that wsclean gets as one: with eight, sources 15' from the centre lose 3 % of their peak."""
SHOWN: Final = "m000h-m022h"
"""Product that is photographed."""


@dataclass
class Session:
    """What a user of katdal finds in the data set."""

    text: str
    """What katdal says of it."""
    phase: tuple[float, float]
    """Scatter of the calibrator's phases over baselines, channels and dumps, degrees: raw and calibrated."""
    flux_ratio: float
    """Calibrated amplitude of the calibrator over its model."""
    lost: float
    """Part of the samples that is flagged as lost."""
    fluxes: dict[str, complex]
    """Of the sky's sources by name, Jy: what fits the field's calibrated visibilities best, without any image.
    The phases tell of positions and calibration."""


@dataclass
class LongObservation(Demo):
    """The demonstration's way of observing, for longer and with everything."""

    shot: asyncio.Task[None] | None = None
    """The photograph of the display."""
    page: str = ""
    """Address of the display."""

    async def observation(self) -> Observation:
        """Return the calibrator and the field in turns."""
        seconds = 60.0 * self.options.minutes
        on_calibrator = seconds * CALIBRATOR_PART
        on_field = (seconds - (CYCLES + 1) * on_calibrator) / CYCLES
        plain = demo_config.simulated(on_field, on_calibrator, antennas=ANTENNAS, cycles=CYCLES)
        outputs = {
            **plain.document["outputs"],
            FLAGS: {
                "type": "sdp.flags",
                "src_streams": [VIS, CAL],
                "archive": True,
                "rate_ratio": 8.0,
            },
        }
        what = f"{plain.what}, {self.options.minutes:g} minutes"
        return replace(plain, document={**plain.document, "outputs": outputs}, what=what)

    async def watch(self, cam: Cam, elapsed: float) -> None:
        """Ask the display for a product, so that it remembers that one, and later photograph it."""
        if not self.page:
            pages = json.loads(await cam.sensor("gui-urls"))
            (self.page,) = (page["href"] for page in pages if "display" in page["title"])
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{self.page}api/frame?product={SHOWN}") as answer,
            ):
                answer.raise_for_status()
        browser = shutil.which("chromium")
        due = elapsed >= SHOT_AT * 60 * self.options.minutes
        if due and self.shot is None and browser is not None:
            path = (self.options.output / "display.png").resolve()
            self.shot = asyncio.create_task(photograph(browser, f"{self.page}#{SHOWN}", path))


async def photograph(browser: str, url: str, path: Path) -> None:
    """Let a browser without a screen draw a page into a file, after four seconds of its life."""
    process = await asyncio.create_subprocess_exec(
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={path.parent / 'browser'}", "--window-size=1300,1160"),
        *("--virtual-time-budget=4000", f"--screenshot={path}", "--hide-scrollbars", url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        await process.wait()
    shutil.rmtree(path.parent / "browser", ignore_errors=True)


def katdal_session(rdb: Path, sky: Sequence[str]) -> Session:
    """Open a data set as its users do; look at the calibrator raw and calibrated, then at the field.

    Parameters
    ----------
    sky
        katpoint descriptions of the field's sources.
    """
    raw, calibrated = open_dataset(rdb), open_dataset(rdb, applycal="l1")
    text = str(raw)
    name = katpoint.Target(demo_config.CALIBRATOR).name
    spread = []
    for data in (raw, calibrated):
        data.select(targets=name, scans="track", corrprods="cross", pol="HH")
        vis = np.ma.masked_array(data.vis[:], data.flags[:])
        spread.append(float(np.degrees(np.ma.std(np.ma.angle(vis)))))
    model = katpoint.Target(demo_config.CALIBRATOR).flux_density(calibrated.freqs / 1e6)
    ratio = np.ma.mean(vis.real / model[np.newaxis, :, np.newaxis])
    raw.select()
    lost = float(np.mean((raw.raw_flags[:] & 0x08) != 0))
    fluxes = fitted_fluxes(calibrated, sky)
    return Session(text, (spread[0], spread[1]), float(ratio), lost, fluxes)


def fitted_fluxes(data: DataSet, sky: Sequence[str]) -> dict[str, complex]:
    """Fit the flux densities of point sources to every 16th dump and channel of the field, by least squares."""
    centre, sources = katpoint.Target(demo_config.FIELD), list(map(katpoint.Target, sky))
    data.select(targets=centre.name, scans="track", corrprods="cross", pol="HH")
    names = [antenna.name for antenna in data.ants]
    pairs = np.array([[names.index(label[:-1]) for label in pair] for pair in data.corr_products])
    reference = data.ants[0].array_reference_antenna()
    wavenumbers = data.channel_freqs[::16] / uvw.SPEED_OF_LIGHT
    fringes, measured = [], []
    for dump in range(0, data.shape[0], 16):
        when = data.timestamps[dump]
        baselines = uvw.baseline_uvw(uvw.antenna_uvw(centre, [when], data.ants)[0], pairs)
        cosines = [uvw.direction_cosines(centre, s, when, reference) for s in sources]
        turns = wavenumbers[:, np.newaxis, np.newaxis] * (baselines @ np.transpose(cosines))
        fringes.append(np.exp(2j * np.pi * turns).reshape(-1, len(sources)))
        measured.append(data.vis[dump : dump + 1, ::16, :].ravel())
    found, *_ = np.linalg.lstsq(np.concatenate(fringes), np.concatenate(measured), rcond=None)
    return {source.name: complex(flux) for source, flux in zip(sources, found, strict=True)}


def convert(rdb: Path, output: Path) -> Path:
    """Let katdal make a MeasurementSet with the solutions applied; return its path."""
    files = importlib.metadata.files("katdal") or []
    (program,) = (str(f.locate()) for f in files if f.name == "mvftoms.py")
    path = output / "calibrated.ms"
    shutil.rmtree(path, ignore_errors=True)
    options = ["--applycal=l1", "--no-auto", f"--chanbin={CHANNEL_BIN}", "--quack=0"]
    options += [f"--output-ms={path}", f"--target={katpoint.Target(demo_config.FIELD).name}"]
    with (output / "logs" / "mvftoms.log").open("wb") as log:
        subprocess.run(
            [sys.executable, program, *options, str(rdb)],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return path


def look_at(output: Path, observation: Observation) -> tuple[Session, ForeignImage]:
    """Look at what was written with other people's programs."""
    summary = json.loads((output / "summary.json").read_text())
    cbid = summary["capture_block"]
    rdb = output / "data" / cbid / f"{cbid}_{VIS}.rdb"
    session = katdal_session(rdb, observation.sky)
    ours = Path(summary["image"]["fits"])
    return session, image_with_wsclean(convert(rdb, output), ours, observation.sky, output)


def problems_of(session: Session, foreign: ForeignImage) -> list[str]:
    """Return what is not as it must be."""
    problems = []
    if session.lost:
        problems.append(f"{100 * session.lost:.4f} % of the samples are lost")
    if abs(session.flux_ratio - 1) > 0.02:
        problems.append(f"the calibrator has {session.flux_ratio:.3f} of its flux density")
    return problems + [
        f"wsclean: {row.name} has {row.ratio} of its flux density"
        for row in foreign.sources
        if row.ratio is None or abs(row.ratio - 1) > 0.05
    ]


def main() -> int:
    """Observe, look, report; exit status 0 when all is as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of observation [%(default)s]")
    parser.add_argument("--output", type=Path, default=Path("observation-output"))
    parser.add_argument(
        "--look",
        action="store_true",
        help="only look at what an earlier run has left in the output",
    )
    options = parser.parse_args()
    demo_options = argparse.Namespace(
        output=options.output,
        minutes=options.minutes,
        agents=3,
        topology=None,
        executor="process",
        replay=None,
    )
    demo = LongObservation(demo_options, Console(stderr=True))
    observation = asyncio.run(demo.observation())
    status = 0 if options.look else asyncio.run(interruptible(demo))
    if demo.facts.trouble:
        return status
    session, foreign = look_at(options.output, observation)
    problems = problems_of(session, foreign)
    report = observation_report.write(options.output, session, foreign, problems)
    print(observation_report.text(options.output, session, foreign, problems))
    print(f"Report: {report}")
    return 1 if status or problems else 0


if __name__ == "__main__":
    sys.exit(main())
