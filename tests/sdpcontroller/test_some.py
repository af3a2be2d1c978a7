"""Many things in one sentence."""

from __future__ import annotations

import pytest

from sdpcontroller.some import some


@pytest.mark.parametrize(
    ("count", "between", "text"),
    [
        (0, ", ", ""),
        (2, ", ", "a, b"),
        (3, ", ", "a, b and 1 more"),
        (5, "; ", "a; b; 3 more"),
    ],
)
def test_the_first_are_named_and_the_others_counted(count, between, text) -> None:
    assert some(list("abcde")[:count], 2, between) == text
