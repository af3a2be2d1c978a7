"""What is counted as it happens."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import prometheus_client as prometheus
from prometheus_client import Metric

from scheduler.breath import Breath
from scheduler.threads import compute
from sdpcontroller.metrics.families import Families
from sdpcontroller.metrics.lag import LoopLag

logger = logging.getLogger(__name__)

FAMILIES_AT_ONCE: Final = 4
"""Families of figures that are collected before others have their turn; some have a figure of each task."""
_COMMANDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_REQUESTS: Final = (0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3, 1, 3, 10, 30, 100)
_EXCHANGES: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 5)
_PACKINGS: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_WAITS: Final = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 4 * 3600, 24 * 3600)


class Metrics:
    """The figures of one controller.

    It is told of what happens by the scheduler (:class:`scheduler.figures.Figures`), by the products
    (:class:`sdpcontroller.products.services.Figures`), by the store and by the façade.
    """

    def __init__(self) -> None:
        families = Families()
        self.registry, self.labels = families.registry, families.labels
        self.lag = LoopLag(families)
        self._commands = families.histogram(
            "sdp_command_seconds",
            "Time from a command to its reply",
            ["command", "outcome"],
            _COMMANDS,
        )
        self._requests = families.histogram(
            "sdp_request_seconds",
            "Time from a KATCP request to its reply",
            ["request", "outcome"],
            _REQUESTS,
        )
        self._waits = families.histogram(
            "sdp_queue_wait_seconds",
            "How long graphs waited for their place, by what ended the wait",
            ["queue", "outcome"],
            _WAITS,
        )
        self._made_room = families.counter(
            "sdp_queue_made_room", "Batch nodes ended to make room for graphs of a queue", ["queue"]
        )
        self._packings = families.histogram(
            "sdp_packing_seconds", "Time of one trial to place a graph", ["outcome"], _PACKINGS
        )
        self._offers = families.counter(
            "sdp_offers", "Offers of Mesos, by what became of them", ["what"]
        )
        self._store = families.histogram(
            "sdp_store_seconds",
            "Time of one exchange with the configuration database",
            ["exchange"],
            _EXCHANGES,
        )
        self._deaths = families.counter(
            "sdp_task_deaths", "Tasks that ended by themselves and should not", ["kind", "outcome"]
        )
        self._restarts = families.counter(
            "sdp_task_restarts", "Restarts of tasks that died", ["kind", "outcome"]
        )
        self._reached = families.gauge(
            "sdp_start_seconds",
            "Time from the start of the process until it had come that far",
            ["reached"],
        )
        self._steps: set[str] = set()
        self._ends = families.gauge(
            "sdp_certificate_end_time_seconds",
            "Unix time at which a certificate ends that is shown to clients",
            ["use"],
        )
        families.gauge("sdp_start_time_seconds", "Unix time of the start").set(time.time())

    # What is told

    def observe_command(self, command: str, outcome: str, seconds: float) -> None:
        """Count a command: `outcome` is ok, refused (the caller's fault), failed (ours) or abandoned."""
        self._commands.labels(command, outcome).observe(seconds)

    def observe_request(self, request: str, outcome: str, seconds: float) -> None:
        """Count a request of a client; outcomes as those of commands."""
        self._requests.labels(request, outcome).observe(seconds)

    def observe_exchange(self, kind: str, seconds: float) -> None:
        """Count an exchange with the store: read, write, count or lease."""
        self._store.labels(kind).observe(seconds)

    def offered(self, count: int, what: str) -> None:
        """Count offers that came or went."""
        self._offers.labels(what).inc(count)

    def packed(self, outcome: str, seconds: float) -> None:
        """Count a trial to place a graph."""
        self._packings.labels(outcome).observe(seconds)

    def made_room(self, queue: str, count: int) -> None:
        """Count batch nodes that were ended for a graph that waits in a queue."""
        self._made_room.labels(queue).inc(count)

    def waited(self, queue: str, outcome: str, seconds: float) -> None:
        """Count a graph that waits no longer."""
        self._waits.labels(queue, outcome).observe(seconds)

    def died(self, kind: str, outcome: str) -> None:
        """Count a task that ended by itself."""
        self._deaths.labels(kind, outcome).inc()

    def restarted(self, kind: str, outcome: str) -> None:
        """Count a task that was to be started again: ok, failed, or given_up."""
        self._restarts.labels(kind, outcome).inc()

    def reached(self, what: str) -> None:
        """Note when the controller has come that far since it was started; only the first time counts."""
        if what not in self._steps:
            self._steps.add(what)
            age = process_age()
            self._reached.labels(what).set(age)
            used = time.process_time()
            logger.info("start: %s after %.2f s, of which %.2f s computing", what, age, used)

    def certified(self, use: str, until: float) -> None:
        """Note the Unix time at which a certificate ends."""
        self._ends.labels(use).set(until)

    async def text(self) -> bytes:
        """Return all figures in Prometheus' text format.

        Only the loop may look at the records, and does from family to family: what changes meanwhile may be in
        one and not in another. Of thousands of figures, writing them down is most of the work.
        """
        families, breath = list[Metric](), Breath(FAMILIES_AT_ONCE)
        for family in self.registry.collect():
            families.append(family)
            await breath.step()
        return await compute(prometheus.generate_latest, cast(Any, _Collected(families)))


@dataclass(frozen=True, slots=True)
class _Collected:
    """Figures as they were when they were asked for, in the place of a registry."""

    families: Sequence[Metric]

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self.families


def process_age() -> float:
    """Return how long ago this process was started, s; or this module was loaded, where nobody knows."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return _boot_time() - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return _boot_time() - _LOADED


def _boot_time() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


_LOADED: Final = _boot_time()
