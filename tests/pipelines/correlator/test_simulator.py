"""Captures: what is sent, what telescope state gets, and what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import katpoint
import numpy as np
import pytest
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common.endpoints import Endpoint
from pipelines.correlator.errors import CorrelatorError
from pipelines.correlator.meerkat import antenna_description
from pipelines.correlator.model import Model, ModelConfig
from pipelines.correlator.sender import HeapSender
from pipelines.correlator.simulator import CaptureState, Simulator

Groups = Callable[[int], tuple[Endpoint, ...]]

CONFIG = ModelConfig(
    name="bcp",
    antennas=tuple(katpoint.Antenna(antenna_description(f"m{i:03}")) for i in (0, 48, 57)),
    n_chans=16,
    n_chans_per_substream=4,
    bandwidth=856e6,
    centre_frequency=1284e6,
    adc_sample_rate=1712e6,
    int_time=2.0,
    start_time=1.6e9,
    sources=(katpoint.Target("s, radec, 20:01:00, -30:00:00, (800 2000 0.5)"),),
)
FIRST = katpoint.Target("first, radec bpcal, 20:00:00, -30:00:00")
SECOND = "second, radec gaincal, 20:00:30, -31:00:00"


class Recording(Model):
    """A model with an end and with phase centres of its own."""

    n_dumps = 3

    def target(self, index: int) -> str:
        return FIRST.description if index < 2 else katpoint.Target(SECOND).description


def make(
    endpoints: tuple[Endpoint, ...], model: Model, **kwargs: Any
) -> tuple[Simulator, TelescopeState]:
    telstate = TelescopeState()
    sender = HeapSender(model.stream, endpoints, rate=4e6)
    return Simulator(model, sender, telstate, clock_ratio=0.0, **kwargs), telstate


async def test_a_block_is_sent_as_the_model_computes_it(receiving: Any, groups: Groups) -> None:
    model, endpoints = Model(CONFIG), groups(2)
    simulator, telstate = make(endpoints, model, target=FIRST)
    await simulator.warm_up()
    async with receiving(endpoints) as received:
        await simulator.capture_init("123")
        assert simulator.state is CaptureState.CAPTURING
        await received.until(lambda: len(received.heaps) >= 20)
        dumps, heaps = await simulator.capture_done()
        assert heaps == 4 * dumps
        await received.until(lambda: len(received.heaps) == heaps)
    await simulator.close()
    assert simulator.state is CaptureState.IDLE
    stream = model.stream
    expected = np.zeros((stream.n_chans, stream.n_bls, 2), np.int32)
    for dump in range(dumps):
        model.fill(dump, katpoint.Target(FIRST.description), expected)
        for channel in range(0, 16, 4):
            sent = received.heaps[dump * stream.dump_ticks, channel]
            np.testing.assert_array_equal(sent, expected[channel : channel + 4].ravel())
    assert len(set(received.counts)) == len(received.counts)
    assert simulator.progress.dumps == dumps
    block = await telstate.view("123")["obs_params"]
    assert (block["ants"], block["experiment_id"]) == ("m000,m048,m057", "123")
    for key, value in (("cbf_target", FIRST.description), ("obs_activity", "track")):
        ((sample, when),) = await telstate.get_range(key, st=0)
        assert sample == value
        assert stream.sync_time - 1 < when < stream.sync_time


async def test_another_target_holds_from_the_dump_that_telescope_state_says(
    receiving: Any, groups: Groups
) -> None:
    model, endpoints = Model(dataclasses.replace(CONFIG, noise=False)), groups(1)
    simulator, telstate = make(endpoints, model, target=FIRST)
    stream = model.stream
    async with receiving(endpoints) as received:
        await simulator.capture_init("1")
        await received.until(lambda: len(received.heaps) >= 8)
        second = simulator.point(SECOND)
        seen = len(received.heaps)
        await received.until(lambda: len(received.heaps) >= seen + 40)
        dumps, heaps = await simulator.capture_done()
        await received.until(lambda: len(received.heaps) == heaps)
    await simulator.close()
    (_, _), (target, when) = await telstate.get_range("cbf_target", st=0)
    assert target == second.description
    change = int((when - stream.sync_time) / stream.int_time)
    assert 0 < change < dumps
    activity = await telstate.get_range("obs_activity", st=0)
    assert [(what, int((at - stream.sync_time) // stream.int_time)) for what, at in activity] == [
        ("track", -1),
        ("slew", change),
        ("track", change + 1),
    ]
    expected = np.zeros((stream.n_chans, stream.n_bls, 2), np.int32)
    for dump in (change - 1, change):
        pointed = FIRST.description if dump < change else second.description
        model.fill(dump, katpoint.Target(pointed), expected)
        sent = received.heaps[dump * stream.dump_ticks, 0]
        np.testing.assert_array_equal(sent, expected[:4].ravel())


async def test_switched_off_transmission_leaves_a_gap_in_time(
    receiving: Any, groups: Groups
) -> None:
    model, endpoints = Model(CONFIG), groups(1)
    simulator, _ = make(endpoints, model, target=FIRST)
    ticks = model.stream.dump_ticks
    async with receiving(endpoints) as received:
        task = await simulator.capture_init("1")
        await received.until(lambda: len(received.heaps) >= 8)
        simulator.transmitting = False
        sent = simulator.progress.dumps
        # Dumps pass while nothing is sent: what the simulator says of them is the only sign.
        while simulator._next_dump < sent + 10:
            await received_nothing(task)
        simulator.transmitting = True
        before = len(received.heaps)
        await received.until(lambda: len(received.heaps) >= before + 12)
        dumps, heaps = await simulator.capture_done()
        await received.until(lambda: len(received.heaps) == heaps)
    await simulator.close()
    times = sorted({timestamp // ticks for timestamp, _ in received.heaps})
    assert len(times) == dumps
    assert times[-1] >= dumps + 5


async def received_nothing(task: Any) -> None:
    """Let the simulator run for a moment."""
    await asyncio.wait({task}, timeout=0.01)


async def test_a_recording_ends_by_itself_and_is_not_sent_twice(
    receiving: Any, groups: Groups
) -> None:
    model, endpoints = Recording(CONFIG), groups(1)
    simulator, telstate = make(endpoints, model)
    async with receiving(endpoints) as received:
        with pytest.raises(CorrelatorError, match="cannot be changed"):
            simulator.point(SECOND)
        task = await simulator.capture_init("1")
        await task
        assert simulator.progress.finished
        assert simulator.state is CaptureState.CAPTURING
        assert await simulator.capture_done() == (3, 12)
        await received.until(lambda: len(received.heaps) == 12)
    with pytest.raises(CorrelatorError, match="all of its 3 dumps were sent"):
        await simulator.capture_init("2")
    await simulator.close()
    targets = [value for value, _ in await telstate.get_range("cbf_target", st=0)]
    assert targets == [FIRST.description, katpoint.Target(SECOND).description]


async def test_what_makes_no_sense_now_is_refused_and_changes_nothing(groups: Groups) -> None:
    simulator, _ = make(groups(1), Model(CONFIG))
    with pytest.raises(CorrelatorError, match="no target"):
        await simulator.capture_init("1")
    with pytest.raises(CorrelatorError, match="no katpoint target"):
        simulator.point("nonsense, of, a, target")
    with pytest.raises(CorrelatorError, match="no capture block"):
        await simulator.capture_done()
    simulator.point(SECOND)
    await simulator.capture_init("1")
    with pytest.raises(CorrelatorError, match="1 is capturing"):
        await simulator.capture_init("2")
    await simulator.capture_done()
    await simulator.close()
    assert simulator.state is CaptureState.IDLE


async def test_a_source_that_fails_ends_the_capture_with_its_reason(groups: Groups) -> None:
    class Broken(Model):
        def fill(self, index: int, target: katpoint.Target, out: Any) -> None:
            raise CorrelatorError("the disk is gone")

    simulator, _ = make(groups(1), Broken(CONFIG), target=FIRST)
    task = await simulator.capture_init("1")
    await asyncio.wait({task})
    with pytest.raises(CorrelatorError, match="streaming failed: the disk is gone"):
        await simulator.capture_done()
    assert task.exception() is not None
    await simulator.close()
