"""The program, on data sets as katdal reads them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipelines.imaging.compare import compare
from pipelines.imaging.errors import ImagingError, NoVisibilitiesError, UnknownTargetError
from pipelines.imaging.geometry import ARCSEC
from pipelines.imaging.imager import make_image
from pipelines.imaging.picture import brightness, scale_ticks
from pipelines.imaging.settings import ImagingSettings

SKY = [(0.003, 0.0015, 1.0, 0.0), (-0.0041, 0.0032, 0.5, 0.2), (0.001, -0.0048, 0.25, 0.0)]
RA, DEC = math.radians(67.5), math.radians(-35.0)


def description(l: float, m: float, flux: float) -> str:  # noqa: E741
    n = math.sqrt(1 - l * l - m * m)
    dec = math.asin(m * math.cos(DEC) + n * math.sin(DEC))
    ra = RA + math.atan2(l, n * math.cos(DEC) - m * math.sin(DEC))
    return f"s{flux}, radec, {math.degrees(ra)!r}, {math.degrees(dec)!r}, (800 1800 {math.log10(flux)!r})"


@pytest.fixture
def rdb(dataset_writer, tmp_path: Path) -> Path:
    return dataset_writer(tmp_path / "data", SKY, noise=0.2, gains=True)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.imaging", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_data_set_becomes_an_image(rdb: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "here"
    done = run(rdb, "--output", output, "--name", "field", "--threads", 1)
    assert done.returncode == 0, done.stderr
    names = {"field.fits", "field-residual.fits", "field-components.fits", "field.png"}
    names |= {"quality.json", "sources.json"}
    assert {path.name for path in output.iterdir()} == names
    percents = [
        int(line.split("imaging: ")[1].split(" %")[0])
        for line in done.stderr.splitlines()
        if " % " in line
    ]
    assert percents == sorted(percents) and percents[0] == 0 and percents[-1] == 100

    quality = json.loads((output / "quality.json").read_text())
    assert quality["target"] == "Field 1" and quality["capture_block_id"] == "1700000000"
    # One channel of the second antenna's v input is flagged: a quarter of its baselines' first channel.
    assert quality["flagged_fraction"] == pytest.approx(7 / 28 / 64)
    assert quality["n_vis"] == 3 * (28 * 64 - 7)
    assert quality["clean_components"] > 0 and quality["cpu_seconds"] > 0
    check_fits(output, quality)
    check_sources(output)
    png = (output / "field.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (1000, 900)


def check_fits(output: Path, quality: dict[str, float]) -> None:
    with fits.open(output / "field.fits") as hdus:
        header, data = hdus[0].header, hdus[0].data
    size = quality["size"]
    assert data.shape == (1, 1, size, size) and header["BITPIX"] == -32
    assert header["BUNIT"] == "Jy/beam" and header["OBJECT"] == "Field 1"
    assert header["BMAJ"] == pytest.approx(quality["beam_major"] / 3600)
    assert header["DATE-OBS"].startswith("2023-11-14T22:13:44")
    wcs = WCS(header)
    assert wcs.axis_type_names == ["RA", "DEC", "FREQ", "STOKES"]
    world = wcs.all_pix2world([[size // 2, size // 2, 0, 0]], 0)[0]
    assert world[:2] == pytest.approx([67.5, -35])
    assert world[2] == pytest.approx(quality["frequency"]) and world[3] == 1
    assert data.max() == pytest.approx(quality["peak"])
    assert any("l1.G" in line for line in header["HISTORY"])
    assert fits.getdata(output / "field-residual.fits").max() < 0.05


def check_sources(output: Path) -> None:
    from pipelines.imaging.sources import Source

    found = [Source(**entry) for entry in json.loads((output / "sources.json").read_text())]
    header = fits.getheader(output / "field.fits")
    sky = [description(*source[:3]) for source in SKY]
    frequencies = 856e6 + 856e6 / 64 * np.arange(64)
    matches = compare(found, sky, WCS(header).celestial, frequencies)
    for match in matches[: len(SKY)]:
        assert match.matched
        assert match.offset is not None and match.offset < 0.5
        assert match.ratio == pytest.approx(1.0, abs=0.05)


def test_without_calibration_there_are_no_such_sources(rdb: Path, tmp_path: Path) -> None:
    settings = ImagingSettings(rdb, tmp_path / "raw", applycal=False)
    product = make_image(settings)
    assert product.quality.peak < 0.5


def test_a_dirty_image_of_given_size(rdb: Path, tmp_path: Path) -> None:
    done = run(
        rdb, "--output", tmp_path, "--niter", 0, "--size", 300, "--pixel", 8, "--weighting", "natural"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    quality = json.loads((tmp_path / "quality.json").read_text())
    assert quality["size"] == 300 and quality["pixel"] == pytest.approx(8)
    assert quality["clean_stop"] == "no iterations asked for"
    header = fits.getheader(tmp_path / "image.fits")
    assert header["CDELT1"] == pytest.approx(-8 / 3600)
    assert np.array_equal(
        fits.getdata(tmp_path / "image.fits"), fits.getdata(tmp_path / "image-residual.fits")
    )


def test_the_calibrator_has_no_source(rdb: Path, tmp_path: Path) -> None:
    settings = ImagingSettings(rdb, tmp_path / "cal", target="J0408-6545", name="cal")
    with pytest.raises(UnknownTargetError, match="there are tracks on"):
        make_image(ImagingSettings(rdb, tmp_path / "x", target="Mars"))
    product = make_image(settings)
    assert product.quality.sources == 0


def test_if_all_is_flagged_one_line_says_so(dataset_writer, tmp_path: Path) -> None:
    rdb = dataset_writer(tmp_path / "data", SKY[:1], flagged=True)
    output = tmp_path / "out"
    with pytest.raises(NoVisibilitiesError, match="unflagged"):
        make_image(ImagingSettings(rdb, output))
    assert list(output.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"REDIS0003rubbish", b"\xff" * 1000])
def test_what_is_no_data_set_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.rdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImagingError, match="data set") as caught:
        make_image(ImagingSettings(path, tmp_path / "out"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--robust", "nan"], "robust"),
        (["--niter", "-5"], "iterations"),
        (["--name", "../../etc/passwd"], "name"),
        (["--threshold", "-1"], "threshold"),
        (["--threads", "0"], "threads"),
    ],
)
def test_nonsense_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    from pipelines.imaging.options import parse, settings_of

    with pytest.raises(ImagingError, match=says):
        settings_of(parse([str(tmp_path / "x.rdb"), "--output", str(tmp_path), *options]))


def test_the_program_fails_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path / "nothing.rdb", "--output", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("imaging: no data set ")
    assert "Traceback" not in done.stderr


def test_pixels_in_the_settings_are_radians() -> None:
    from pipelines.imaging.options import parse, settings_of

    settings = settings_of(parse(["x.rdb", "--output", "y", "--pixel", "2"]))
    assert settings.pixel == pytest.approx(2 * ARCSEC)


@pytest.mark.parametrize(
    ("flux", "text"), [(1.234, "1.23 Jy"), (0.0123, "12.3 mJy"), (4.2e-6, "4.2 µJy"), (-2, "-2 Jy")]
)
def test_brightness_is_readable(flux: float, text: str) -> None:
    assert brightness(flux) == text


@pytest.mark.parametrize(("noise", "peak"), [(1e-3, 2.0), (1e-9, 1e3), (1.0, 1.0), (1e-30, 0.0)])
def test_the_scale_has_some_ticks_but_not_many(noise: float, peak: float) -> None:
    assert 2 <= len(scale_ticks(noise, peak)) <= 40
