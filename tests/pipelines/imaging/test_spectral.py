"""Cubes: of the programs, on MeasurementSets with lines and a continuum."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import casacore.tables
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from benchmarks.imaging_data import Simulation, write_measurement_set
from pipelines.imaging import join as joining
from pipelines.imaging import spectral
from pipelines.imaging.__main__ import main as image
from pipelines.imaging.cube import CubeReader

PIXEL, SIZE = 20.0, 160
RADIAN = 180 / np.pi * 3600
LINE = (30 * PIXEL / RADIAN, 20 * PIXEL / RADIAN)
"""30 pixels to the east, 20 to the north."""
CONTINUUM = (-25 * PIXEL / RADIAN, -15 * PIXEL / RADIAN, 2.0, -0.7)
EMPTY, PEAK, CHANNELS = 1, 6, 9
GRID = ["--size", str(SIZE), "--pixel", str(PIXEL), "--threads", "1"]


def simulation(**more: Any) -> Simulation:
    defaults = {
        "antennas": 10,
        "dumps": 40,
        "channels": CHANNELS,
        "noise": 0.05,
        "seed": 4,
        "sky": (CONTINUUM,),
        "lines": ((*LINE, 1.0, PEAK, 0.7),),
    }
    return Simulation(**(defaults | more))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line in channel 6, and a channel without data."""
    path = tmp_path_factory.mktemp("data") / "line.ms"
    write_measurement_set(path, simulation())
    with casacore.tables.table(str(path), readonly=False, ack=False) as main:
        flags = main.getcol("FLAG")
        flags[:, EMPTY] = True
        main.putcol("FLAG", flags)
    return path


@pytest.fixture(scope="module")
def cube(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a cube without continuum."""
    work = tmp_path_factory.mktemp("cube")
    # The continuum of the channels beside the line.
    alone = work / "alone.ms"
    write_measurement_set(alone, simulation(lines=(), noise=0.0))
    assert image([str(alone), "--output", str(work), *GRID, "--terms", "2", "--no-picture"]) == 0
    subtract = ["--subtract", str(work / "image-components.fits")]
    assert spectral.main([str(data), "--output", str(work), *GRID, *subtract]) == 0
    return work


def test_a_line_is_where_it_is_and_the_continuum_is_gone(cube: Path) -> None:
    planes = fits.getdata(cube / "cube.fits")[0]
    row, column = SIZE // 2 + 20, SIZE // 2 - 30
    assert np.unravel_index(np.nanargmax(planes[PEAK]), (SIZE, SIZE)) == (row, column)
    expected = np.exp(-(((np.arange(CHANNELS) - PEAK) / 0.7) ** 2) / 2)
    there = np.arange(CHANNELS) != EMPTY
    np.testing.assert_allclose(planes[there, row, column], expected[there], atol=0.02)
    at_continuum = planes[there, SIZE // 2 - 15, SIZE // 2 + 25]
    assert np.abs(at_continuum).max() < 0.02  # of 2 Jy


def test_a_channel_without_data_is_no_number(cube: Path) -> None:
    with fits.open(cube / "cube.fits") as hdus:
        assert np.all(np.isnan(hdus[0].data[0, EMPTY]))
        assert np.isnan(hdus["BEAMS"].data["BMAJ"][EMPTY])
        assert hdus["CHANNELS"].data["SAMPLES"][EMPTY] == 0
        assert np.isfinite(np.delete(hdus[0].data[0], EMPTY, axis=0)).all()


def test_header_and_tables_are_as_others_read_them(cube: Path) -> None:
    with fits.open(cube / "cube.fits") as hdus, warnings.catch_warnings():
        header, beams, channels = hdus[0].header, hdus["BEAMS"], hdus["CHANNELS"].data
        wcs = WCS(header)
        assert wcs.axis_type_names == ["RA", "DEC", "FREQ", "STOKES"]
        frequencies = wcs.all_pix2world([[0, 0, i, 0] for i in range(CHANNELS)], 0)[:, 2]
        assert frequencies == pytest.approx(simulation().frequencies)
        assert header["CASAMBM"] is True and "BMAJ" not in header
        assert header["BUNIT"] == "Jy/beam"
        assert (beams.header["NCHAN"], beams.header["TUNIT1"]) == (CHANNELS, "arcsec")
        assert beams.data["CHAN"].tolist() == list(range(CHANNELS))
        assert channels["FREQ"] == pytest.approx(frequencies)
        # A beam grows with the wavelength.
        widths = np.delete(beams.data["BMAJ"] * channels["FREQ"], EMPTY)
        assert np.ptp(widths) < 0.05 * widths.mean()
    quality = json.loads((cube / "quality.json").read_text())
    assert (quality["channels"], quality["channels_without_data"]) == (CHANNELS, 1)
    assert (quality["peak_channel"], quality["peak_row"]) == (PEAK, SIZE // 2 + 20)
    assert (cube / "cube.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_parts_make_the_same_cube_in_any_cut(cube: Path, data: Path, tmp_path: Path) -> None:
    components = ["--subtract", str(cube / "image-components.fits"), "--part"]
    for cut in ("4:5", "0:4", "5:9"):
        options = ["--output", str(tmp_path), *GRID, *components, "--channels", cut]
        assert spectral.main([str(data), *options]) == 0
    assert len(list(tmp_path.glob("cube-part-*.fits"))) == 3
    assert joining.main([str(tmp_path), "--channels", f"0:{CHANNELS}"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"cube.fits", "cube.png", "quality.json"}
    ours, whole = (fits.open(folder / "cube.fits") for folder in (tmp_path, cube))
    with ours, whole:
        np.testing.assert_array_equal(ours[0].data, whole[0].data)
        for name in ("BEAMS", "CHANNELS"):
            for column in ours[name].columns.names:
                np.testing.assert_array_equal(ours[name].data[column], whole[name].data[column])
    # Who was interrupted before his end was told is started again.
    assert joining.main([str(tmp_path), "--channels", f"0:{CHANNELS}"]) == 0


def test_what_is_no_cube_is_told(
    cube: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: object) -> str:
        assert joining.main([str(a) for a in arguments]) == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "no cube-part-FIRST-END.fits" in told(tmp_path)
    part = (cube / "cube.fits").read_bytes()
    (tmp_path / "cube-part-00000-00009.fits").write_bytes(part)
    assert "1 of channels 0:10 are in no part, 9 the first" in told(tmp_path, "--channels", "0:10")
    (tmp_path / "cube-part-00009-00018.fits").write_bytes(part)
    assert "begins with channel 0" in told(tmp_path)
    (tmp_path / "cube-part-00009-00018.fits").write_bytes(part[: len(part) // 2])
    assert "cannot read cube" in told(tmp_path)
    assert not (tmp_path / "cube.fits").exists()


@pytest.mark.parametrize("channels", ["3", "5:5", "7:3", "-1:4", "0:999", "a:b", "0:10"])
def test_nonsense_is_answered_in_one_line(
    data: Path, tmp_path: Path, channels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--output", str(tmp_path), *GRID, f"--channels={channels}"]
    assert spectral.main([str(data), *options]) == 1
    assert "imaging: channels" in capsys.readouterr().err.splitlines()[-1]


def test_components_of_another_place_are_refused(
    cube: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.fits"
    with fits.open(cube / "image-components.fits") as hdus:
        hdus["COMPONENTS"].header["DEC"] += 0.01
        hdus.writeto(other)
    options = ["--output", str(tmp_path), *GRID, "--subtract", str(other)]
    assert spectral.main([str(data), *options]) == 1
    assert "of another place, 0.573 degrees away" in capsys.readouterr().err


def test_a_cube_can_be_read_plane_by_plane(cube: Path) -> None:
    reader = CubeReader(cube / "cube.fits")
    assert (reader.n_channels, reader.size) == (CHANNELS, SIZE)
    assert reader.channels[EMPTY].beam is None and reader.channels[PEAK].beam is not None
    assert np.nanmax(reader.plane(PEAK)) == pytest.approx(reader.channels[PEAK].peak)
    reader.close()
