from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from sdpcontroller.errors import CommandError
from sdpcontroller.telstate import ProductTelstate, targets
from tests.conftest import PATIENCE

SKY = [
    "PKS, radec target, 4:24:00.0, -38:00:00.0",
    "J0408-6545, radec bpcal, 4:08:20.38, -65:45:09.1",
    "zenith, azel, 0:00:00.0, 90:00:00.0",
]
CBID = "1772382000"
times = st.floats(-100, 200).map(lambda t: round(t, 3))


@given(
    st.lists(st.tuples(st.sampled_from(SKY), times), min_size=1, max_size=12),
    times,
    st.floats(0, 100),
)
def test_durations_add_up_to_what_was_observed(
    track: list[tuple[str, float]], start: float, span: float
) -> None:
    track = sorted(track, key=lambda entry: entry[1])
    end = start + span
    found = targets(track, start, end)
    observed = max(0.0, end - max(start, track[0][1]))
    assert math.isclose(sum(t.duration for t in found), observed, abs_tol=1e-9)
    assert all(t.duration > 0 for t in found)
    assert len({t.name for t in found}) == len(found)
    assert {t.name for t in found} <= {text.partition(",")[0] for text, _ in track}


def test_nothing_was_pointed_at() -> None:
    assert targets([], 0.0, 10.0) == []


def test_a_target_with_two_descriptions_is_one() -> None:
    track = [(SKY[0], 0.0), (SKY[1], 4.0), (SKY[0].replace("-38", "-39"), 5.0)]
    (first, second) = targets(track, 0.0, 10.0)
    assert (first.name, first.duration, first.tags) == ("PKS", 9.0, {"radec", "target"})
    assert (second.name, second.duration) == ("J0408-6545", 1.0)


def test_what_is_no_description_is_told_only_when_it_was_observed() -> None:
    assert len(targets([("?", 0.0), (SKY[0], 5.0)], 5.0, 10.0)) == 1
    with pytest.raises(ValueError, match="at least two fields"):
        targets([("?", 0.0), (SKY[0], 6.0)], 5.0, 10.0)


GOOD = {
    f"{CBID}_sdp_l0_chunk_info": {"correlator_data": {"shape": [5, 1024, 40]}},
    f"{CBID}_sdp_l0_first_timestamp": 11.0,
    "sdp_l0_int_time": 2.0,
    "sdp_l0_sync_time": 1000.0,
}


async def fill(redis_server: Any, values: dict[str, Any]) -> None:
    async with ProductTelstate.connect(redis_server.host, redis_server.port) as link:
        await link.publish(values)
        for text, time in ((SKY[2], 900.0), (SKY[1], 1013.0), (SKY[0], 1016.0), (SKY[2], 1020.0)):
            await link._telstate.add("cbf_target", text, ts=time)


async def test_observed_is_what_the_dumps_of_the_data_set_cover(redis_server: Any) -> None:
    await fill(redis_server, GOOD)
    async with ProductTelstate.connect(redis_server.host, redis_server.port) as link:
        # Five dumps of two seconds, the first centred on 1011.
        found = await link.observed(CBID, "sdp_l0")
        assert [(t.name, t.duration) for t in found] == [
            ("zenith", 3.0), ("J0408-6545", 3.0), ("PKS", 4.0),
        ]  # fmt: skip
        assert await link.observed("17", "sdp_l0") == []  # no data came


@pytest.mark.parametrize(
    "damage",
    [
        {"sdp_l0_int_time": None},
        {"sdp_l0_int_time": "2"},
        {"sdp_l0_sync_time": [1]},
        {f"{CBID}_sdp_l0_first_timestamp": "soon"},
        {f"{CBID}_sdp_l0_first_timestamp": math.nan},
        {f"{CBID}_sdp_l0_chunk_info": {}},
        {f"{CBID}_sdp_l0_chunk_info": 7},
        {f"{CBID}_sdp_l0_chunk_info": {"correlator_data": {"shape": []}}},
        {f"{CBID}_sdp_l0_chunk_info": {"correlator_data": {"shape": "many"}}},
    ],
)
async def test_what_programs_wrote_wrongly_is_one_line(redis_server: Any, damage: Any) -> None:
    values = {key: value for key, value in {**GOOD, **damage}.items() if value is not None}
    await fill(redis_server, values)
    async with ProductTelstate.connect(redis_server.host, redis_server.port) as link:
        with pytest.raises(CommandError, match="does not tell what was observed"):
            await link.observed(CBID, "sdp_l0")


async def test_values_are_published_once_and_must_not_differ(redis_server: Any) -> None:
    async with ProductTelstate.connect(redis_server.host, redis_server.port) as link:
        await link.publish({"a": [1, "x"], "b": {"c": True}})
        await link.publish({"a": [1, "x"]})
        with pytest.raises(CommandError, match="another value already"):
            await link.publish({"a": [2]})


@pytest.mark.parametrize("value", [10**30, "\ud800", {"x": 2**64}])
async def test_what_it_cannot_hold_is_named(redis_server: Any, value: Any) -> None:
    """JSON documents can have such values, in service_overrides for one."""
    async with ProductTelstate.connect(redis_server.host, redis_server.port) as link:
        with pytest.raises(CommandError, match=r"cannot hold config\.x"):
            await link.publish({"config.x": value})


async def test_nobody_answers(unused_port: int) -> None:
    with pytest.raises(CommandError, match=f":{unused_port} does not answer"):
        async with ProductTelstate.connect("127.0.0.1", unused_port):
            pass


async def test_somebody_else_answers() -> None:
    async def gossip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(gossip, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CommandError, match="does not answer"):
            async with ProductTelstate.connect("127.0.0.1", port):
                pass


async def test_no_link_is_left_whenever_it_is_cancelled(redis_server: Any) -> None:
    async def publish() -> None:
        async with ProductTelstate.connect(redis_server.host, redis_server.port) as link:
            await link.publish({"a": 1, "b": 2})

    async with redis.asyncio.Redis(host=redis_server.host, port=redis_server.port) as client:
        for turns in range(0, 60, 3):
            publishing = asyncio.ensure_future(publish())
            for _ in range(turns):
                await asyncio.sleep(0)
            publishing.cancel()
            await asyncio.wait({publishing})
        async with asyncio.timeout(PATIENCE):
            while int((await client.info("clients"))["connected_clients"]) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
