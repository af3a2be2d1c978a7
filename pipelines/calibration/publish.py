"""Solutions to telescope state, in the form that katdal applies (its ``applycal.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.calibration.solver import Solutions
from pipelines.common import telstate as ts
from pipelines.common.baselines import POLARISATIONS
from pipelines.common.stream_info import VisStream


def attributes(stream: VisStream, antennas: tuple[str, ...]) -> Mapping[str, Any]:
    """Return what katdal must know of a calibration stream to apply its products."""
    return {
        "antlist": list(antennas),
        "pol_ordering": list(POLARISATIONS),
        "n_chans": stream.n_chans,
        "bandwidth": stream.bandwidth,
        "center_freq": stream.center_freq,
        "product_B_parts": 1,
    }


async def publish_attributes(
    telstate: TelescopeState, name: str, stream: VisStream, antennas: tuple[str, ...]
) -> None:
    """Write the attributes of calibration stream `name`."""
    view = telstate.view(name)
    for key, value in attributes(stream, antennas).items():
        await ts.publish(view, key, value)


async def publish_solutions(
    telstate: TelescopeState, name: str, cbid: str, solutions: Solutions
) -> dict[str, int]:
    """Add what was solved to the sensors of a block and return the number of samples of each product.

    Delays and bandpass hold from the first dump of the scan, since katdal applies them from their time on;
    between gains it interpolates. A product without a single solution is not published.
    """
    view = telstate.view(telstate.join(cbid, name))
    samples: list[tuple[str, str, Any, float]] = []
    if solutions.delays is not None:
        samples.append(("K", "product_K", solutions.delays, solutions.start))
    if solutions.bandpass is not None:
        samples.append(("B", "product_B0", solutions.bandpass, solutions.start))
    samples += [
        ("G", "product_G", gains, time)
        for time, gains in zip(solutions.gain_times, solutions.gains, strict=True)
    ]
    counts = {"K": 0, "B": 0, "G": 0}
    for product, key, value, time in samples:
        if np.isfinite(value).any():
            await ts.add_sample(view, key, value, time)
            counts[product] += 1
    return counts
