"""What the telescope looks at, and what a calibrator is good for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import katpoint
import numpy as np
import numpy.typing as npt
from katsdptelstate.aio.telescope_state import TelescopeState
from redis.exceptions import RedisError

from pipelines.calibration.solver import Products
from pipelines.common.errors import TelstateError

logger = logging.getLogger(__name__)

TRACKING: Final = "track"
_WITHIN: Final = 0.49
DEFAULT_FLUX: Final = 1.0
"""Jy, of a calibrator without a flux model."""


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A target that is tracked and has at least one calibrator's tag."""

    description: str
    """katpoint's, as in telescope state."""
    name: str
    products: Products


def products_of(tags: Iterable[str]) -> Products:
    """Return what a target with such tags is good for.

    A bandpass calibrator is strong and solved for everything, so that an observation of it alone is calibrated;
    a delay calibrator for delays; gain and flux calibrators for gains.
    """
    names = set(tags)
    bandpass = "bpcal" in names
    return Products(
        delay=bandpass or "delaycal" in names,
        bandpass=bandpass,
        gain=bandpass or bool(names & {"gaincal", "fluxcal"}),
    )


def calibrator_of(
    descriptions: Sequence[object], activities: Sequence[object]
) -> Calibrator | None:
    """Return the calibrator of a dump; None for other targets, a slew, and a change within the dump.

    Parameters
    ----------
    descriptions, activities
        Values of `cbf_target` and `obs_activity` from the last one before the dump until its end.
    """
    if len(set(map(str, descriptions))) != 1 or any(a != TRACKING for a in activities):
        return None
    if not activities:
        return None
    description = str(descriptions[0])
    try:
        target = katpoint.Target(description)
    except ValueError as exc:
        logger.warning("target %.100r is not katpoint's: %s", description, exc)
        return None
    products = products_of(target.tags)
    if products == Products():
        return None
    return Calibrator(description, str(target.name), products)


def flux_density(
    description: str, freqs: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], bool]:
    """Return a target's flux density (Stokes I, Jy) at frequencies (Hz), and whether it is known.

    Unknown, or not known and positive everywhere in the band, is :data:`DEFAULT_FLUX`.
    """
    flux = np.asarray(katpoint.Target(description).flux_density(freqs / 1e6), np.float64)
    if flux.shape == freqs.shape and np.isfinite(flux).all() and (flux > 0).all():
        return flux, True
    return np.full(freqs.shape, DEFAULT_FLUX), False


async def calibrator_at(
    telstate: TelescopeState, time: float, int_time: float
) -> Calibrator | None:
    """Return the calibrator of the dump centred at a Unix time, by the sensors in telescope state.

    Raises
    ------
    TelstateError
        Telescope state does not answer.
    """
    # A little less than the dump: changes are made between dumps, and times are rounded.
    start, end = time - _WITHIN * int_time, time + _WITHIN * int_time
    values: list[list[Any]] = []
    for sensor in ("cbf_target", "obs_activity"):
        try:
            samples = await telstate.get_range(sensor, st=start, et=end, include_previous=True)
        except KeyError:
            return None
        except (OSError, RedisError) as exc:
            raise TelstateError(f"telescope state does not answer for {sensor!r}: {exc}") from exc
        values.append([_text(value) for value, _ in samples])
    return calibrator_of(values[0], values[1])


def _text(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
