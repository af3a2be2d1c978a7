"""``sdp demo --replay`` of a real observation: a point source after calibration, and none without it."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from tests.e2e.images import Picture
from tests.e2e.system import SDP, Run, Terminal

pytestmark = pytest.mark.e2e

OBSERVATIONS: Final = Path(__file__).parents[3] / "shared" / "data" / "observations"


@dataclass(frozen=True)
class Replay:
    """A replay that has ended."""

    run: Run
    output: Path
    status: int
    text: str

    @property
    def summary(self) -> dict[str, Any]:
        """``summary.json``."""
        document: dict[str, Any] = json.loads((self.output / "summary.json").read_text())
        return document


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    """The observation of J1008+0730, ten times faster than it was made, through every layer."""
    archives = sorted(OBSERVATIONS.glob("*.tar.gz"))
    if not archives:
        pytest.skip(f"no observation in {OBSERVATIONS}")
    folder = tmp_path_factory.mktemp("replay")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder / "ms", filter="data")
    (recording,) = (folder / "ms").glob("*.ms")
    run, output = Run(folder), folder / "output"
    command = [SDP, "demo", "--output", str(output), "--replay", str(recording), "--rate", "10"]
    with Terminal(run, command) as terminal:
        status = terminal.wait(timeout=600)
        text = terminal.text
    yield Replay(run, output, status, text)
    run.kill_all()


@pytest.fixture(scope="module")
def uncalibrated(replay: Replay) -> Picture:
    """An image of the same data set without the solutions that it has."""
    cbid = replay.summary["capture_block"]
    output = replay.output / "uncalibrated"
    command = [sys.executable, "-m", "pipelines.imaging", "--no-applycal", "--output", str(output)]
    subprocess.run(
        [*command, str(replay.output / "data" / cbid / f"{cbid}_sdp_l0.rdb")],
        check=True,
        timeout=600,
    )
    return Picture.open(output / "image.fits")


def centre(picture: Picture) -> tuple[float, float]:
    """Column and row of the phase centre."""
    return picture.header["CRPIX1"] - 1, picture.header["CRPIX2"] - 1


def test_succeeds_and_loses_nothing(replay: Replay) -> None:
    assert replay.status == 0, replay.text[-4000:]
    summary = replay.summary
    assert summary["problems"] == []
    heaps = summary["heaps"]
    assert heaps["correlator_sent"] == heaps["ingest_received"] > 0
    assert heaps["l0_sent"] == heaps["cal_received"] == heaps["writer_received"] > 0
    assert [heaps["ingest_lost"], heaps["cal_lost"], heaps["writer_lost"]] == [0, 0, 0]
    assert replay.run.left() == []


def test_calibrated_there_is_one_source_at_the_phase_centre(replay: Replay) -> None:
    (source,) = replay.summary["image"]["sources"]
    assert source["snr"] > 100
    picture = Picture.open(replay.output / "image.fits")
    column, row = centre(picture)
    x, y, height = picture.peak_near(column, row, reach=8)
    assert np.hypot(x - column, y - row) < 1
    assert height == pytest.approx(picture.data.max(), rel=0.02)
    assert height / picture.noise() > 100


def test_calibrated_the_source_is_unresolved(replay: Replay) -> None:
    """What is in its place adds up to one beam of its height, and nothing else stands out."""
    picture = Picture.open(replay.output / "image.fits")
    column, row = centre(picture)
    height = picture.peak_near(column, row)[2]
    reach = round(1.5 * picture.header["BMAJ"] / picture.header["CDELT2"])
    assert picture.box(column, row, reach).sum() / picture.beam_pixels == pytest.approx(
        height, rel=0.1
    )
    rest = picture.data.copy()
    x, y = round(column), round(row)
    rest[y - reach : y + reach + 1, x - reach : x + reach + 1] = 0
    assert np.abs(rest).max() < 0.05 * height


def test_uncalibrated_there_is_none(replay: Replay, uncalibrated: Picture) -> None:
    column, row = centre(uncalibrated)
    assert uncalibrated.data.shape == Picture.open(replay.output / "image.fits").data.shape
    at_centre = np.abs(uncalibrated.box(column, row, 3)).max()
    assert at_centre / uncalibrated.noise() < 10
