"""What the telescope looks at, and what a calibrator is good for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import katpoint
from katsdptelstate.aio.telescope_state import TelescopeState
from redis.exceptions import RedisError

from pipelines.calibration.solutions import Products
from pipelines.common.errors import TelstateError

logger = logging.getLogger(__name__)

TRACKING: Final = "track"
_WITHIN: Final = 0.49


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A target that is tracked and has at least one calibrator's tag."""

    description: str
    """katpoint's, as in telescope state."""
    name: str
    products: Products


def products_of(tags: Iterable[str]) -> Products:
    """Return what a target with such tags is good for.

    A bandpass calibrator is strong and solved for everything, so that an observation of it alone is
    calibrated; a delay calibrator for delays; gain and flux calibrators for gains; a polarisation calibrator
    for what the cross hands tell.
    """
    names = set(tags)
    bandpass = "bpcal" in names
    return Products(
        delay=bandpass or "delaycal" in names,
        bandpass=bandpass,
        gain=bandpass or bool(names & {"gaincal", "fluxcal"}),
        polarisation=bandpass or "polcal" in names,
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
