"""Which correlation products make Stokes I, and how.

With linear feeds ``hh = I + Q`` and ``vv = I - Q``, so ``I = (hh + vv) / 2``. One hand alone is I only for an
unpolarised sky, therefore a sample counts only where both hands do; the weights see to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.imaging.errors import NoVisibilitiesError

LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class HandPairs:
    """Positions on the product axis of the parallel hands of each baseline.

    Attributes
    ----------
    baselines : tuple of (str, str)
        Names of the two antennas; never twice the same antenna.
    hh, vv : intp (baselines,)
        Positions of the two products.
    """

    baselines: tuple[tuple[str, str], ...]
    hh: npt.NDArray[np.intp]
    vv: npt.NDArray[np.intp]


def pair_hands(products: Sequence[tuple[str, str]]) -> HandPairs:
    """Find the parallel hands of all baselines that have both.

    Parameters
    ----------
    products : sequence of (str, str)
        Pairs of inputs; an input is the antenna's name and ``h`` or ``v``.

    Raises
    ------
    NoVisibilitiesError
        There is no such baseline.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for index, (first, second) in enumerate(products):
        antennas, hands = (first[:-1], second[:-1]), (first[-1:] + second[-1:]).lower()
        if antennas[0] != antennas[1] and hands in ("hh", "vv"):
            found.setdefault(antennas, {}).setdefault(hands, index)
    complete = {pair: hands for pair, hands in found.items() if len(hands) == 2}
    if not complete:
        raise NoVisibilitiesError(
            "the data set has no baseline with both parallel hands (hh and vv)"
        )
    return HandPairs(
        tuple(complete),
        np.array([hands["hh"] for hands in complete.values()], np.intp),
        np.array([hands["vv"] for hands in complete.values()], np.intp),
    )


def stokes_i(
    hh: npt.NDArray[np.complex64],
    vv: npt.NDArray[np.complex64],
    weight_hh: npt.NDArray[np.float32],
    weight_vv: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.float32]]:
    """Stokes I and its weight.

    Weights are inverse variances up to a factor; a flagged sample has weight zero. The mean of two samples
    has the inverse variance ``4 / (1/w_hh + 1/w_vv)``, which is zero where either weight is. Samples that
    are not finite, or have such a weight, or a negative one, count as flagged.

    Returns
    -------
    complex64, float32
        Both in the shape of the arguments. The visibility is zero where the weight is.
    """
    # Halves, so that a hostile weight near the largest number does not overflow in the sum.
    half = np.float32(0.5)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        vis = hh + vv
        vis *= half
        total = half * weight_hh
        total += half * weight_vv
        weight = half * weight_vv
        weight /= total
        weight *= weight_hh
        weight *= np.float32(4)
        # Not a number compares as false, so this is all that is asked of the weights.
        usable = (weight_hh > 0) & (weight_vv > 0) & (total <= LARGEST)
        usable &= np.isfinite(vis.real + vis.imag)
    if not usable.all():
        vis[~usable] = 0
        weight[~usable] = 0
    np.minimum(weight, LARGEST, out=weight)
    return vis.astype(np.complex64, copy=False), weight.astype(np.float32, copy=False)
