"""katdal's own converter makes the MeasurementSet that our second sink makes, of the same dumps."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from casacore.tables import table
from katsdptelstate.aio.memory import MemoryBackend
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common.dataset_files import rdb_path
from pipelines.metadata.rdb import write_rdb
from pipelines.writer.describe_ms import describe
from pipelines.writer.measurement_set import MeasurementSetSink
from pipelines.writer.store import BlockStore
from pipelines.writer.timeline import timeline
from tests.pipelines.writer.test_measurement_set import (
    ANTENNAS,
    CALIBRATOR,
    FACTS,
    FIELD,
    LAYOUT,
    N_DUMPS,
    SOURCE,
    STREAM,
    make_dump,
)

CBID = "1600000000"
SLEWING = 2
"""Dump that has no target: the converter leaves it out."""
BEFORE = STREAM.sync_time - 10
# Away from the edges of dumps, where katdal takes a value for both.
BEGIN, END = (STREAM.sync_time + STREAM.int_time * (SLEWING + part) for part in (-0.4, 0.4))
TARGETS = [(CALIBRATOR, BEFORE), (FIELD, BEGIN)]
ACTIVITIES = [("track", BEFORE), ("slew", BEGIN), ("track", END)]


async def write_both(root: Path) -> tuple[Path, Path]:
    """Write the dumps as a data set and as a MeasurementSet; return the paths of both."""
    sink = MeasurementSetSink(root / "ours.ms", STREAM, LAYOUT)
    store = BlockStore(root, CBID, STREAM.name, LAYOUT)
    for index in range(N_DUMPS):
        dump = make_dump(index, (0,) if index == 4 else (0, 1))
        sink.write(dump)
        for part in dump.parts:
            store.write(index, part)
    describe(sink, FACTS, timeline(TARGETS, ACTIVITIES, sink.times(), STREAM.int_time))
    sink.finish()
    telstate = TelescopeState(MemoryBackend())
    await STREAM.publish(telstate)
    values: dict[str, Any] = {
        "sub_product": "c856M4k",
        "sub_band": "l",
        "sub_pool_resources": ",".join(antenna.name for antenna in ANTENNAS),
        **{f"{antenna.name}_observer": antenna.description for antenna in ANTENNAS},
        f"{STREAM.name}_stream_type": "sdp.vis",
        f"{CBID}_obs_params": {"observer": FACTS.observer, "experiment_id": FACTS.project},
        f"{CBID}_{STREAM.name}_first_timestamp": 0.0,
        f"{CBID}_{STREAM.name}_chunk_info": store.chunk_info(N_DUMPS),
    }
    for key, value in values.items():
        await telstate.set(key, value)
    for sensor, samples in (("cbf_target", TARGETS), ("obs_activity", ACTIVITIES)):
        for text, time in samples:
            await telstate.add(sensor, text, ts=time)
    rdb = rdb_path(root, CBID, STREAM.name)
    extra = {"capture_block_id": CBID, "stream_name": STREAM.name}
    await write_rdb(telstate, CBID, rdb, extra)
    return rdb, sink.path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The MeasurementSet that katdal's converter makes, and ours."""
    if importlib.util.find_spec("pkg_resources") is None:
        pytest.skip("mvftoms needs setuptools < 81")
    files = importlib.metadata.files("katdal") or []
    (program,) = (str(f.locate()) for f in files if f.name == "mvftoms.py")
    tmp_path = tmp_path_factory.mktemp("both")
    rdb, ours = asyncio.run(write_both(tmp_path))
    theirs = tmp_path / "theirs.ms"
    done = subprocess.run(
        [sys.executable, program, "--full_pol", "--quack", "0", "-o", str(theirs), str(rdb)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    return theirs, ours


def columns(path: Path) -> dict[str, Any]:
    """Main table, sorted by dump and pair of antennas."""
    with table(str(path), ack=False) as main:
        names = ("TIME", "ANTENNA1", "ANTENNA2", "DATA", "FLAG", "WEIGHT_SPECTRUM", "UVW")
        found = {name: main.getcol(name) for name in (*names, "INTERVAL", "EXPOSURE")}
    order = np.lexsort((found["ANTENNA2"], found["ANTENNA1"], found["TIME"]))
    return {name: values[order] for name, values in found.items()}


def test_both_say_the_same(both: tuple[Path, Path]) -> None:
    theirs, ours = map(columns, both)
    n_pairs = len(ANTENNAS) * (len(ANTENNAS) + 1) // 2
    tracked = np.repeat(np.arange(N_DUMPS) != SLEWING, n_pairs)
    ours = {name: values[tracked] for name, values in ours.items()}
    assert len(theirs["TIME"]) == (N_DUMPS - 1) * n_pairs
    for name in ("ANTENNA1", "ANTENNA2", "FLAG", "DATA"):
        np.testing.assert_array_equal(theirs[name], ours[name], err_msg=name)
    # Theirs are times in days first: 16 µs.
    for name, rounding in {"TIME": 1e-4, "INTERVAL": 1e-6, "EXPOSURE": 1e-6, "UVW": 1e-6}.items():
        np.testing.assert_allclose(theirs[name], ours[name], rtol=0, atol=rounding, err_msg=name)
    np.testing.assert_allclose(theirs["WEIGHT_SPECTRUM"], ours["WEIGHT_SPECTRUM"], rtol=1e-6)
    assert np.abs(ours["UVW"]).max() > 100 and ours["FLAG"].any() and not ours["FLAG"].all()


def test_both_have_the_same_antennas_frequencies_and_fields(both: tuple[Path, Path]) -> None:
    for sub, column, rounding in (
        ("ANTENNA", "POSITION", 1e-5),
        ("SPECTRAL_WINDOW", "CHAN_FREQ", 1e-3),
        ("FIELD", "PHASE_DIR", 1e-8),
        ("POLARIZATION", "CORR_TYPE", 0),
    ):
        theirs, ours = (table(f"{path}::{sub}", ack=False).getcol(column) for path in both)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=rounding, err_msg=column)


def test_wsclean_finds_the_source_in_the_converted_set(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    wsclean = shutil.which("wsclean")
    if wsclean is None:
        pytest.skip("wsclean is not installed")
    command = [wsclean, "-field", "1", "-size", "512", "512", "-scale", "10asec", "-niter", "0"]
    command += ["-weight", "natural", "-pol", "i", "-j", "1", "-name", "image"]
    command += ["-no-update-model-required", "-data-column", "DATA", str(both[0])]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    with fits.open(tmp_path / "image-dirty.fits") as hdus:
        image, header = hdus[0].data[0, 0], hdus[0].header
    del header["DATE-OBS"]  # astropy would remark that MJD-OBS is not there
    y, x = np.unravel_index(np.argmax(image), image.shape)
    radec = np.degrees(SOURCE.astrometric_radec(STREAM.sync_time))
    expected = WCS(header).celestial.all_world2pix(*radec, 0)
    np.testing.assert_allclose([x, y], expected, atol=1.0)  # the beam is four pixels wide
    assert image.max() == pytest.approx(2.0, rel=0.03)
