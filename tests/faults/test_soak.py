"""Two hundred faults at random; ``make soak`` does as many as one likes.

Not part of ``make test``: nothing else may compute on the machine (docs/recovery.md).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import Soak

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(8))
async def test_faults_at_random(tmp_path: Path, seed: int) -> None:
    report = await Soak(tmp_path, 25, seed, print).run()
    print(report)
    assert report.violations == []
    assert report.stalls == []
    assert sum(report.faults.values()) == 25
