"""Descriptions of streams in a real telescope state."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import pytest

from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering
from pipelines.common.endpoints import parse_endpoint
from pipelines.common.errors import StreamError, TelstateError
from pipelines.common.stream_info import CorrelatorStream, VisStream
from tests.conftest import PATIENCE


class Server(Protocol):
    endpoint: str


CORRELATOR = CorrelatorStream(
    name="bcp",
    n_chans=64,
    n_chans_per_substream=16,
    bandwidth=856e6,
    center_freq=1284e6,
    sync_time=1.6e9,
    int_time=1000 * 128 / 1712e6,
    n_accs=1000,
    ticks_between_spectra=128,
    scale_factor_timestamp=1712e6,
    scale=0.25,
    bls_ordering=correlator_ordering(["m000", "m001"]),
)
VIS = VisStream(
    name="vis",
    n_chans=64,
    bandwidth=856e6,
    center_freq=1284e6,
    sync_time=1.6e9,
    int_time=2.0,
    bls_ordering=CORRELATOR.bls_ordering,
    src_streams=("bcp",),
)


@pytest.mark.parametrize("stream", [CORRELATOR, VIS])
async def test_what_is_published_is_loaded_and_publishing_twice_is_fine(
    redis_server: Server, stream: CorrelatorStream | VisStream
) -> None:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        await stream.publish(telstate)
        await stream.publish(telstate)
        assert await type(stream).load(telstate, stream.name, timeout=PATIENCE) == stream
        assert await telstate.view(stream.name)["n_bls"] == 12
        with pytest.raises(TelstateError, match=r"another 'n_chans' in view '(bcp|vis)_'"):
            await dataclasses.replace(stream, n_chans=128).publish(telstate)


async def test_a_stream_that_is_not_there_or_malformed_is_named(redis_server: Server) -> None:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        with pytest.raises(TelstateError, match=r"no 'scale' in view 'bcp_' within 0\.05 s"):
            await CorrelatorStream.load(telstate, "bcp", timeout=0.05)
        values = {f.name: getattr(CORRELATOR, f.name) for f in dataclasses.fields(CORRELATOR)}
        for key, value in values.items():
            if key != "name":
                await telstate.view("bad").set(key, "many" if key == "n_chans" else value)
        with pytest.raises(StreamError, match="'bad': n_chans is 'many'"):
            await CorrelatorStream.load(telstate, "bad", timeout=PATIENCE)


async def test_no_server_is_one_line(unused_port: int) -> None:
    with pytest.raises(TelstateError, match=r"cannot reach telescope state at 127\.0\.0\.1"):
        async with ts.connect(parse_endpoint(f"127.0.0.1:{unused_port}")):
            pass


@pytest.mark.parametrize(
    "change",
    [
        {"n_chans": 0},
        {"n_chans": 1 << 30},
        {"n_chans_per_substream": 0},
        {"n_chans_per_substream": 24},
        {"bandwidth": -1.0},
        {"center_freq": 0.0},
        {"int_time": 1.0},
        {"n_accs": 0},
        {"scale": 0.0},
        {"sync_time": -1.0},
        {"bls_ordering": ()},
    ],
)
def test_contradictions_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StreamError):
        dataclasses.replace(CORRELATOR, **change)


def test_derived_values() -> None:
    assert CORRELATOR.n_substreams == 4
    assert CORRELATOR.heap_bytes == 16 * 12 * 8
    assert [CORRELATOR.endpoint_index(i, 2) for i in range(4)] == [0, 0, 1, 1]
    assert CORRELATOR.channel_freqs[32] == CORRELATOR.center_freq
    assert CORRELATOR.channel_freqs[33] - CORRELATOR.channel_freqs[32] == CORRELATOR.channel_width
