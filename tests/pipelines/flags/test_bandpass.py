"""The newest bandpass of a block, from telescope state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from katsdptelstate.aio.memory import MemoryBackend
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering
from pipelines.common.errors import StreamError, TelstateError
from pipelines.common.stream_info import VisStream
from pipelines.flags.bandpass import BandpassFollower

ANTENNAS = ("m000", "m001")
STREAM = VisStream(
    name="sdp_l0",
    n_chans=6,
    bandwidth=6e6,
    center_freq=1.4e9,
    sync_time=1.6e9,
    int_time=1.0,
    bls_ordering=correlator_ordering(ANTENNAS),
    src_streams=("bcp",),
)


@pytest.fixture
async def telstate() -> TelescopeState:
    state = TelescopeState(MemoryBackend())
    values = {"antlist": ["m001", "m000"], "pol_ordering": ["v", "h"], "product_B_parts": 2}
    for key, value in values.items():
        await ts.publish(state.view("cal"), key, value)
    return state


async def add(telstate: TelescopeState, block: str, value: Any, time: float) -> None:
    """Add a solution (chan, pol, ant), in two parts."""
    for part, half in enumerate(np.split(np.asarray(value, np.complex64), 2)):
        await ts.add_sample(telstate.view(f"{block}_cal"), f"product_B{part}", half, time)


async def test_inputs_are_found_by_their_names_and_newer_solutions_taken_up(
    telstate: TelescopeState,
) -> None:
    follower = BandpassFollower(telstate, "cal", STREAM)
    assert not await follower.refresh("1") and follower.newest is None
    solution = np.arange(1, 25).reshape(6, 2, 2)
    await add(telstate, "1", solution, 100.0)
    assert await follower.refresh("1") and not await follower.refresh("1")
    bandpass = follower.newest
    assert bandpass is not None
    for product, pair in enumerate(STREAM.bls_ordering):
        for label, column in zip(pair, bandpass.pairs[product], strict=True):
            pol, antenna = "vh".index(label[-1]), ("m001", "m000").index(label[:-1])
            np.testing.assert_array_equal(bandpass.amplitudes[:, column], solution[:, pol, antenna])
    await add(telstate, "1", 2 * solution, 200.0)
    assert await follower.refresh("1")
    np.testing.assert_array_equal(follower.newest.amplitudes, 2 * bandpass.amplitudes)
    assert not await follower.refresh("2") and follower.newest is None  # another block


async def test_what_is_no_bandpass_of_the_stream_is_refused(telstate: TelescopeState) -> None:
    follower = BandpassFollower(telstate, "cal", STREAM)
    await add(telstate, "1", np.ones((8, 2, 2)), 100.0)
    with pytest.raises(StreamError, match="none of this stream"):
        await follower.refresh("1")
    await ts.publish(telstate.view("2_cal"), "product_B0", "nothing")
    with pytest.raises(TelstateError, match="no sensor"):
        await follower.refresh("2")
