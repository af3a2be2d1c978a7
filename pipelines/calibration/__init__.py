"""Calibration: from the scans of calibrators in L0 to delays, bandpasses and gains in telescope state."""
