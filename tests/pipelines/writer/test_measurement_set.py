"""The MeasurementSet: what casacore and wsclean read from it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import katpoint
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from casacore.tables import table

from pipelines.common.baselines import correlator_ordering, split_input
from pipelines.common.l0 import Dump, DumpPart, L0Layout
from pipelines.common.stream_info import VisStream
from pipelines.common.uvw import SPEED_OF_LIGHT, antenna_uvw, direction_cosines
from pipelines.correlator.measurement_set import open_measurement_set
from pipelines.correlator.meerkat import DIAMETER, ENU, REFERENCE
from pipelines.writer.describe_ms import Facts, describe
from pipelines.writer.measurement_set import MeasurementSetSink
from pipelines.writer.store import StoreError
from pipelines.writer.timeline import timeline

NAMES = tuple(f"m{i:03}" for i in range(0, 60, 6))
ANTENNAS = tuple(
    katpoint.Antenna(f"{name}, {REFERENCE}, {DIAMETER}, " + " ".join(map(str, ENU[name])))
    for name in NAMES
)
STREAM = VisStream(
    name="sdp_l0",
    n_chans=8,
    bandwidth=8e6,
    center_freq=1.4e9,
    sync_time=1_600_000_000.0,
    int_time=4.0,
    bls_ordering=correlator_ordering(NAMES),
    src_streams=("bcp",),
)
LAYOUT = L0Layout(STREAM.n_chans, STREAM.n_bls, 2, STREAM.int_time)
CALIBRATOR = "cal, radec bpcal, 4:08:20.38, -65:45:09.1"
FIELD = "field, radec target, 2:50:00, -25:00:00"
SOURCE = katpoint.Target("source, radec, 2:49:20, -25:12:00")
N_DUMPS = 6
FACTS = Facts(ANTENNAS, "somebody", "EXP-1")


def visibilities(dump: int) -> np.ndarray[Any, Any]:
    """A source of 2 Jy beside the field's centre; hv and vh are told apart by a number."""
    centre = katpoint.Target(FIELD)
    when = STREAM.sync_time + STREAM.int_time * dump
    uvw = antenna_uvw(centre, [when], ANTENNAS)[0]
    lmn = direction_cosines(centre, SOURCE, when, ANTENNAS[0])
    vis = np.zeros((STREAM.n_chans, STREAM.n_bls), np.complex64)
    for i, (a, b) in enumerate(STREAM.bls_ordering):
        (first, pol_a), (second, pol_b) = split_input(a), split_input(b)
        if pol_a != pol_b:
            vis[:, i] = 0.25 if pol_a == "h" else 0.75
            continue
        vector = uvw[NAMES.index(first)] - uvw[NAMES.index(second)]
        vis[:, i] = 2 * np.exp(2j * np.pi * STREAM.channel_freqs / SPEED_OF_LIGHT * (vector @ lmn))
    return vis


def make_dump(index: int, senders: tuple[int, ...] = (0, 1)) -> Dump:
    vis = visibilities(index)
    flags = np.zeros(vis.shape, np.uint8)
    flags[2] = 0x10
    parts = [
        DumpPart(
            channels,
            vis[channels.start : channels.stop],
            flags[channels.start : channels.stop],
            np.full((len(channels), STREAM.n_bls), 4, np.uint8),
            np.full(len(channels), 0.5 + channels.start, np.float32),
        )
        for channels in map(LAYOUT.channels, senders)
    ]
    return Dump(index, index * STREAM.int_time, tuple(parts))


def conclude(sink: MeasurementSetSink) -> None:
    edge = STREAM.sync_time + 1.5 * STREAM.int_time  # between the dumps 1 and 2
    targets = [(CALIBRATOR, STREAM.sync_time - 10), (FIELD, edge)]
    activities = [("track", STREAM.sync_time - 10), ("slew", edge), ("track", edge + 4.0)]
    describe(sink, FACTS, timeline(targets, activities, sink.times(), STREAM.int_time))
    sink.finish()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "1" / "1_sdp_l0.ms"
    sink = MeasurementSetSink(path, STREAM, LAYOUT)
    for index in range(N_DUMPS):
        sink.write(make_dump(index, (0,) if index == 4 else (0, 1)))
    assert not path.exists()
    conclude(sink)
    return path


def test_rows_hold_what_came_and_flag_what_did_not(written: Path) -> None:
    with table(str(written), ack=False) as main:
        n_pairs = len(NAMES) * (len(NAMES) + 1) // 2
        assert main.nrows() == N_DUMPS * n_pairs
        data, flag = main.getcol("DATA"), main.getcol("FLAG")
        weight = main.getcol("WEIGHT_SPECTRUM")
        ant1, ant2, dump = main.getcol("ANTENNA1"), main.getcol("ANTENNA2"), np.arange(N_DUMPS)
        np.testing.assert_array_equal(
            main.getcol("TIME")[::n_pairs] - 40587 * 86400.0, STREAM.sync_time + 4.0 * dump
        )
    for row in range(0, N_DUMPS * n_pairs, 7):
        index, vis = row // n_pairs, visibilities(row // n_pairs)
        for corr, pols in enumerate(("hh", "hv", "vh", "vv")):
            pair = (NAMES[ant1[row]] + pols[0], NAMES[ant2[row]] + pols[1])
            product = STREAM.bls_ordering.index(pair)
            lost = np.arange(8) >= (4 if index == 4 else 8)
            np.testing.assert_array_equal(data[row, :, corr], np.where(lost, 0, vis[:, product]))
            slewing = index == 2
            expected = lost | (np.arange(8) == 2) | slewing
            np.testing.assert_array_equal(flag[row, :, corr], expected)
            scale = np.where(np.arange(8) < 4, 0.5, 4.5)
            np.testing.assert_array_equal(weight[row, :, corr], np.where(lost, 0, 4 * scale))


def test_scans_fields_and_intents_follow_the_sensors(written: Path) -> None:
    with table(str(written), ack=False) as main:
        n_pairs = len(NAMES) * (len(NAMES) + 1) // 2
        assert main.getcol("FIELD_ID")[::n_pairs].tolist() == [0, 0, 1, 1, 1, 1]
        assert main.getcol("SCAN_NUMBER")[::n_pairs].tolist() == [1, 1, 2, 3, 3, 3]
        assert main.getcol("FLAG_ROW")[::n_pairs].tolist() == [False] * 2 + [True] + [False] * 3
    with table(f"{written}::FIELD", ack=False) as field:
        assert field.getcol("NAME") == ["cal", "field"]
        radec = katpoint.Target(FIELD).astrometric_radec(STREAM.sync_time)
        np.testing.assert_allclose(field.getcell("PHASE_DIR", 1)[0], radec, atol=1e-8)
    with table(f"{written}::STATE", ack=False) as state:
        modes = ["CALIBRATE_BANDPASS#UNSPECIFIED", "OBSERVE_TARGET#UNSPECIFIED"]
        assert state.getcol("OBS_MODE") == modes
    with table(f"{written}::OBSERVATION", ack=False) as observation:
        assert observation.getcol("TELESCOPE_NAME") == ["MeerKAT"]


def test_our_own_replay_reads_it(written: Path) -> None:
    read = open_measurement_set(written)
    assert read.names == NAMES
    np.testing.assert_allclose(read.freqs, STREAM.channel_freqs)
    assert read.field_names == ("cal", "field")
    positions = np.array([antenna.position_ecef for antenna in ANTENNAS])
    np.testing.assert_allclose(read.positions, positions, atol=1e-6)


def test_wsclean_finds_the_source(written: Path, tmp_path: Path) -> None:
    program = shutil.which("wsclean")
    if program is None:
        pytest.skip("wsclean is not installed")
    subprocess.run(
        [
            *(program, "-field", "1", "-size", "512", "512", "-scale", "10asec", "-niter", "0"),
            *("-weight", "natural", "-pol", "i", "-j", "1", "-name", "image"),
            *("-no-update-model-required", "-data-column", "DATA", str(written)),
        ],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with fits.open(tmp_path / "image-dirty.fits") as hdus:
        image, header = hdus[0].data[0, 0], hdus[0].header
    y, x = np.unravel_index(np.argmax(image), image.shape)
    ra, dec = np.degrees(SOURCE.astrometric_radec(STREAM.sync_time))
    del header["DATE-OBS"]  # astropy would remark that MJD-OBS is not there
    expected = WCS(header).celestial.all_world2pix(ra, dec, 0)
    np.testing.assert_allclose([x, y], expected, atol=1.0)  # the beam is four pixels wide
    assert image.max() == pytest.approx(2.0, rel=0.03)


def test_a_program_that_was_restarted_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    sink = MeasurementSetSink(path, STREAM, LAYOUT)
    sink.write(make_dump(0))
    sink._main.close()
    sink = MeasurementSetSink(path, STREAM, LAYOUT)
    sink.write(make_dump(3))
    np.testing.assert_array_equal(sink.times(), STREAM.sync_time + np.array([0.0, 12.0]))
    conclude(sink)
    with pytest.raises(StoreError, match="there already"):
        MeasurementSetSink(path, STREAM, LAYOUT)


def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    sink = MeasurementSetSink(tmp_path / "b" / "a.ms", STREAM, LAYOUT)
    sink.write(make_dump(0))
    sink.discard()
    assert list((tmp_path / "b").iterdir()) == []


def test_an_empty_block_is_a_valid_set(tmp_path: Path) -> None:
    sink = MeasurementSetSink(tmp_path / "a.ms", STREAM, LAYOUT)
    describe(sink, FACTS, timeline([], [], sink.times(), STREAM.int_time))
    sink.finish()
    with table(str(tmp_path / "a.ms"), ack=False) as main:
        assert main.nrows() == 0
