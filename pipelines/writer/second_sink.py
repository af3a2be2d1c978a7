"""The MeasurementSet beside the data set: a queue of its own, so that it never holds up the first sink."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import katpoint
from katsdptelstate.aio.telescope_state import TelescopeState
from redis.exceptions import RedisError

from pipelines.common import telstate as ts
from pipelines.common.errors import TelstateError
from pipelines.common.l0 import Dump
from pipelines.writer.describe_ms import Facts, describe
from pipelines.writer.measurement_set import MeasurementSetSink
from pipelines.writer.store import StoreError
from pipelines.writer.timeline import Samples, timeline

QUEUE_DUMPS: Final = 3
"""Dumps that may wait for the MeasurementSet; further ones are left out of it."""

T = TypeVar("T")


class SecondSink:
    """Writes dumps into a MeasurementSet as far as there is time.

    Once it has failed (the disk is full, say) it takes what there is of it away and writes no more of the
    block: a MeasurementSet with holes that it does not know of would be worse than none.
    """

    def __init__(self, sink: MeasurementSetSink) -> None:
        self._sink = sink
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ms")
        self._waiting = 0
        self.written = 0
        """Dumps."""
        self.dropped = 0
        """Dumps left out, since the disk did not keep up or refused."""
        self.failure = ""
        """Why there will be no MeasurementSet; empty while all is well."""

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    async def write(self, dump: Dump) -> None:
        """Append a dump, or leave it out and count it; returns when the dump is not needed any more."""
        if self.failure or self._waiting >= QUEUE_DUMPS:
            self.dropped += 1
            return
        self._waiting += 1
        try:
            await self._run(self._sink.write, dump)
            self.written += 1
        except StoreError as exc:
            self.dropped += 1
            await self._fail(str(exc))
        finally:
            self._waiting -= 1

    async def _fail(self, reason: str) -> None:
        if not self.failure:
            self.failure = reason
            await self._run(self._sink.discard)

    async def finish(self, telstate: TelescopeState, cbid: str) -> None:
        """Describe what was observed and give the MeasurementSet its name; look at `failure` afterwards.

        Raises
        ------
        TelstateError
            Telescope state does not say what is needed.
        """
        if self.failure:
            return
        facts = await _facts(telstate, cbid, self._sink.correlations.antennas)
        targets = await _samples(telstate, "cbf_target")
        activities = await _samples(telstate, "obs_activity")
        try:
            await self._run(self._conclude, facts, targets, activities)
        except StoreError as exc:
            await self._fail(str(exc))

    def _conclude(self, facts: Facts, targets: Samples, activities: Samples) -> None:
        seen = timeline(targets, activities, self._sink.times(), self._sink.stream.int_time)
        describe(self._sink, facts, seen)
        self._sink.finish()

    async def close(self) -> None:
        """Let the thread go."""
        await asyncio.to_thread(self._executor.shutdown)


async def _facts(telstate: TelescopeState, cbid: str, antennas: tuple[str, ...]) -> Facts:
    described = []
    for name in antennas:
        text = await ts.get(telstate, f"{name}_observer")
        try:
            described.append(katpoint.Antenna(text))
        except ValueError as exc:
            raise TelstateError(f"{name}_observer is {text!r:.100}, no antenna: {exc}") from exc
    params = await ts.get(telstate.view(cbid), "obs_params", {})
    known = params if isinstance(params, dict) else {}
    return Facts(
        tuple(described), str(known.get("observer", "")), str(known.get("experiment_id", ""))
    )


async def _samples(telstate: TelescopeState, sensor: str) -> Samples:
    try:
        found = await telstate.get_range(sensor, st=0.0, et=math.inf, include_previous=True)
    except KeyError:
        return ()
    except (OSError, RedisError) as exc:
        raise TelstateError(f"telescope state does not answer for {sensor!r}: {exc}") from exc
    return [(v.decode(errors="replace") if isinstance(v, bytes) else str(v), t) for v, t in found]
