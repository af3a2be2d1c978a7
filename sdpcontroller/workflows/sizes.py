"""Sizes of the streams that a configuration has, as formulas take them."""

from __future__ import annotations

from sdpcontroller.config import ProductConfig
from sdpcontroller.workflows.resources import StreamSize


def correlation_size(config: ProductConfig, correlation: str) -> StreamSize:
    """Size of a simulated correlation stream."""
    shape = config.correlator(correlation)
    return StreamSize(shape.n_chans, shape.n_antennas, shape.int_time, config.simulation.speed)


def l0_size(config: ProductConfig, vis: str) -> StreamSize:
    """Size of a visibility stream."""
    shape = config.vis(vis)
    n_antennas = config.correlator(vis).n_antennas
    return StreamSize(shape.n_chans, n_antennas, shape.int_time, config.simulation.speed)
