"""The whole way from visibilities to source list, on skies that are put together by direct sums."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.imaging.beam import Beam, fit_beam, highest_sidelobe
from pipelines.imaging.clean import (
    CleanSettings,
    StopReason,
    clean,
    component_mask,
    robust_rms,
)
from pipelines.imaging.errors import SettingsError
from pipelines.imaging.geometry import celestial_wcs, choose_grid, primary_beam
from pipelines.imaging.gridder import Gridder
from pipelines.imaging.measurement import Measurement, longest_baseline, weigh
from pipelines.imaging.restore import restore
from pipelines.imaging.sources import find_sources
from pipelines.imaging.visibilities import VisibilitySpool
from pipelines.imaging.weighting import WeightScheme

PRIMARY = primary_beam(13.5, 1284e6)


def random_sky(rng: np.random.Generator, n: int = 5) -> np.ndarray:
    """Sources of 0.2 to 2 Jy over the field, not nearer to each other than some beams."""
    places: list[np.ndarray] = []
    while len(places) < n:
        place = rng.uniform(-0.5, 0.5, 2) * PRIMARY
        if all(np.hypot(*(place - other)) > 8e-4 for other in places):
            places.append(place)
    flux = np.exp(rng.uniform(math.log(0.2), math.log(2), n))
    return np.c_[np.array(places), flux]


def measure(observed, tmp_path, scheme: WeightScheme | None = None):
    rows, channels = observed.vis.shape
    spool = VisibilitySpool((rows, 1, channels), observed.frequencies, tmp_path)
    spool.uvw[:, 0] = observed.uvw
    spool.vis[:, 0], spool.weights[:, 0] = observed.vis, observed.weights
    assert longest_baseline(spool) <= observed.longest * (1 + 1e-9)
    grid = choose_grid(longest_baseline(spool), PRIMARY)
    return spool, Measurement(spool, Gridder(grid, 2), weigh(spool, grid, scheme or WeightScheme()))


def cleaned(measurement: Measurement, settings: CleanSettings):
    psf = measurement.point_spread_function(2 * measurement.gridder.grid.size)
    beam = fit_beam(psf[0])
    dirty = measurement.dirty_image()
    sidelobe = highest_sidelobe(psf[0], beam)
    return beam, clean(dirty, psf, beam, sidelobe, measurement.residual_of, settings)


@pytest.mark.parametrize("seed", range(6))
def test_a_snapshot_of_eight_antennas_gives_fluxes_and_places(
    observation, tmp_path, seed: int
) -> None:
    rng = np.random.default_rng(100 + seed)
    sky = random_sky(rng)
    observed = observation(
        sky, rng=rng, noise=0.2, dec=rng.uniform(-1.2, 0.2), hour_angle=rng.uniform(-1, 1)
    )
    spool, measurement = measure(observed, tmp_path)
    with spool:
        beam, result = cleaned(measurement, CleanSettings())
    grid = measurement.gridder.grid
    image = restore(result.model[0], result.residual[0], beam)
    found = find_sources(image, result.residual[0], beam, celestial_wcs(grid, 1.0, -0.5))
    for l, m, flux in sky:  # noqa: E741
        row, column = grid.to_pixels(np.array(l), np.array(m))
        near = min(found, key=lambda s: math.hypot(s.row - row, s.column - column))
        assert math.hypot(near.row - row, near.column - column) < 0.5
        assert near.flux == pytest.approx(flux, rel=0.03)
    # Nothing else that is bright: the sidelobes, a third of the peak in the dirty image, are gone.
    assert all(source.flux < 0.02 * sky[:, 2].max() for source in found[5:])
    thermal = 0.2 / math.sqrt(observed.vis.size)
    assert robust_rms(result.residual[0]) < 1.6 * thermal
    assert result.reason in (StopReason.NOISE, StopReason.STALLED)


def test_spectra_do_not_spoil_the_mean_flux(observation, tmp_path) -> None:
    rng = np.random.default_rng(7)
    sky = random_sky(rng, 3)
    observed = observation(sky, rng=rng, noise=0.2, index=-0.7, channels=256)
    spool, measurement = measure(observed, tmp_path)
    with spool:
        beam, result = cleaned(measurement, CleanSettings())
    grid = measurement.gridder.grid
    image = restore(result.model[0], result.residual[0], beam)
    found = find_sources(image, result.residual[0], beam, celestial_wcs(grid, 1.0, -0.5))
    spectrum = (observed.frequencies / observed.frequencies.mean()) ** -0.7
    mean = float(np.dot(measurement.totals.channels, spectrum))
    for l, m, flux in sky:  # noqa: E741
        row, column = grid.to_pixels(np.array(l), np.array(m))
        near = min(found, key=lambda s: math.hypot(s.row - row, s.column - column))
        assert near.flux == pytest.approx(flux * mean, rel=0.05)


@pytest.fixture
def small(observation, tmp_path):
    sky = np.array([[0.003, 0.004, 1.0]])
    observed = observation(sky, rng=np.random.default_rng(3), noise=0.2, channels=64)
    spool, measurement = measure(observed, tmp_path)
    with spool:
        yield measurement


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (CleanSettings(iterations=0), StopReason.NOT_ASKED),
        (CleanSettings(iterations=12), StopReason.ITERATIONS),
        (CleanSettings(threshold=0.2), StopReason.THRESHOLD),
        (CleanSettings(major_cycles=1), StopReason.MAJOR_CYCLES),
    ],
)
def test_limits_are_kept(small: Measurement, settings: CleanSettings, reason: StopReason) -> None:
    _, result = cleaned(small, settings)
    assert result.reason is reason
    assert result.iterations <= settings.iterations
    assert result.major_cycles <= settings.major_cycles
    if settings.iterations == 0:
        assert not result.model.any()
    if settings.threshold is not None:
        assert 0.15 < result.residual.max() <= settings.threshold


def test_the_residual_belongs_to_the_model(small: Measurement) -> None:
    _, result = cleaned(small, CleanSettings())
    np.testing.assert_allclose(result.residual, small.residual_of(result.model), atol=1e-6)


def test_what_cannot_be_cleaned_ends() -> None:
    """A major cycle that makes everything worse stops, and the best model is what remains."""
    rng = np.random.default_rng(1)
    dirty = rng.normal(0, 0.001, (1, 64, 64)).astype(np.float32)
    dirty[0, 32, 32] = 1.0
    psf = np.zeros((1, 128, 128), np.float32)
    psf[0, 64, 64] = 1.0
    calls = []

    def worse(model: np.ndarray) -> np.ndarray:
        calls.append(1)
        return dirty * np.float32(1.5 ** len(calls))

    result = clean(dirty, psf, Beam(3, 3, 0), 0.1, worse, CleanSettings())
    assert result.reason is StopReason.STALLED
    assert not result.model.any()
    assert np.array_equal(result.residual, dirty)
    assert len(calls) < 10


def test_an_image_without_anything_is_clean() -> None:
    nothing = np.zeros((1, 64, 64), np.float32)
    psf = np.zeros((1, 128, 128), np.float32)
    psf[0, 64, 64] = 1.0
    result = clean(nothing, psf, Beam(3, 3, 0), 0.0, lambda m: nothing, CleanSettings())
    assert result.iterations == 0


def test_the_mask_is_a_beam_around_components() -> None:
    model = np.zeros((64, 64), np.float32)
    model[30, 30] = -0.1
    rows, columns = np.nonzero(component_mask(model, Beam(6, 4, 0)))
    assert set(np.hypot(rows - 30, columns - 30) <= 3) == {True}
    assert len(rows) == 29


def test_the_noise_is_not_misled_by_sources() -> None:
    image = np.random.default_rng(2).normal(0.1, 2.0, (300, 300)).astype(np.float32)
    image[::20, ::20] = 1000
    assert robust_rms(image) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(
    "values",
    [{"iterations": -1}, {"threshold": 0.0}, {"threshold": math.nan}, {"gain": 0}, {"gain": 1.5},
     {"major_cycles": 0}],
)  # fmt: skip
def test_nonsense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        CleanSettings(**values)
