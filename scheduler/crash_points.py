"""Named places at which a process can be made to die, as by ``kill -9``.

Each place is a :class:`CrashPoint`, made in the module it belongs to, and *reached* there.
``SDP_CRASH_AT=NAME`` in the environment of a controller makes it kill itself there, ``NAME:3`` at the third
time. Without that, a point costs one comparison.

The points stand between what is written and what is done, where a successor could be misled.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from scheduler.errors import SchedulerError

VARIABLE: Final = "SDP_CRASH_AT"

_points: Final[dict[str, CrashPoint]] = {}


class CrashPoint:
    """One place.

    Parameters
    ----------
    name
        Unique: ``launch.placed``.
    meaning
        What has been done there, and what has not, for people.
    """

    def __init__(self, name: str, meaning: str) -> None:
        if name in _points:
            raise ValueError(f"two crash points are called {name}")
        self.name = name
        self.meaning = meaning
        self._countdown = 0
        """How often it may still be reached, the last time included; 0: any number of times."""
        _points[name] = self

    def arm(self, times: int = 1) -> None:
        """Die when the place is reached for that time from now on; 0: do not."""
        self._countdown = times

    def reached(self) -> None:
        """Die, if that was asked for."""
        if not self._countdown:
            return
        self._countdown -= 1
        if not self._countdown:
            os.kill(os.getpid(), signal.SIGKILL)


def crash_points() -> tuple[CrashPoint, ...]:
    """Return every point of the modules that are loaded, by name."""
    return tuple(_points[name] for name in sorted(_points))


def arm(text: str) -> None:
    """Arm the point that a text like ``NAME`` or ``NAME:3`` says; an empty one arms none.

    Raises
    ------
    SchedulerError
        If there is no such point.
    """
    if not text:
        return
    name, _, times = text.partition(":")
    if name not in _points or not (times or "1").isdecimal():
        raise SchedulerError(
            f"{VARIABLE}={text}: there is no such crash point; there are: {', '.join(sorted(_points))}"
        )
    _points[name].arm(int(times or 1))
