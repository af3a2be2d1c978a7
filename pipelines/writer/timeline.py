"""Where the telescope looked, dump by dump: the sensors of telescope state as fields and scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

TRACK: Final = "track"
_WITHIN: Final = 0.49
"""Half of a dump, less a little: changes are made between dumps, and times are rounded."""

Samples = Sequence[tuple[str, float]]
"""Values of a sensor with their Unix times, in order of time."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What was observed in each dump."""

    targets: tuple[str, ...]
    """Descriptions (katpoint's), each once, in the order in which they came."""
    target: npt.NDArray[np.int64]
    """Position in `targets`, -1 before the first, shape (n_dumps,)."""
    scan: npt.NDArray[np.int64]
    """Counts from 1; a slew is a scan of its own. Shape (n_dumps,)."""
    tracking: npt.NDArray[np.bool_]
    """Whether the whole dump was on its target, shape (n_dumps,)."""


def timeline(
    targets: Samples, activities: Samples, times: npt.NDArray[np.float64], int_time: float
) -> Timeline:
    """Sort dumps into fields and scans.

    A dump belongs to the last target named before its end. It is tracked if the activity was ``track`` and the
    target the same all through it.

    Parameters
    ----------
    targets, activities
        Samples of ``cbf_target`` and ``obs_activity``.
    times
        Centres of the dumps, Unix s, ascending, shape (n_dumps,).
    int_time
        Length of a dump, s.
    """
    start, end = times - _WITHIN * int_time, times + _WITHIN * int_time
    names = tuple(dict.fromkeys(name for name, _ in targets))
    first, last = _spans(targets, start, end)
    of_sample = np.array([names.index(name) for name, _ in targets], np.int64)
    target = np.where(last >= 0, of_sample[last] if len(of_sample) else -1, -1)
    same = _array([len(set(of_sample[a : b + 1])) == 1 for a, b in zip(first, last, strict=True)])
    first, last = _spans(activities, start, end)
    tracked = _array(
        [
            b >= 0 and all(activity == TRACK for activity, _ in activities[a : b + 1])
            for a, b in zip(first, last, strict=True)
        ]
    )
    tracking = same & tracked & (target >= 0)
    if not len(times):
        return Timeline(names, target, np.zeros(0, np.int64), tracking)
    changes = (np.diff(target) != 0) | (np.diff(tracking.astype(np.int8)) != 0)
    return Timeline(names, target, np.concatenate([[1], 1 + np.cumsum(changes)]), tracking)


def _array(values: list[bool]) -> npt.NDArray[np.bool_]:
    return np.array(values, np.bool_)


def _spans(
    samples: Samples, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first and last sample that hold in each interval; the last is -1 where there is none."""
    times = np.array([time for _, time in samples])
    before = np.searchsorted(times, start, side="right") - 1
    return np.maximum(before, 0), np.searchsorted(times, end, side="right") - 1
