"""Wide bands: fluxes and spectral indices over random fields, also far from the centre; extended sources."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.imaging.beam import fit_beam, highest_sidelobe
from pipelines.imaging.clean import CleanSettings, clean, robust_rms
from pipelines.imaging.geometry import celestial_wcs, choose_grid, primary_beam
from pipelines.imaging.gridder import Gridder
from pipelines.imaging.measurement import Measurement, longest_baseline, weigh
from pipelines.imaging.restore import restore
from pipelines.imaging.sources import Source, find_sources, with_indices
from pipelines.imaging.spectrum import power_laws
from pipelines.imaging.visibilities import VisibilitySpool
from pipelines.imaging.weighting import WeightScheme
from tests.pipelines.imaging.conftest import LIGHT, baselines

PRIMARY = primary_beam(13.5, 1284e6)
FREQUENCIES = 856e6 + 856e6 / 48 * np.arange(48)
NOISE = 0.05


def array(rng: np.random.Generator, n: int = 14) -> np.ndarray:
    """East, north, up, metres: like the inner part of MeerKAT."""
    return np.c_[rng.normal(0, 180, (n, 2)), rng.normal(0, 3, n)]


def wave(uvw: np.ndarray, l: float, m: float) -> np.ndarray:  # noqa: E741
    path = uvw @ np.array([l, m, math.sqrt(1 - l * l - m * m) - 1])
    return np.exp(2j * np.pi / LIGHT * path[:, None] * FREQUENCIES)


class Field:
    """An hour of a field, cleaned with some spectral terms."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = np.random.default_rng(seed)
        self.hours = self.rng.uniform(-1, 1) + np.arange(40) * 90.0 * 2 * np.pi / 86164.1
        self.uvw = baselines(array(self.rng), self.rng.uniform(-1.0, -0.2), self.hours)
        self.vis = np.zeros((len(self.uvw), FREQUENCIES.size), np.complex128)
        self.folder = folder

    def add(self, l: float, m: float, flux: float, index: float, width: float = 0.0) -> None:  # noqa: E741
        """A point, or a round Gaussian of this full width (radians); flux at 1284 MHz."""
        spectrum = flux * (FREQUENCIES / 1284e6) ** index
        lengths = np.hypot(self.uvw[:, 0], self.uvw[:, 1])[:, None] * FREQUENCIES / LIGHT
        taper = np.exp(-((np.pi * width * lengths) ** 2) / (4 * math.log(2)))
        self.vis += spectrum * taper * wave(self.uvw, l, m)

    def clean(self, terms: int, settings: CleanSettings | None = None) -> None:
        rng, shape = self.rng, self.vis.shape
        noisy = self.vis + NOISE * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
        by_baseline = (-1, self.hours.size, FREQUENCIES.size)
        spool = VisibilitySpool(
            noisy.reshape(by_baseline).shape,
            FREQUENCIES,
            self.folder,
            self.hours * 86164.1 / 2 / np.pi,
        )
        with spool:
            spool.uvw[:] = self.uvw.reshape(*spool.shape[:2], 3)
            spool.vis[:], spool.weights[:] = noisy.reshape(by_baseline), 1
            self.grid = choose_grid(longest_baseline(spool), PRIMARY)
            totals = weigh(spool, self.grid, WeightScheme())
            measurement = Measurement(spool, Gridder(self.grid, 1), totals, terms)
            psf = measurement.point_spread_function(2 * self.grid.size)
            self.beam = fit_beam(psf[0])
            self.result = clean(
                measurement.dirty_image(),
                psf,
                self.beam,
                highest_sidelobe(psf[0], self.beam),
                measurement.residual_of,
                settings or CleanSettings(),
            )
        self.basis = measurement.basis
        pairs = zip(self.result.model, self.result.residual, strict=True)
        self.images = np.stack([restore(m, r, self.beam) for m, r in pairs])

    def sources(self) -> tuple[Source, ...]:
        wcs = celestial_wcs(self.grid, 1.0, -0.5)
        found = find_sources(self.images[0], self.result.residual[0], self.beam, wcs)
        if self.basis.terms < 2:
            return found
        return with_indices(found, self.images, self.result.residual, power_laws(self.basis))

    def near(self, l: float, m: float) -> Source:  # noqa: E741
        row, column = self.grid.to_pixels(np.array(l), np.array(m))
        found = min(self.sources(), key=lambda s: math.hypot(s.row - row, s.column - column))
        assert math.hypot(found.row - row, found.column - column) < 0.5
        return found


def random_sources(rng: np.random.Generator, n: int = 4) -> list[tuple[float, float, float, float]]:
    """0.3 to 2 Jy with indices from -1.2 to 0.6, apart from each other, one near the edge of the field."""
    places: list[np.ndarray] = [PRIMARY * rng.choice([-0.55, 0.55], 2)]
    while len(places) < n:
        place = rng.uniform(-0.5, 0.5, 2) * PRIMARY
        if all(np.hypot(*(place - other)) > 2e-3 for other in places):
            places.append(place)
    flux = np.exp(rng.uniform(math.log(0.3), math.log(2), n))
    return [(*p, f, i) for p, f, i in zip(places, flux, rng.uniform(-1.2, 0.6, n), strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_fluxes_and_spectral_indices_of_random_fields(seed: int, tmp_path: Path) -> None:
    field = Field(seed, tmp_path)
    sky = random_sources(field.rng)
    for source in sky:
        field.add(*source)
    field.clean(terms=3)
    laws = power_laws(field.basis)
    for l, m, flux, index in sky:  # noqa: E741
        found = field.near(l, m)
        assert found.spectral_index is not None and found.spectral_index_error is not None
        at_reference = flux * (field.basis.reference / 1284e6) ** index
        assert found.spectral_index == pytest.approx(index, abs=0.05)
        assert laws.flux(found.flux, found.spectral_index) == pytest.approx(at_reference, rel=0.02)
        assert found.spectral_index_error < 0.02


def test_spectra_leave_nothing_where_one_term_leaves_much(tmp_path: Path) -> None:
    """The residual at a steep source, with one, two and three terms."""
    left: list[float] = []
    for terms in (1, 2, 3):
        field = Field(11, tmp_path)
        field.add(0.004, 0.003, 2.0, -1.5)
        field.clean(terms)
        left.append(float(np.abs(field.result.residual[0]).max()))
        noise = NOISE / math.sqrt(field.vis.size)
    assert left[0] > 3 * left[1] > 3 * left[2] > 0
    assert robust_rms(field.result.residual[0]) < 2 * noise


@pytest.mark.parametrize("terms", [1, 2])
def test_an_extended_source_keeps_its_flux(terms: int, tmp_path: Path) -> None:
    """A Gaussian of some beams and a point: CLEAN ends, and finds the flux of both (nearly, of the first)."""
    field = Field(21, tmp_path)
    extended: tuple[Any, ...] = (0.002, -0.004, 3.0, -0.5 * (terms - 1))
    field.add(*extended, width=2.5e-4 * 3)
    field.add(-0.005, 0.002, 1.0, 0.0)
    field.clean(terms)
    row, column = (int(x) for x in field.grid.to_pixels(*map(np.array, extended[:2])))
    reach = round(2 * 7.5e-4 / field.grid.pixel)
    part = np.s_[row - reach : row + reach + 1, column - reach : column + reach + 1]
    flux = float(field.images[0][part].sum()) / field.beam.area
    assert flux == pytest.approx(extended[2], rel=0.1)
    assert field.near(-0.005, 0.002).flux == pytest.approx(1.0, rel=0.02)
    peak = float(field.images[0].max())
    assert np.abs(field.result.residual[0]).max() < 0.03 * peak
