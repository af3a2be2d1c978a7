"""Order of correlation products and the conversions that everybody needs.

A *product* is a pair of inputs; the axis of products is called *baseline* for the sake of the field's habits
(``n_bls`` counts products). An input is an antenna's name followed by ``h`` or ``v``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.common.errors import StreamError

BlsOrdering = tuple[tuple[str, str], ...]

POLARISATIONS: Final = ("h", "v")
POL_PRODUCTS: Final = (("h", "h"), ("h", "v"), ("v", "h"), ("v", "v"))
"""Order of the four products of one pair of antennas."""


def n_pairs(n_antennas: int) -> int:
    """Pairs of antennas, each with itself included."""
    return n_antennas * (n_antennas + 1) // 2


def pair_index(ant1: int, ant2: int) -> int:
    """Position of a pair of antennas in the correlator's order (katgpucbf), ``ant2 >= ant1``."""
    if not 0 <= ant1 <= ant2:
        raise ValueError(f"expected 0 <= ant1 <= ant2, got {ant1}, {ant2}")
    return ant2 * (ant2 + 1) // 2 + ant1


def antenna_pairs(n_antennas: int) -> NDArray[np.int64]:
    """Pairs (ant1, ant2) in the correlator's order, shape (pairs, 2)."""
    pairs = [(ant1, ant2) for ant2 in range(n_antennas) for ant1 in range(ant2 + 1)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def correlator_ordering(antennas: Sequence[str]) -> BlsOrdering:
    """``bls_ordering`` of the correlator for antennas in the given order."""
    return tuple(
        (antennas[ant1] + pol1, antennas[ant2] + pol2)
        for ant1, ant2 in antenna_pairs(len(antennas))
        for pol1, pol2 in POL_PRODUCTS
    )


def canonical_order(ordering: BlsOrdering) -> NDArray[np.int64]:
    """Permutation that brings products into the order of `correlator_ordering`.

    The order of the antennas is that in which most products (ant1, ant2) are written; those of a pair that are
    written the other way round come after the others. Nothing is conjugated.

    Returns
    -------
    array, shape (n_bls,)
        ``ordering[result[i]]`` is product ``i`` in the new order.
    """
    products = [(split_input(a), split_input(b)) for a, b in ordering]
    later = Counter(b for _, (b, _) in products)
    later.subtract(a for (a, _), _ in products)
    antennas = sorted(antenna_names(ordering), key=lambda name: later[name])
    rank = {name: i for i, name in enumerate(antennas)}

    def place(product: int) -> tuple[int, bool, int]:
        (a, pol_a), (b, pol_b) = products[product]
        pair = pair_index(*sorted((rank[a], rank[b])))
        return pair, rank[a] > rank[b], POL_PRODUCTS.index((pol_a, pol_b))

    return np.array(sorted(range(len(ordering)), key=place), np.int64)


def split_input(label: str) -> tuple[str, str]:
    """Split ``m000h`` into ``("m000", "h")``.

    Raises
    ------
    StreamError
        The label does not end in a polarisation or has no antenna.
    """
    antenna, pol = label[:-1], label[-1:]
    if not antenna or pol not in POLARISATIONS:
        raise StreamError(f"input {label!r} is not an antenna's name followed by h or v")
    return antenna, pol


def parse_ordering(value: object, max_products: int = 1 << 20) -> BlsOrdering:
    """Check a ``bls_ordering`` that came from outside.

    Raises
    ------
    StreamError
        Not a list of pairs of inputs, empty, too long, or with a product twice.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= max_products:
        raise StreamError("bls_ordering must be a list of pairs of inputs")
    ordering: list[tuple[str, str]] = []
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise StreamError(f"bls_ordering has {pair!r} where a pair of inputs belongs")
        a, b = (label.decode() if isinstance(label, bytes) else label for label in pair)
        if not isinstance(a, str) or not isinstance(b, str):
            raise StreamError(f"bls_ordering has {pair!r} where a pair of inputs belongs")
        split_input(a)
        split_input(b)
        ordering.append((a, b))
    if len(set(ordering)) != len(ordering):
        raise StreamError("bls_ordering has a product twice")
    return tuple(ordering)


def antenna_names(ordering: BlsOrdering) -> tuple[str, ...]:
    """Antennas of an ordering, in the order of their first appearance as the second of a pair.

    For the correlator's order that is the order of its antennas; an antenna that is only ever first comes
    at the end.
    """
    labels = [b for _, b in ordering] + [a for a, _ in ordering]
    return tuple(dict.fromkeys(split_input(label)[0] for label in labels))


def input_labels(ordering: BlsOrdering) -> tuple[str, ...]:
    """Inputs of an ordering: per antenna (see `antenna_names`) those of h and v that occur."""
    present = {label for pair in ordering for label in pair}
    return tuple(
        antenna + pol
        for antenna in antenna_names(ordering)
        for pol in POLARISATIONS
        if antenna + pol in present
    )


def antenna_indices(ordering: BlsOrdering, antennas: Sequence[str]) -> NDArray[np.int64]:
    """Positions of each product's two antennas in `antennas`, shape (n_bls, 2).

    Raises
    ------
    StreamError
        A product has an antenna that is not in the list.
    """
    return _indices(
        [[split_input(label)[0] for label in pair] for pair in ordering], antennas, "antenna"
    )


def input_indices(ordering: BlsOrdering, inputs: Sequence[str]) -> NDArray[np.int64]:
    """Positions of each product's two inputs in `inputs`, shape (n_bls, 2).

    Raises
    ------
    StreamError
        A product has an input that is not in the list.
    """
    return _indices([list(pair) for pair in ordering], inputs, "input")


def _indices(pairs: list[list[str]], names: Sequence[str], kind: str) -> NDArray[np.int64]:
    position = {name: i for i, name in enumerate(names)}
    try:
        rows = [[position[name] for name in pair] for pair in pairs]
    except KeyError as exc:
        raise StreamError(f"bls_ordering has {kind} {exc.args[0]!r}, which is not known") from None
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def pol_product_indices(ordering: BlsOrdering) -> NDArray[np.int64]:
    """For each product 0–3 for hh, hv, vh, vv; shape (n_bls,)."""
    pols = [(split_input(a)[1], split_input(b)[1]) for a, b in ordering]
    return np.array([POL_PRODUCTS.index(pol) for pol in pols], dtype=np.int64)


def is_auto(ordering: BlsOrdering) -> NDArray[np.bool_]:
    """Where both inputs are of one antenna (hv and vh of it included), shape (n_bls,)."""
    return np.array([split_input(a)[0] == split_input(b)[0] for a, b in ordering], dtype=np.bool_)


def auto_products(ordering: BlsOrdering) -> NDArray[np.int64]:
    """Where the power of each product's inputs is found.

    Returns
    -------
    array, shape (n_bls, 2)
        Index of the product of the first, and of the second, input with itself; -1 where there is none.
    """
    powers = {a: i for i, (a, b) in enumerate(ordering) if a == b}
    rows = [[powers.get(a, -1), powers.get(b, -1)] for a, b in ordering]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)
