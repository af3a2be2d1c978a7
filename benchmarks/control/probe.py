"""A client that asks one thing after the other and notes how long each answer takes, and looks at the loop."""

from __future__ import annotations

import asyncio
import itertools
import math
import multiprocessing.connection
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import aiokatcp

from benchmarks.control.site import LINE_LIMIT, Controller

REQUESTS: Final[Sequence[tuple[str, ...]]] = (
    ("watchdog",),
    ("product-list",),
    ("sensor-value", "device-status"),
    ("capture-status",),
    ("agent-list",),
    ("sensor-value", "products"),
    ("product-configure-versions",),
)
PAUSE: Final = 0.01


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all do not exceed; nan of none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


class Looks:
    """A histogram of how late the loop was, of a while."""

    def __init__(self, name: str, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        prefix = f"{name}_bucket,le="
        self._counts = {
            float(key.removeprefix(prefix)): count - before.get(key, 0.0)
            for key, count in after.items()
            if key.startswith(prefix)
        }
        self.looks = max(self._counts.values(), default=0.0)

    @property
    def worst(self) -> float:
        """Seconds that no look has exceeded, as far as the histogram tells."""
        return min(
            (bound for bound, n in self._counts.items() if n == self.looks), default=math.nan
        )

    def share_above(self, bound: float) -> float:
        """Return which share of the looks found it later than `bound`, one of the histogram's."""
        return 1 - self._counts[bound] / self.looks if self.looks else 0.0


class Probe:
    """Asks a controller as long as its context lasts.

    Parameters
    ----------
    from_start
        Whether the loop is judged by all looks since the controller was started, not since the context began.
    """

    def __init__(self, controller: Controller, *, from_start: bool = False) -> None:
        self._controller = controller
        self._from_start = from_start
        self.seconds: dict[str, list[float]] = defaultdict(list)
        """Time to the reply, by request."""
        self.cpu = self.wall = self.delayed = 0.0
        """Seconds: that the controller computed, that passed, and that it had no CPU though it was ready."""

    async def __aenter__(self) -> Self:
        self._client = await self._controller.client()
        self._before = {} if self._from_start else await self._controller.figures()
        self._cpu, self._wall = self._controller.cpu(), time.monotonic()
        self._delayed = self._controller.delayed()
        self._asking = asyncio.create_task(self._ask())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cpu = self._controller.cpu() - self._cpu
        self.wall = time.monotonic() - self._wall
        self.delayed = self._controller.delayed() - self._delayed
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)
        if error is None:
            after = await self._controller.figures()
            self.lag = Looks("sdp_loop_lag_seconds", self._before, after)
            self.own_lag = Looks("sdp_loop_own_lag_seconds", self._before, after)
        self._client.close()
        await self._client.wait_closed()

    async def _ask(self) -> None:
        for words in itertools.cycle(REQUESTS):
            begun = time.monotonic()
            await self._client.request(*words)
            self.seconds[words[0]].append(time.monotonic() - begun)
            await asyncio.sleep(PAUSE)

    @property
    def load(self) -> str:
        """What the controller used, for people."""
        return f"{100 * self.cpu / self.wall:.0f} % of a core"

    @property
    def all_seconds(self) -> list[float]:
        """Of all requests together."""
        return [value for values in self.seconds.values() for value in values]

    @property
    def p99(self) -> float:
        """Seconds."""
        return quantile(self.all_seconds, 0.99)


async def request(client: aiokatcp.Client, *words: object) -> list[str]:
    """Make a request and return the words of its reply."""
    reply, _ = await client.request(str(words[0]), *words[1:])
    return [word.decode() for word in reply]


class _Counting(aiokatcp.AbstractSensorWatcher):
    def __init__(self) -> None:
        self.updates = 0

    def sensor_updated(
        self, name: str, value: bytes, status: aiokatcp.Sensor.Status, timestamp: float
    ) -> None:
        self.updates += 1


def watch(port: int, seconds: float, pipe: multiprocessing.connection.Connection) -> None:
    """Subscribe to all sensors of a controller, as CAM does; tell how many updates came each second."""

    async def main() -> None:
        async with aiokatcp.Client("127.0.0.1", port, limit=LINE_LIMIT) as client:
            counting = _Counting()
            client.add_sensor_watcher(counting)
            await asyncio.sleep(seconds / 2)
            before = counting.updates
            await asyncio.sleep(seconds / 2)
            pipe.send((counting.updates - before) / (seconds / 2))

    asyncio.run(main())
