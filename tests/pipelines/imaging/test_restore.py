from __future__ import annotations

import numpy as np
import pytest

from pipelines.imaging.beam import Beam
from pipelines.imaging.restore import restore


def test_components_get_the_beam_and_the_residual_stays() -> None:
    beam = Beam(7, 5, 0.4)
    model, residual = np.zeros((64, 64), np.float32), np.full((64, 64), 0.25, np.float32)
    model[30, 20], model[0, 63] = 2.0, -1.0
    image = restore(model, residual, beam)
    offsets = np.arange(64.0)
    expected = 0.25
    for row, column, flux in ((30, 20, 2.0), (0, 63, -1.0)):
        expected = expected + flux * np.exp(
            -beam.exponents(offsets[:, None] - row, offsets[None, :] - column)
        )
    np.testing.assert_allclose(image, expected, atol=1e-5)
    assert image.dtype == np.float32


def test_flux_in_beams_is_flux() -> None:
    beam = Beam(6, 6, 0)
    model = np.zeros((64, 64), np.float32)
    model[32, 32] = 3.0
    image = restore(model, np.zeros_like(model), beam)
    assert image.sum() / beam.area == pytest.approx(3.0, rel=1e-3)
