"""How brightness goes with frequency: polynomials that CLEAN works with, and the power law that they mean.

The basis is orthonormal under the weights that the channels have in the image: ``Σ_c W_c φ_s φ_t = δ_st`` and
``φ_0 = 1``. So the image of the first term is the ordinary one, and at the place of a lone source the images of
all terms are the coefficients of its spectrum: the principal solution that multi-term CLEAN (Rau & Cornwell
2011, A&A 532, A71) gets by inverting a Hessian at every pixel. As their Taylor terms span the same space, the
components are the same.

A polynomial with few terms is not a power law, but it is the projection of one: of the first two terms the
ratio ``⟨φ_1, x^α⟩ / ⟨φ_0, x^α⟩`` is a monotonic function of α. Its inverse gives the index without the bias
that a slope at mid-band has over a wide band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_TERMS = 4
STEEPEST = 8.0
"""Spectral indices beyond are none."""

_STEPS = 1601


@dataclass(frozen=True)
class Basis:
    """Orthonormal polynomials over the band.

    Attributes
    ----------
    frequencies : float64 (channels,)
        Hz.
    shares : float64 (channels,)
        Weights of the channels, together one.
    values : float64 (terms, channels)
        The polynomials; the first is one.
    """

    frequencies: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]

    @property
    def terms(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def reference(self) -> float:
        """Weighted mean frequency, Hz."""
        return float(np.dot(self.shares, self.frequencies))

    def polynomials(self) -> npt.NDArray[np.float64]:
        """Coefficients of the basis in powers of ``ν/ν0 - 1``, float64 (terms, powers); ν0 is `reference`."""
        x = self.frequencies / self.reference - 1
        used = self.shares > 0
        powers = x[used, None] ** np.arange(self.terms)
        return np.asarray(np.linalg.lstsq(powers, self.values[:, used].T, rcond=None)[0].T)


def make_basis(
    frequencies: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], terms: int
) -> Basis:
    """Orthonormalise 1, x, x², … under the weights; fewer terms where there are fewer channels with weight.

    Parameters
    ----------
    frequencies : float64 (channels,)
        Hz.
    shares : float64 (channels,)
        Weights, together one.
    terms : int
        Polynomials wanted.
    """
    reference = float(np.dot(shares, frequencies))
    x = frequencies / reference - 1
    x = x / max(float(np.max(np.abs(x))), 1e-30)
    terms = min(terms, int(np.count_nonzero(shares)))
    values = np.ones((terms, frequencies.size))
    for term in range(1, terms):
        value = x**term
        for lower in (*values[:term], *values[:term]):  # twice: rounding
            value = value - float(np.dot(shares, value * lower)) * lower
        values[term] = value / np.sqrt(float(np.dot(shares, value * value)))
    return Basis(frequencies, shares, values)


@dataclass(frozen=True)
class PowerLaws:
    """What the first two terms of power laws are: a table to be read backwards.

    Attributes
    ----------
    indices : float64 (steps,)
        Spectral indices, ascending.
    means : float64 (steps,)
        First term of ``(ν/ν0)^α``: the weighted mean over the band.
    ratios : float64 (steps,)
        Second over first term, ascending.
    """

    indices: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    ratios: npt.NDArray[np.float64]

    def index(self, ratio: float | npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Spectral index for ratios of the second to the first term; NaN where none has it."""
        return np.asarray(
            np.interp(np.asarray(ratio), self.ratios, self.indices, left=np.nan, right=np.nan),
            np.float64,
        )

    def slope(self, index: float) -> float:
        """Change of the index per change of the ratio, by which errors are carried over."""
        rise: npt.NDArray[np.float64] = np.gradient(self.indices, self.ratios)
        return float(np.interp(index, self.indices, rise))

    def flux(self, mean: float, index: float) -> float:
        """Flux density at the reference frequency of a power law with this mean over the band."""
        return mean / float(np.interp(index, self.indices, self.means))


def power_laws(basis: Basis) -> PowerLaws:
    """Tabulate; the basis has at least two terms."""
    indices = np.linspace(-STEEPEST, STEEPEST, _STEPS)
    curves = (basis.frequencies / basis.reference) ** indices[:, None]
    moments = (curves * basis.shares) @ basis.values[:2].T
    return PowerLaws(indices, moments[:, 0], moments[:, 1] / moments[:, 0])
