"""Solutions to telescope state, in the form that katdal applies (its ``applycal.py``), and back again.

katdal applies delays, bandpasses and gains. What the cross hands tell has keys of the same form, named as
those of MeerKAT's own pipeline where that has such a product; katdal reads them, and applies none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.calibration.pairs import N_PARALLEL
from pipelines.calibration.solutions import Applied, Polarisation, Solutions
from pipelines.common import telstate as ts
from pipelines.common.baselines import POLARISATIONS
from pipelines.common.stream_info import VisStream

COUNTED: Final = {
    "K": "Delay",
    "B": "Bandpass",
    "G": "Gain",
    "D": "Leakage",
    "KCROSS": "Cross-hand delay",
}
"""Products whose samples are counted, and what they are called."""
DELAYS: Final = "product_K"
BANDPASS: Final = "product_B0"
LEAKAGE: Final = "product_D0"

Sample = tuple[str, str, Any, float]
"""Product that is counted, or nothing; key; value; time."""


def attributes(stream: VisStream, antennas: tuple[str, ...]) -> Mapping[str, Any]:
    """Return what katdal must know of a calibration stream to apply its products."""
    return {
        "antlist": list(antennas),
        "pol_ordering": list(POLARISATIONS),
        "n_chans": stream.n_chans,
        "bandwidth": stream.bandwidth,
        "center_freq": stream.center_freq,
        "product_B_parts": 1,
        "product_D_parts": 1,
        "product_BCROSS_SKY_parts": 1,
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
    counts = dict.fromkeys(COUNTED, 0)
    for product, key, value, time in _samples(solutions):
        if np.isfinite(value).any():
            await ts.add_sample(view, key, value, time)
            if product:
                counts[product] += 1
    return counts


def _samples(solutions: Solutions) -> Iterator[Sample]:
    start = solutions.start
    if solutions.delays is not None:
        yield "K", DELAYS, solutions.delays, start
        yield "", "product_K_snr", solutions.delay_snr, start
    if solutions.bandpass is not None:
        yield "B", BANDPASS, solutions.bandpass, start
        yield "", "product_B_snr", solutions.bandpass_snr, start
    for time, gains, snr in zip(
        solutions.gain_times, solutions.gains, solutions.gain_snr, strict=True
    ):
        yield "G", "product_G", gains, time
        if np.isfinite(gains).any():
            yield "", "product_G_snr", snr, time
    yield from _polarisation(solutions.polarisation, start, solutions.n_antennas)


def _polarisation(found: Polarisation, start: float, n_antennas: int) -> Iterator[Sample]:
    if found.leakage is not None:
        yield "D", LEAKAGE, found.leakage, start
        yield "", "product_D_snr", found.leakage_snr, start
    if found.delay is not None and found.phase is not None:
        yield "KCROSS", "product_KCROSS", _of_h(np.float64(found.delay), 0, n_antennas), start
        yield "", "product_BCROSS_SKY0", _of_h(found.phase, 1, n_antennas), start
        yield "", "product_KCROSS_snr", np.float32(found.snr or 0), start


def _of_h(value: Any, of_v: float, n_antennas: int) -> npt.NDArray[Any]:
    """Return (…) as (…, pol, ant): `value` for h of all antennas, and `of_v` for v."""
    value = np.asarray(value)
    result = np.full((*value.shape, N_PARALLEL, n_antennas), of_v, value.dtype)
    result[..., 0, :] = value[..., np.newaxis]
    return result


async def load_applied(
    telstate: TelescopeState, name: str, cbid: str
) -> tuple[Applied, str | None]:
    """Return what is in force in a block that has begun before, and the name of its reference antenna.

    Raises
    ------
    TelstateError
        Telescope state does not answer.
    """
    view = telstate.view(telstate.join(cbid, name))
    delays, bandpass, leakage, refant = [
        await ts.get(view, key, None) for key in (DELAYS, BANDPASS, LEAKAGE, "refant")
    ]
    name_of_refant = refant.decode(errors="replace") if isinstance(refant, bytes) else refant
    return Applied(delays, bandpass, leakage), name_of_refant
