"""``sdp demo`` on the simulated sky: from heaps to an image, and nothing left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from PIL import Image

from tests.e2e.images import Picture
from tests.e2e.system import SDP, Run, Terminal, listens

pytestmark = pytest.mark.e2e

SKY: Final = (
    ("4:24:00.0 -38:00:00", 1.0),
    ("4:25:05.0 -37:48:30", 0.7),
    ("4:22:46.0 -38:09:15", 0.5),
    ("4:24:32.0 -38:17:40", 0.4),
    ("4:23:14.0 -37:44:50", 0.3),
)
"""Where the demonstration's sources are and what they have [Jy], flat over the band: said once more."""


@dataclass(frozen=True)
class Demo:
    """A demonstration that has ended."""

    run: Run
    output: Path
    status: int
    text: str
    seen: list[str]
    """Processes in mid-observation."""
    ports: set[int]
    """Ports that they listened on."""

    @property
    def summary(self) -> dict[str, Any]:
        """``summary.json``."""
        document: dict[str, Any] = json.loads((self.output / "summary.json").read_text())
        return document


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One short demonstration, for all tests here."""
    folder = tmp_path_factory.mktemp("demo")
    run, output = Run(folder), folder / "output"
    command = [SDP, "demo", "--output", str(output), "--seconds", "8", "--calibrator-seconds", "4"]
    with Terminal(run, command) as terminal:
        terminal.wait_for("Observing Demo field", timeout=300)
        seen, ports = run.left(), run.ports()
        status = terminal.wait(timeout=300)
        text = terminal.text
    yield Demo(run, output, status, text, seen, ports)
    run.kill_all()


def test_succeeds_and_says_so(demo: Demo) -> None:
    assert demo.status == 0, demo.text[-4000:]
    assert demo.summary["problems"] == []
    assert demo.summary["left_over"] == []
    assert "Everything is as it must be" in demo.text


def test_every_program_of_the_graph_ran(demo: Demo) -> None:
    names = {task["name"] for task in demo.summary["tasks"]}
    assert names == {
        "telstate",
        "sim.i0_baseline_correlation_products",
        "ingest.sdp_l0.0",
        "ingest.sdp_l0.1",
        "cal.cal",
        "vis_writer.sdp_l0",
        "meta_writer",
        "display.sdp_l0",
        "quality",
        f"imager.continuum_image.{demo.summary['capture_block']}.0",
    }
    assert all(task["host"] and task["resources"] for task in demo.summary["tasks"])
    running = "\n".join(demo.seen)
    for program in ("correlator", "ingest", "calibration", "writer", "display"):
        assert f"pipelines.{program}" in running
    assert running.count("redis-server") == 2  # configuration database and telescope state


def test_no_heap_is_lost(demo: Demo) -> None:
    heaps = demo.summary["heaps"]
    assert [heaps["ingest_lost"], heaps["cal_lost"], heaps["writer_lost"]] == [0, 0, 0]
    assert heaps["correlator_sent"] == heaps["ingest_received"]
    assert heaps["l0_sent"] == heaps["cal_received"] == heaps["writer_received"]
    # 12 s of 8 substreams every 0.5 s, 2 ingests every 2 s, give or take a dump at the ends
    assert 8 * 23 <= heaps["correlator_sent"] <= 8 * 30
    assert 2 * 6 <= heaps["l0_sent"] <= 2 * 8


def test_sources_stand_where_the_sky_has_them(demo: Demo) -> None:
    picture = Picture.open(demo.output / "image.fits")
    for place, flux in SKY:
        where = SkyCoord(place, unit=(units.hourangle, units.deg), frame="icrs")
        column, row = picture.place(where)
        x, y, height = picture.peak_near(column, row)
        assert np.hypot(x - column, y - row) < 1, place
        assert height == pytest.approx(flux, rel=0.05), place


def test_there_is_nothing_else_in_the_image(demo: Demo) -> None:
    picture = Picture.open(demo.output / "image.fits")
    rest = picture.data.copy()
    reach = round(6 * picture.header["BMAJ"] / picture.header["CDELT2"])
    for place, _ in SKY:
        where = SkyCoord(place, unit=(units.hourangle, units.deg), frame="icrs")
        x, y = (round(value) for value in picture.place(where))
        rest[y - reach : y + reach + 1, x - reach : x + reach + 1] = 0
    assert np.abs(rest).max() < 0.02  # 2 % of the brightest


def test_the_image_has_celestial_coordinates(demo: Demo) -> None:
    picture = Picture.open(demo.output / "image.fits")
    header = picture.header
    assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---SIN", "DEC--SIN")
    assert header["RADESYS"] in ("ICRS", "FK5")
    assert header["BUNIT"].upper() == "JY/BEAM"
    assert header["CDELT1"] < 0 < header["CDELT2"]  # east is left, north is up
    centre = SkyCoord("4:24:00.0 -38:00:00", unit=(units.hourangle, units.deg), frame="icrs")
    assert picture.place(centre) == pytest.approx((header["CRPIX1"] - 1, header["CRPIX2"] - 1))
    assert header["BMAJ"] >= header["BMIN"] > 2 * header["CDELT2"]


def test_the_picture_can_be_looked_at(demo: Demo) -> None:
    with Image.open(demo.output / "image.png") as image:
        assert image.size == (1000, 900)
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 100


def test_nothing_is_left(demo: Demo) -> None:
    assert len(demo.seen) >= 9 and len(demo.ports) >= 8  # the scan sees what there is
    assert demo.run.left() == []
    assert [port for port in sorted(demo.ports) if listens(port)] == []
