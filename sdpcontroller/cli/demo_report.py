"""What the demonstration saw: facts gathered on the way, judged and shown at the end."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table

from sdpcontroller.cli.cam import Cam
from sdpcontroller.cli.demo_config import IMAGE, PRODUCT, Observation
from sdpcontroller.errors import ControllerError

if TYPE_CHECKING:
    from astropy.io.fits import Header

    from pipelines.imaging.sources import Source

MAX_OFFSET: Final = 1.0
"""Pixels that a source may be from where the model has it."""
MAX_FLUX_ERROR: Final = 0.05
"""Relative error of a source's flux density."""
MIN_SNR: Final = 100.0
"""Signal-to-noise of the source of a replayed calibrator."""
MIN_EXTRA_SNR: Final = 7.0
"""Signal-to-noise from which a source that the model does not have is a problem. Below, it is noise: of two
million pixels one has five times the standard deviation in every few images."""
MAX_EXTENDED: Final = 0.1
"""Relative difference of all CLEAN components from the peak of a source that is unresolved."""

LEGS: Final = (
    ("correlator to ingest", "correlator_sent", "ingest"),
    ("L0 to calibration", "l0_sent", "cal"),
    ("L0 to writer", "l0_sent", "writer"),
    ("flags to their writer", "flags_sent", "flag_writer"),
)
"""Ways that data go: for people, the count of what was sent, and who received."""

_SETTLE: Final = 10.0
"""Seconds in which the cluster may learn that everything has ended."""


@dataclass
class Facts:
    """Everything that is worth telling; written to ``summary.json``."""

    time_to_ready: float = 0.0
    """Seconds from ``product-configure`` to its reply."""
    capture_block: str = ""
    tasks: list[dict[str, str]] = field(default_factory=list)
    heaps: dict[str, int] = field(default_factory=dict)
    trouble: str = ""
    """What the controller complained of during the observation."""
    leftovers: list[str] = field(default_factory=list)
    """What was still there after the product had been taken down."""


def fresh_folder(path: Path) -> Path:
    """Empty a folder of an earlier run."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


async def tasks(cam: Cam, product: str) -> list[dict[str, str]]:
    """Return name, state, host and resources of every task of a product."""
    rows = await cam.informs("task-list", product)
    return [
        {
            "name": name.removeprefix(f"{product}."),
            "state": state,
            "host": host,
            "resources": resources,
        }
        for name, state, host, resources in rows
    ]


async def heaps(cam: Cam, product: str) -> dict[str, int]:
    """Return what was sent, received and lost on each leg, from the programs' own sensors."""
    values = await cam.sensors(rf"^{product}\..*")

    def total(kind: str, sensor: str) -> int:
        """Return the sum of a sensor over the tasks of one kind."""
        return sum(
            int(value)
            for name, value in values.items()
            if name.startswith(f"{product}.{kind}.") and name.endswith(f".{sensor}")
        )

    return {
        "correlator_sent": total("sim", "heaps-sent"),
        "ingest_received": total("ingest", "input-heaps-total"),
        "ingest_lost": total("ingest", "input-heaps-lost"),
        "l0_sent": total("ingest", "output-heaps-total"),
        "cal_received": total("cal", "input-heaps-total"),
        "cal_lost": total("cal", "input-heaps-lost"),
        "writer_received": total("vis_writer", "input-heaps-total"),
        "writer_lost": total("vis_writer", "input-heaps-lost"),
        "flags_sent": total("flags", "output-heaps-total"),
        "flag_writer_received": total("flag_writer", "input-heaps-total"),
        "flag_writer_lost": total("flag_writer", "input-heaps-lost"),
    }


def legs(heaps: Mapping[str, int]) -> Iterator[tuple[str, int, int, int]]:
    """Yield each way on which data went, with the heaps sent, received and lost."""
    for leg, sent, receiver in LEGS:
        if heaps[sent] or heaps[f"{receiver}_received"]:
            yield leg, heaps[sent], heaps[f"{receiver}_received"], heaps[f"{receiver}_lost"]


async def leftovers(cam: Cam, mesos: str) -> list[str]:
    """Look for what should be gone; empty when all is as it was before the product."""
    found: list[str] = []
    try:
        async with asyncio.timeout(_SETTLE), aiohttp.ClientSession() as session:
            while True:
                found = [f"product {row[0]}" for row in await cam.informs("product-list")]
                async with session.get(f"http://{mesos}/state") as reply:
                    found += _in_use(await reply.json())
                if not found:
                    return []
                await asyncio.sleep(0.2)
    except TimeoutError:
        return found


def _in_use(state: dict[str, Any]) -> list[str]:
    """Return what a Mesos master's state still shows as running or used."""
    running = [
        f"task {task['id']} ({task['state']})"
        for framework in state["frameworks"]
        for task in framework["tasks"]
    ]
    used = [
        f"{name} {amount} on {agent['hostname']}"
        for agent in state["slaves"]
        for name, amount in agent["used_resources"].items()
        if amount not in (0, 0.0, "", "[]")
    ]
    return running + used


def finish(facts: Facts, observation: Observation, output: Path, console: Console) -> int:
    """Judge, write ``summary.json``, show; return the exit status: 0 when all is as it must be."""
    problems = _problems_of_run(facts)
    image: dict[str, Any] = {}
    if facts.trouble:
        problems.append(facts.trouble)
    else:
        image = _collect_image(facts.capture_block, output)
        image["sources"], complaints = _judge_image(image, observation)
        problems += complaints
    summary = {
        "observation": observation.what,
        "capture_block": facts.capture_block,
        "time_to_ready_s": round(facts.time_to_ready, 2),
        "tasks": facts.tasks,
        "heaps": facts.heaps,
        "image": image,
        "left_over": facts.leftovers,
        "problems": problems,
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _show(summary, output, console)
    return 1 if problems else 0


def _problems_of_run(facts: Facts) -> list[str]:
    heaps = facts.heaps
    problems = [f"left over: {thing}" for thing in facts.leftovers]
    problems += [f"{key}: {n} heaps" for key, n in heaps.items() if key.endswith("_lost") and n]
    for _, sent, receiver in LEGS:
        received = f"{receiver}_received"
        if heaps[sent] != heaps[received]:
            problems.append(f"{sent} {heaps[sent]} heaps, {received} {heaps[received]}")
    if not heaps["correlator_sent"]:
        problems.append("the correlator sent nothing")
    return problems


def _collect_image(cbid: str, output: Path) -> dict[str, Any]:
    """Copy the image to where people look for it; return its quality report."""
    folders = sorted((output / "data" / cbid).glob(f"{IMAGE}-*"))
    if len(folders) != 1:
        raise ControllerError(f"expected one image of {cbid} in {output / 'data'}, found {folders}")
    for name in ("image.fits", "image.png"):
        shutil.copyfile(folders[0] / name, output / name)
    quality: dict[str, Any] = json.loads((folders[0] / "quality.json").read_text())
    return {
        "fits": str(output / "image.fits"),
        "png": str(output / "image.png"),
        "folder": str(folders[0]),
        "quality": quality,
    }


def _judge_image(
    image: dict[str, Any], observation: Observation
) -> tuple[list[dict[str, Any]], list[str]]:
    """Hold the sources that were found against those that must be there."""
    # astropy and katpoint take a second that only the end of the demonstration has to wait for
    from astropy.io import fits

    from pipelines.imaging.sources import Source

    document = json.loads((Path(image["folder"]) / "sources.json").read_text())
    found = [Source(**row) for row in document]
    header = fits.getheader(image["fits"])
    if observation.replay:
        return _judge_calibrator(found, header, image["quality"])
    return _judge_field(found, header, observation)


def _judge_field(
    found: list[Source], header: Header, observation: Observation
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare a simulated field with its model."""
    from astropy.wcs import WCS

    from pipelines.imaging.compare import compare

    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for match in compare(found, observation.sky, WCS(header), _frequencies(observation)):
        rows.append(_row(match.name, match.expected, match.source, match.offset))
        if match.name is None:
            if match.source is not None and match.source.snr >= MIN_EXTRA_SNR:
                problems.append("there is a source in the image that the sky does not have")
        elif match.source is None or match.offset is None or match.ratio is None:
            problems.append(f"{match.name} was not found in the image")
        elif match.offset > MAX_OFFSET:
            problems.append(f"{match.name} is {match.offset:.2f} pixels from where it should be")
        elif abs(match.ratio - 1) > MAX_FLUX_ERROR:
            problems.append(f"{match.name} has {match.ratio:.3f} of its flux")
    return rows, problems


def _judge_calibrator(
    found: list[Source], header: Header, quality: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """See that a recorded calibrator shows one unresolved source at the phase centre."""
    rows: list[dict[str, Any]] = []
    for source in found:
        offset = math.hypot(
            source.column - (header["CRPIX1"] - 1), source.row - (header["CRPIX2"] - 1)
        )
        rows.append(_row("at the phase centre", None, source, offset))
    if len(found) != 1:
        return rows, [f"the image has {len(found)} sources, expected one at the phase centre"]
    problems: list[str] = []
    if rows[0]["offset_pixels"] > MAX_OFFSET:
        problems.append("the source is not at the phase centre")
    if (quality["signal_to_noise"] or 0.0) < MIN_SNR:
        problems.append(f"the source's signal-to-noise is {quality['signal_to_noise']:.0f} only")
    if abs(quality["clean_flux"] / quality["peak"] - 1) > MAX_EXTENDED:
        problems.append("the source is resolved: its flux is not that of its peak")
    return rows, problems


def _row(
    name: str | None, expected: float | None, source: Source | None, offset: float | None
) -> dict[str, Any]:
    return {
        "name": name,
        "model_jy": expected,
        "found_jy": None if source is None else source.flux,
        "snr": None if source is None else source.snr,
        "offset_pixels": offset,
    }


def _frequencies(observation: Observation) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Centre frequencies of the channels, Hz."""
    voltage = next(
        stream
        for stream in observation.document["outputs"].values()
        if stream["type"] == "sim.cbf.antenna_channelised_voltage"
    )
    n_chans = voltage["n_chans"]
    offsets = (np.arange(n_chans) - n_chans // 2) * (voltage["bandwidth"] / n_chans)
    return np.asarray(voltage["centre_frequency"] + offsets)


def _show(summary: dict[str, Any], output: Path, console: Console) -> None:
    console.print(_task_table(summary["tasks"]))
    console.print(_heap_table(summary["heaps"]))
    if summary["image"]:
        console.print(_source_table(summary["image"]["sources"]))
        quality = summary["image"]["quality"]
        console.print(
            f"Image: [bold]{summary['image']['png']}[/] and image.fits; rms "
            f"{1e3 * quality['rms']:.2f} mJy/beam, signal-to-noise {quality['signal_to_noise']:.0f}"
        )
    console.print(f"Time to ready: {summary['time_to_ready_s']:.1f} s")
    for problem in summary["problems"]:
        console.print(f"[red]Problem:[/] {problem}", highlight=False)
    if not summary["problems"]:
        console.print("[green]Everything is as it must be[/]; nothing was left running.")
    cbid = summary["capture_block"]
    console.print(
        f"Go on: open the data set with\n  katdal.open('{output}/data/{cbid}/{cbid}_sdp_l0.rdb')\n"
        "and do the same steps by hand with docs/tutorial.md."
    )


def _task_table(rows: list[dict[str, str]]) -> Table:
    table = Table(title=f"Tasks of product {PRODUCT}", title_justify="left")
    for heading in ("task", "agent", "held"):
        table.add_column(heading)
    for row in rows:
        table.add_row(row["name"], row["host"], row["resources"])
    return table


def _heap_table(heaps: dict[str, int]) -> Table:
    table = Table(title="Heaps", title_justify="left")
    table.add_column("leg")
    for heading in ("sent", "received", "lost"):
        table.add_column(heading, justify="right")
    for leg, sent, received, lost in legs(heaps):
        table.add_row(leg, str(sent), str(received), str(lost))
    return table


def _source_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Sources", title_justify="left")
    table.add_column("source")
    for heading in ("model [Jy]", "image [Jy]", "offset [pixels]", "S/N"):
        table.add_column(heading, justify="right")

    def text(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for row in rows:
        table.add_row(
            row["name"] or "(not in the model)",
            text(row["model_jy"], ".4f"),
            text(row["found_jy"], ".4f"),
            text(row["offset_pixels"], ".2f"),
            text(row["snr"], ".0f"),
        )
    return table
