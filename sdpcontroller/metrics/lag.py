"""How late the event loop is with what is due."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from sdpcontroller.metrics.families import Families

logger = logging.getLogger(__name__)

LAG_PERIOD: Final = 0.02
"""Seconds between two looks at the event loop."""
LATE: Final = 0.1
"""Seconds of lateness that are told in the log: what a loop must never be, by its own computing."""
TELL_LATE: Final = 10.0
"""Seconds between two such lines at least."""
_LAGS: Final = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)


class LoopLag:
    """The figures of the event loop's lateness."""

    def __init__(self, families: Families) -> None:
        self.worst = 0.0
        """The most since the start, seconds."""
        self._lags = families.histogram(
            "sdp_loop_lag_seconds", "How late the event loop was with what was due", [], _LAGS
        )
        self._own_lags = families.histogram(
            "sdp_loop_own_lag_seconds",
            "The part of that in which this process computed: the rest is the machine's",
            [],
            _LAGS,
        )
        self._worst = families.gauge("sdp_loop_lag_max_seconds", "The worst since the start")
        self._late_told = float("-inf")

    def observe(self, seconds: float, computed: float) -> None:
        """Count a look at the event loop: how late it was, and what was computed since the last one."""
        self._lags.observe(seconds)
        self._own_lags.observe(min(seconds, computed))
        if seconds > self.worst:
            self.worst = seconds
            self._worst.set(seconds)
        if seconds > LATE and time.monotonic() - self._late_told > TELL_LATE:
            self._late_told = time.monotonic()
            logger.warning(
                "the event loop was %.0f ms late; this process computed %.0f ms meanwhile",
                1000 * seconds,
                1000 * computed,
            )

    async def watch(self) -> None:
        """Look at the event loop until cancelled."""
        loop = asyncio.get_running_loop()
        computed = time.process_time()
        while True:
            due = loop.time() + LAG_PERIOD
            await asyncio.sleep(LAG_PERIOD)
            before, computed = computed, time.process_time()
            self.observe(max(0.0, loop.time() - due), computed - before)
