"""Better flags for visibilities: found with the time axis, a window of dumps at a time."""
