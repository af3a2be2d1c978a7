"""MeasurementSets, as others write them: in any order, with gaps, either kind of feed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import casacore.tables
import numpy as np
import pytest

from benchmarks.imaging_data import Simulation, coordinates, visibilities, write_measurement_set
from pipelines.imaging.errors import ImagingError, NoVisibilitiesError, UnknownTargetError
from pipelines.imaging.source import open_source, require_some

SIMULATION = Simulation(antennas=5, dumps=7, channels=6, noise=0.0)
ALL = range(SIMULATION.channels)


def silent(fraction: float) -> None:
    assert 0 < fraction <= 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_measurement_set(tmp_path / "a.ms", SIMULATION)
    return tmp_path / "a.ms"


def change(path: Path, column: str, values: Callable[[np.ndarray], np.ndarray]) -> None:
    with casacore.tables.table(str(path), readonly=False, ack=False) as main:
        main.putcol(column, values(main.getcol(column)))


def expected() -> tuple[np.ndarray, np.ndarray]:
    """uvw (baselines, dumps, 3) and visibilities (baselines, dumps, channels)."""
    uvw, _ = coordinates(SIMULATION)
    vis = visibilities(SIMULATION, uvw.reshape(-1, 3)).reshape(*uvw.shape[:2], -1)
    return uvw.transpose(1, 0, 2), vis.transpose(1, 0, 2)


def test_everything_is_read(path: Path, tmp_path: Path) -> None:
    source = open_source(path, None, applycal=True)
    observation = source.observation
    assert (observation.name, observation.telescope) == ("synthetic", "MeerKAT")
    assert observation.end - observation.start == pytest.approx(6 * 8.0)
    assert observation.dump_period == 8.0 and observation.diameter == 13.5
    assert np.allclose(observation.frequencies, SIMULATION.frequencies)
    with source.read(tmp_path, ALL, silent) as spool:
        uvw, vis = expected()
        assert np.array_equal(spool.uvw, uvw)
        np.testing.assert_allclose(spool.vis, vis, atol=1e-6)
        assert np.all(spool.weights == 2)  # the mean of two samples of weight one has four halves


def test_a_range_of_channels(path: Path, tmp_path: Path) -> None:
    with open_source(path, None, applycal=True).read(tmp_path, range(2, 5), silent) as spool:
        assert np.array_equal(spool.frequencies, SIMULATION.frequencies[2:5])
        np.testing.assert_allclose(spool.vis, expected()[1][..., 2:5], atol=1e-6)


def test_rows_may_stand_in_any_order_and_be_missing(path: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "b.ms"
    main = casacore.tables.table(str(path), ack=False)
    rows = np.random.default_rng(1).permutation(main.nrows())[:-5]
    main.selectrows(rows.tolist()).copy(str(shuffled), deep=True).close()
    source = open_source(shuffled, None, applycal=True)
    with source.read(tmp_path, ALL, silent) as spool:
        there = spool.weights[..., 0] > 0
        assert np.count_nonzero(~there) == 5
        np.testing.assert_allclose(spool.vis[there], expected()[1][there], atol=1e-6)


def test_flags_of_samples_and_of_rows_count(path: Path, tmp_path: Path) -> None:
    def some(flags: np.ndarray) -> np.ndarray:
        flags[3, 2, 1] = True
        return flags

    change(path, "FLAG", some)
    change(path, "FLAG_ROW", lambda flags: np.arange(flags.size) == 11)
    with open_source(path, None, applycal=True).read(tmp_path, ALL, silent) as spool:
        assert spool.weights[3, 0, 2] == 0 and spool.vis[3, 0, 2] == 0
        assert not spool.weights[1, 1].any()
        assert np.count_nonzero(spool.weights == 0) == 1 + SIMULATION.channels


def test_corrected_data_are_taken_if_wanted(path: Path, tmp_path: Path) -> None:
    with casacore.tables.table(str(path), readonly=False, ack=False) as main:
        column = casacore.tables.makearrcoldesc("CORRECTED_DATA", 0j, ndim=2)
        main.addcols(casacore.tables.maketabdesc(column))
        main.putcol("CORRECTED_DATA", 2 * main.getcol("DATA"))
    for applycal, factor in ((True, 2), (False, 1)):
        source = open_source(path, None, applycal=applycal)
        assert source.applied == (("CORRECTED_DATA",) if applycal else ())
        with source.read(tmp_path, ALL, silent) as spool:
            np.testing.assert_allclose(spool.vis, factor * expected()[1], atol=1e-5)


def test_frequencies_may_fall(path: Path, tmp_path: Path) -> None:
    change(path, "DATA", lambda data: data[:, ::-1])
    with casacore.tables.table(f"{path}::SPECTRAL_WINDOW", readonly=False, ack=False) as window:
        window.putcell("CHAN_FREQ", 0, SIMULATION.frequencies[::-1].copy())
    with open_source(path, None, applycal=True).read(tmp_path, range(1, 4), silent) as spool:
        assert np.all(np.diff(spool.frequencies) > 0)
        np.testing.assert_allclose(spool.vis, expected()[1][..., 1:4], atol=1e-6)


def test_what_cannot_be_imaged_is_told_in_one_line(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownTargetError, match="'synthetic'"):
        open_source(path, "Mars", applycal=True)
    with pytest.raises(ImagingError, match="no data set"):
        open_source(tmp_path / "none.ms", None, applycal=True)
    (tmp_path / "empty.ms").mkdir()
    with pytest.raises(ImagingError, match="cannot read"):
        open_source(tmp_path / "empty.ms", None, applycal=True)
    change(path, "FLAG", lambda flags: np.ones_like(flags))
    with (
        open_source(path, None, applycal=True).read(tmp_path, ALL, silent) as spool,
        pytest.raises(NoVisibilitiesError, match="none of 420 samples"),
    ):
        require_some(spool, "it")
    with casacore.tables.table(f"{path}::POLARIZATION", readonly=False, ack=False) as table:
        table.putcell("CORR_TYPE", 0, np.array([10, 11], np.int32))
    with pytest.raises(NoVisibilitiesError, match="parallel hands"):
        open_source(path, None, applycal=True)
