"""Calibration: antenna-based gains from calibrator scans."""
