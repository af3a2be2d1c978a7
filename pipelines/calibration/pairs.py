"""Where the pairs of antennas of an array are on the axis of baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.common.baselines import BlsOrdering, antenna_names, split_input
from pipelines.common.errors import StreamError

PRODUCTS: Final = ("hh", "vv", "hv", "vh")
"""Order of the products in calibration: the parallel hands first."""
N_PARALLEL: Final = 2


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of different antennas, and where their products are."""

    antennas: tuple[str, ...]
    """In order of their names, as katdal lists them."""
    ant1: npt.NDArray[np.int64]
    """(P,) first antenna of each pair; no pair is there in both orders."""
    ant2: npt.NDArray[np.int64]
    products: npt.NDArray[np.int64]
    """(prod, P) index on the axis of baselines, -1 where there is none; all of :data:`PRODUCTS`, or the
    parallel hands of an array that has no others."""

    @classmethod
    def of(cls, ordering: BlsOrdering) -> Pairs:
        """Find them in an ordering.

        Raises
        ------
        StreamError
            There is no cross-correlation of like polarisations.
        """
        antennas = tuple(sorted(antenna_names(ordering)))
        position = {name: i for i, name in enumerate(antennas)}
        found: dict[tuple[int, int], list[int]] = {}
        for index, (label1, label2) in enumerate(ordering):
            (name1, pol1), (name2, pol2) = split_input(label1), split_input(label2)
            pair = position[name1], position[name2]
            if name1 != name2 and pair[::-1] not in found:
                row = found.setdefault(pair, [-1] * len(PRODUCTS))
                row[PRODUCTS.index(pol1 + pol2)] = index
        pairs = np.array(list(found), np.int64).reshape(-1, 2)
        products = np.array(list(found.values()), np.int64).reshape(-1, len(PRODUCTS)).T.copy()
        if not (products[:N_PARALLEL] >= 0).any():
            raise StreamError("bls_ordering has no cross-correlations to calibrate with")
        if not (products[N_PARALLEL:] >= 0).any():
            products = products[:N_PARALLEL].copy()
        return cls(antennas, pairs[:, 0].copy(), pairs[:, 1].copy(), products)

    @property
    def n_pairs(self) -> int:
        """P, pairs of different antennas."""
        return len(self.ant1)

    @property
    def n_antennas(self) -> int:
        """Antennas of the array, dead ones included."""
        return len(self.antennas)

    @property
    def n_products(self) -> int:
        """Products of a pair: 4, or 2 of an array without cross hands."""
        return len(self.products)
