"""The report of a capture block, as a file and in a browser."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import aiokatcp
import numpy as np
import pytest
from PIL import Image

from pipelines.calibration.report.page import write_report
from pipelines.calibration.report.record import MAX_CHANS, MAX_GAINS, BlockRecord
from pipelines.calibration.report.web import serve
from pipelines.calibration.report.writing import ReportWriter
from pipelines.calibration.solutions import Products
from tests.pipelines.calibration.conftest import observe

CBID = "1600000000"
EVERYTHING = Products(delay=True, bandpass=True, gain=True, polarisation=True)


def record_of(name: str = "PKS <b>1934</b>", **options: Any) -> BlockRecord:
    """A block with an unpolarised and a polarised calibrator, and one that failed."""
    record = None
    for stokes in ((0.0, 0.0, 0.0), (0.0, 0.1, 0.0)):
        scan = observe(7, noise=0.1, leakage=0.02, stokes=stokes, **options).scan
        outcome = scan.solve(EVERYTHING)
        assert outcome is not None
        if record is None:
            record = BlockRecord(CBID, "cal", scan.pairs.antennas, scan.freqs)
            record.refant, record.why = "m000", "it is the first"
        record.add(name, len(scan.times), outcome[0], {"K": 1, "B": 1, "G": 6})
    assert record is not None
    record.fail("J0000+0000", 3, "no solution", 1.6e9)
    record.measured_flux = {"J1111-1111": 2.5}
    return record


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data volume with a report."""
    root = tmp_path_factory.mktemp("data")
    write_report(root, record_of(n_antennas=12))
    return root


def test_it_says_who_is_the_reference_antenna_and_why(volume: Path) -> None:
    path = volume / CBID / f"{CBID}_cal_report.html"
    text = path.read_text()
    for expected in ("m000: it is the first", "J0000+0000", "no solution", "J1111-1111 2.500 Jy"):
        assert expected in text
    # What comes from outside is text.
    assert "PKS &lt;b&gt;1934" in text and "<b>" not in text
    for title in ("Delays", "Bandpass", "Gains", "Leakage", "KCROSS", "Quality", "Flags"):
        assert title in text
    assert text.count("data:image/png;base64") == 7
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_block_without_solutions_has_a_report_too(tmp_path: Path) -> None:
    scan = observe(0).scan
    path = write_report(tmp_path, BlockRecord(CBID, "cal", scan.pairs.antennas, scan.freqs))
    text = path.read_text()
    assert "no scan was solved" in text and "There was none" in text


def test_dead_antennas_and_flagged_channels_do_not_stop_it(tmp_path: Path) -> None:
    scan = observe(1).scan
    weights = scan.weights.copy()
    weights[..., (scan.pairs.ant1 == 3) | (scan.pairs.ant2 == 3)] = 0
    weights[:, :, 20:30] = 0
    outcome = scan.with_weights(weights).solve(EVERYTHING)
    assert outcome is not None
    record = BlockRecord(CBID, "cal", scan.pairs.antennas, scan.freqs)
    record.add("cal", 6, outcome[0], {"K": 1})
    assert record.flagged is not None
    np.testing.assert_allclose(record.flagged[0], np.where(np.arange(8) == 3, 1, 1 / 7), atol=1e-6)
    np.testing.assert_allclose(record.flagged[25], 1)
    write_report(tmp_path, record)


def test_what_is_remembered_is_bounded() -> None:
    scan = observe(2, n_chans=8, n_antennas=4).scan
    outcome = scan.solve(EVERYTHING)
    assert outcome is not None
    record = BlockRecord(CBID, "cal", scan.pairs.antennas, np.linspace(1e9, 2e9, 32768))
    assert len(record.drawn) == MAX_CHANS
    for number in range(3 * MAX_GAINS):
        record._add_gain(float(number), outcome[0].gains[0])
    assert MAX_GAINS / 2 <= len(record.gains) <= MAX_GAINS
    spacing = np.diff(record.gain_times)
    assert (spacing == spacing[0]).all()


async def test_a_disk_that_refuses_costs_the_report_and_nothing_else(tmp_path: Path) -> None:
    sensor = aiokatcp.Sensor(str, "report", "")
    (tmp_path / CBID).write_text("no directory")
    writer = ReportWriter(tmp_path, sensor)
    writer.start(record_of())
    await writer.finish()
    assert sensor.status is aiokatcp.Sensor.Status.ERROR
    assert (tmp_path / CBID).is_file()


async def test_the_web_server_gives_reports_and_nothing_else(volume: Path) -> None:
    (volume / "1600000001").mkdir()
    (volume / "secret").write_text("secret")
    async with serve(volume, "cal", "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:

        async def get(path: str) -> tuple[int, str]:
            async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()

        status, index = await get("/")
        assert status == 200 and f'href="/{CBID}"' in index and "1600000001" not in index
        assert (await get(f"/{CBID}"))[0] == 200
        for path in ("/1600000001", "/secret", "/..%2Fsecret", f"/{CBID}/x", "/9" * 9):
            assert (await get(path))[0] == 404
    async with serve(None, "cal", "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:
        assert (await get("/"))[0] == 200
        assert (await get(f"/{CBID}"))[0] == 404


async def test_a_browser_shows_it(volume: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    picture = tmp_path / "page.png"
    async with serve(volume, "cal", "127.0.0.1", 0) as port:
        process = await asyncio.create_subprocess_exec(
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1150,4200"),
            *(f"--screenshot={picture}", "--hide-scrollbars"),
            f"http://127.0.0.1:{port}/{CBID}",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(120):
            await process.wait()
    pixels = np.asarray(Image.open(picture).convert("RGB"), np.int64)
    # A failed scan is red; the pictures are there: lines of the first and the last antenna, and of no flags.
    for colour in ([0xB3, 0x26, 0x1E], [48, 18, 59], [122, 4, 3], [68, 1, 84]):
        assert (np.abs(pixels - colour).sum(axis=-1) < 12).sum() > 50, colour
