"""Which heaps are broken."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.correlator.errors import ModelError
from pipelines.correlator.faults import Fate, FaultPlan


@given(st.integers(0, 2**63), st.integers(0, 10**6), st.integers(0, 1000))
def test_the_fate_of_a_heap_follows_from_the_seed(seed: int, dump: int, substream: int) -> None:
    plan = FaultPlan(0.3, 0.3, 0.3, seed)
    assert plan.fate(dump, substream) is FaultPlan(0.3, 0.3, 0.3, seed).fate(dump, substream)
    assert FaultPlan(seed=seed).fate(dump, substream) is Fate.SENT
    assert FaultPlan(1.0, seed=seed).fate(dump, substream) is Fate.DROPPED
    assert FaultPlan(truncate=1.0, seed=seed).fate(dump, substream) is Fate.TRUNCATED


def test_fractions_are_met() -> None:
    plan = FaultPlan(0.1, 0.2, 0.3, seed=5, reorder=0.15, late=0.05)
    fates = Counter(plan.fate(dump, substream) for dump in range(500) for substream in range(8))
    for fate, fraction in (
        (Fate.DROPPED, 0.1),
        (Fate.DUPLICATED, 0.2),
        (Fate.TRUNCATED, 0.3),
        (Fate.REORDERED, 0.15),
        (Fate.LATE, 0.05),
    ):
        # 5 sigma of a binomial count
        assert fates[fate] / 4000 == pytest.approx(
            fraction, abs=5 * (fraction * (1 - fraction) / 4000) ** 0.5
        )


@pytest.mark.parametrize(
    "fractions", [(-0.1, 0, 0), (1.1, 0, 0), (0.5, 0.4, 0.2), (float("nan"), 0, 0)]
)
def test_impossible_fractions_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ModelError):
        FaultPlan(*fractions)
