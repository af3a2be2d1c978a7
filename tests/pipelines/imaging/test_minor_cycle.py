from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.imaging import minor_cycle as module
from pipelines.imaging.limits import MinorLimits, Places
from pipelines.imaging.minor_cycle import minor_cycle as minor_cycle_of_terms
from pipelines.imaging.minor_cycle import pair_numbers, subtract


def minor_cycle(residual, psf, model, mask, limits, negative=False) -> int:
    """With one spectral term."""
    places = Places(mask, negative)
    return minor_cycle_of_terms(residual[None], psf[None], model[None], places, limits)


def hogbom(residual: np.ndarray, psf: np.ndarray, limits: MinorLimits, negative: bool):
    """Högbom's algorithm, over the whole image and without any art."""
    residual, model = residual.copy(), np.zeros_like(residual)
    size, done = residual.shape[0], 0
    while done < limits.iterations:
        bright = np.abs(residual) if negative else residual
        row, column = np.unravel_index(bright.argmax(), bright.shape)
        if bright[row, column] <= limits.stop:
            break
        flux = np.float32(limits.gain) * residual[row, column]
        model[row, column] += flux
        residual -= flux * psf[size - row : 2 * size - row, size - column : 2 * size - column]
        done += 1
    return model, residual, done


def a_psf(rng: np.random.Generator, size: int) -> np.ndarray:
    """Transform of random points in the uv plane: symmetric, with high sidelobes."""
    x = np.arange(2 * size) - size
    psf = np.zeros((2 * size, 2 * size))
    for u, v in rng.normal(0, 0.6, (25, 2)):
        psf += np.cos(u * x[None, :] + v * x[:, None])
    return (psf / 25).astype(np.float32)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_it_does_what_hogbom_does_where_all_pixels_are_selected(seed: int, negative: bool) -> None:
    rng = np.random.default_rng(seed)
    size = 32
    psf = a_psf(rng, size)
    dirty = np.zeros((size, size), np.float32)
    for row, column in rng.integers(0, size, (3, 2)):
        flux = np.float32(rng.uniform(0.5, 2))
        dirty += flux * psf[size - row : 2 * size - row, size - column : 2 * size - column]
    # A stop below everything selects all pixels; the iterations end it.
    limits = MinorLimits(0.2, -10.0, 40)
    expected, _, _ = hogbom(dirty, psf, limits, negative)
    model = np.zeros_like(dirty)
    assert minor_cycle(dirty, psf, model, None, limits, negative) == 40
    np.testing.assert_allclose(model, expected, atol=2e-5)


def test_it_ends_below_the_stop_and_leaves_the_residual_alone() -> None:
    psf = a_psf(np.random.default_rng(3), 32)
    dirty = psf[12:44, 22:54] * np.float32(2)
    before, model = dirty.copy(), np.zeros_like(dirty)
    done = minor_cycle(dirty, psf, model, None, MinorLimits(0.1, 0.5, 1000))
    assert 10 <= done < 20  # 0.9^n < 1/4
    assert np.array_equal(dirty, before)
    assert model[20, 10] == pytest.approx(2 * (1 - 0.9**done), rel=1e-4)
    assert np.count_nonzero(model) == 1


def test_nothing_outside_the_mask_is_touched() -> None:
    psf = a_psf(np.random.default_rng(4), 32)
    dirty = psf[12:44, 22:54].copy()
    mask = np.zeros(dirty.shape, bool)
    mask[:10] = True
    model = np.zeros_like(dirty)
    minor_cycle(dirty, psf, model, mask, MinorLimits(0.1, 0.05, 50), True)
    assert not model[10:].any()


def test_negative_peaks_are_components_only_if_wanted() -> None:
    psf = a_psf(np.random.default_rng(5), 32)
    dirty, model = -psf[12:44, 22:54], np.zeros((32, 32), np.float32)
    minor_cycle(dirty, psf, model, None, MinorLimits(0.1, 0.9, 5))
    assert not model.any()
    minor_cycle(dirty, psf, model, None, MinorLimits(0.1, 0.5, 5), True)
    assert model[20, 10] < 0


def test_the_selection_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACTIVE", 10)
    psf = a_psf(np.random.default_rng(6), 32)
    dirty, model = psf[12:44, 22:54].copy(), np.zeros((32, 32), np.float32)
    assert minor_cycle(dirty, psf, model, None, MinorLimits(0.1, 0.01, 3)) == 3
    assert model[20, 10] > 0


def test_an_image_of_nothing_has_no_components() -> None:
    model = np.zeros((8, 8), np.float32)
    nothing = np.zeros((8, 8), np.float32)
    psf = np.zeros((16, 16), np.float32)
    assert minor_cycle(nothing, psf, model, None, MinorLimits(0.1, 0.0, 10), True) == 0


def responses(rng: np.random.Generator, size: int, terms: int) -> np.ndarray:
    """Point spread functions of pairs of terms, as weights of channels make them; orthonormal at the centre."""
    basis = np.linalg.qr(rng.normal(size=(terms, terms)))[0] * np.sqrt(terms)
    channels = [a_psf(rng, size) for _ in range(terms)]
    return np.array(
        [
            sum(basis[s, c] * basis[t, c] * channels[c] for c in range(terms)) / terms
            for s in range(terms)
            for t in range(s, terms)
        ],
        np.float32,
    )


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_a_lone_source_is_taken_with_its_spectrum(terms: int) -> None:
    rng = np.random.default_rng(terms)
    size = 32
    psf, pairs = responses(rng, size, terms), pair_numbers(terms)
    spectrum = np.r_[1.0, rng.uniform(-0.5, 0.5, terms - 1)].astype(np.float32)
    window = np.s_[size - 20 : 2 * size - 20, size - 10 : 2 * size - 10]
    dirty = np.array(
        [sum(spectrum[t] * psf[pairs[s, t]][window] for t in range(terms)) for s in range(terms)]
    ).astype(np.float32)
    model = np.zeros_like(dirty)
    done = minor_cycle_of_terms(dirty, psf, model, Places(), MinorLimits(0.2, 0.01, 500))
    assert done < 500
    np.testing.assert_allclose(model[:, 20, 10] / (1 - 0.8**done), spectrum, rtol=1e-3, atol=1e-4)
    assert subtract(dirty, psf, model)
    assert np.abs(dirty).max() < 0.02


def test_many_components_are_left_to_the_major_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SUBTRACTED", 3)
    residual, model = np.zeros((2, 1, 32, 32), np.float32)
    model[0, 4, :4] = 1
    assert not subtract(residual, np.ones((1, 64, 64), np.float32), model)
    assert not residual.any()
