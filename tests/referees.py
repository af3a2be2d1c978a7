"""Tests that need a simulator of other people."""

from __future__ import annotations

import pytest

from benchmarks.referees import RefereeError, environment


def needs(kind: str) -> None:
    """Skip the test where a referee, ``dp3`` or ``matvis``, is not installed."""
    try:
        environment(kind)
    except RefereeError as exc:
        pytest.skip(str(exc))
