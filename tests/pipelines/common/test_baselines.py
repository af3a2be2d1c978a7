"""Order of products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.common import baselines
from pipelines.common.baselines import correlator_ordering
from pipelines.common.errors import StreamError

N_ANTENNAS = st.integers(1, 20)


def names(n: int) -> list[str]:
    return [f"m{i:03}" for i in range(n)]


@given(N_ANTENNAS)
def test_products_stand_where_the_correlators_formula_says(n: int) -> None:
    ordering = correlator_ordering(names(n))
    assert len(ordering) == 2 * n * (n + 1) == len(set(ordering))
    for ant2 in range(n):
        for ant1 in range(ant2 + 1):
            index = ant2 * (ant2 + 1) // 2 + ant1
            assert baselines.pair_index(ant1, ant2) == index
            a, b = f"m{ant1:03}", f"m{ant2:03}"
            assert ordering[4 * index : 4 * index + 4] == (
                (a + "h", b + "h"),
                (a + "h", b + "v"),
                (a + "v", b + "h"),
                (a + "v", b + "v"),
            )


@given(N_ANTENNAS, st.randoms(use_true_random=False))
def test_conversions_undo_any_order(n: int, random: object) -> None:
    ordering = list(correlator_ordering(names(n)))
    random.shuffle(ordering)  # type: ignore[attr-defined]  # hypothesis' randoms are random.Random
    shuffled = baselines.parse_ordering([list(pair) for pair in ordering])
    inputs = baselines.input_labels(shuffled)
    assert sorted(inputs) == sorted(name + pol for name in names(n) for pol in "hv")
    for pair, (a, b) in zip(shuffled, baselines.input_indices(shuffled, inputs), strict=True):
        assert pair == (inputs[a], inputs[b])
    antennas = baselines.antenna_names(shuffled)
    pols = baselines.pol_product_indices(shuffled)
    pairs = baselines.antenna_indices(shuffled, antennas)
    for pair, (a, b), pol in zip(shuffled, pairs, pols, strict=True):
        first, second = baselines.POL_PRODUCTS[pol]
        assert pair == (antennas[a] + first, antennas[b] + second)
    np.testing.assert_array_equal(baselines.is_auto(shuffled), pairs[:, 0] == pairs[:, 1])
    for pair, (a, b) in zip(shuffled, baselines.auto_products(shuffled), strict=True):
        assert shuffled[a] == (pair[0], pair[0])
        assert shuffled[b] == (pair[1], pair[1])


@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_order_is_brought_into_the_correlators(n: int, random: object) -> None:
    ordering = correlator_ordering(names(n))
    shuffled = list(ordering)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' randoms are random.Random
    order = baselines.canonical_order(tuple(shuffled))
    assert tuple(shuffled[i] for i in order) == ordering


def test_a_part_of_the_products_is_ordered_too() -> None:
    ordering = (
        ("bv", "bv"), ("bh", "ah"), ("av", "bv"), ("ah", "bh"), ("ch", "ch"), ("ah", "ch"),
    )  # fmt: skip
    order = baselines.canonical_order(ordering)
    assert sorted(order) == list(range(6))
    assert [ordering[i] for i in order] == [
        ("ah", "bh"), ("av", "bv"), ("bh", "ah"), ("bv", "bv"), ("ah", "ch"), ("ch", "ch"),
    ]  # fmt: skip


@given(N_ANTENNAS)
def test_antennas_keep_the_correlators_order(n: int) -> None:
    order = names(n)[::-1]
    assert baselines.antenna_names(correlator_ordering(order)) == tuple(order)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "m000h",
        [],
        [["m000h"]],
        [["m000h", 5]],
        [["m000h", "m001x"]],
        [["h", "m001h"]],
        [["m000h", "m001h"], ["m000h", "m001h"]],
    ],
)
def test_malformed_orderings_are_refused(value: object) -> None:
    with pytest.raises(StreamError):
        baselines.parse_ordering(value)


def test_unknown_antennas_and_inputs_are_named() -> None:
    ordering = correlator_ordering(["m000", "m001"])
    with pytest.raises(StreamError, match="m001"):
        baselines.antenna_indices(ordering, ["m000"])
    with pytest.raises(StreamError, match="m001h"):
        baselines.input_indices(ordering, ["m000h", "m000v"])
    assert baselines.auto_products((("m000h", "m001h"),)).tolist() == [[-1, -1]]
    with pytest.raises(ValueError, match="ant1"):
        baselines.pair_index(2, 1)
