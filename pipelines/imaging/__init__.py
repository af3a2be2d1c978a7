"""Imaging: calibrated visibilities to a CLEAN image of the field."""
