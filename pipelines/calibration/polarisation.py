"""What the cross hands tell: leakage between the polarisations, or the phase between them."""

from __future__ import annotations

import numpy as np

from pipelines.calibration.cross_hands import CrossHands, is_polarised
from pipelines.calibration.cross_phase import solve_cross_phase
from pipelines.calibration.leakage import solve_leakage
from pipelines.calibration.solutions import Polarisation


def solve_polarisation(cross: CrossHands, refant: int) -> Polarisation:
    """Return the leakages of an unpolarised calibrator, or the delay and phase that a polarised one shows."""
    if is_polarised(cross.model):
        return solve_cross_phase(cross)
    leakage, snr = solve_leakage(cross, refant)
    if not np.isfinite(leakage).any():
        return Polarisation()
    return Polarisation(leakage=leakage, leakage_snr=snr)
