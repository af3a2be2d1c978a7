"""Found sources against a model of the sky."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import katpoint
import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from pipelines.imaging.sources import Source


@dataclass(frozen=True)
class Match:
    """A source of the model and what was found of it, or either without the other.

    Attributes
    ----------
    name : str, optional
        Name in the model; None: found, but not in the model.
    expected : float, optional
        The model's flux density, mean over the band, Jy.
    source : Source, optional
        What was found; None: nothing near.
    offset : float, optional
        Distance in pixels.
    ratio : float, optional
        Found flux over expected.
    """

    name: str | None
    expected: float | None
    source: Source | None
    offset: float | None
    ratio: float | None

    @property
    def matched(self) -> bool:
        """Whether both are there."""
        return self.name is not None and self.source is not None


def band_flux(
    target: katpoint.Target,
    frequencies: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
) -> float:
    """Weighted mean over the band of a flux model, Jy; channels outside the model's range count as none.

    Parameters
    ----------
    target : katpoint.Target
        With a flux model.
    frequencies : float64 (channels,)
        Hz.
    weights : float64 (channels,), optional
        Weights of the channels in the image; all the same if not given.
    """
    flux = np.nan_to_num(np.atleast_1d(target.flux_density(np.asarray(frequencies) / 1e6)))
    return float(np.average(flux, weights=weights))


def compare(
    found: Sequence[Source],
    sky: Iterable[str],
    wcs: WCS,
    frequencies: npt.NDArray[np.float64],
    *,
    weights: npt.NDArray[np.float64] | None = None,
    max_offset: float = 5.0,
) -> list[Match]:
    """Match found sources with a model of the sky, nearest pairs first, each at most once.

    Parameters
    ----------
    found : sequence of Source
        What the imager has found.
    sky : iterable of str
        katpoint descriptions of targets with flux models.
    wcs : WCS
        World coordinates of the image (the first two axes count).
    frequencies : float64 (channels,)
        Of the image's band, Hz.
    weights : float64 (channels,), optional
        Of the channels.
    max_offset : float
        Pixels beyond which two are not the same.

    Returns
    -------
    list of Match
        One for each source of the model, in its order, then the found ones that the model has not.

    Raises
    ------
    ValueError
        A description has no flux model or cannot be read.
    """
    model = [_model_source(text, wcs, frequencies, weights) for text in sky]
    distances = [
        (math.hypot(source.row - row, source.column - column), i, j)
        for i, (_, row, column, _) in enumerate(model)
        for j, source in enumerate(found)
    ]
    partner: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for distance, i, j in sorted(distances):
        if distance <= max_offset and i not in partner and j not in taken:
            partner[i] = (j, distance)
            taken.add(j)
    matches = [_match(model[i], partner.get(i), found) for i in range(len(model))]
    rest = (source for j, source in enumerate(found) if j not in taken)
    return matches + [Match(None, None, source, None, None) for source in rest]


_ModelSource = tuple[str, float, float, float]


def _model_source(
    text: str,
    wcs: WCS,
    frequencies: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None,
) -> _ModelSource:
    """Name, row, column and flux of one source of the model."""
    target = katpoint.Target(text)
    if target.flux_model is None:
        raise ValueError(f"{text!r} has no flux model")
    ra, dec = (math.degrees(angle) for angle in target.astrometric_radec())
    column, row = wcs.celestial.all_world2pix(ra, dec, 0)
    return target.name, float(row), float(column), band_flux(target, frequencies, weights)


def _match(
    model: _ModelSource, partner: tuple[int, float] | None, found: Sequence[Source]
) -> Match:
    name, _, _, flux = model
    if partner is None:
        return Match(name, flux, None, None, None)
    index, distance = partner
    source = found[index]
    return Match(name, flux, source, distance, source.flux / flux if flux else math.inf)
