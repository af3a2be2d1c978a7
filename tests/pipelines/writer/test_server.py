"""The writer as a program: its requests, a slow disk, a full one, and its end."""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokatcp
import numpy as np
import pytest
import spead2.send

from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering
from pipelines.common.endpoints import parse_endpoint, parse_endpoints
from pipelines.common.l0 import DumpPart, L0Layout
from pipelines.common.l0.server import L0Input
from pipelines.common.spead import END_DUMP_INDEX, FLAVOUR, l0_items, make_sender
from pipelines.common.stream_info import VisStream
from pipelines.writer.server import WriterServer
from pipelines.writer.store import BlockStore, StoreError
from tests.conftest import PATIENCE, free_port
from tests.pipelines.served import served

ENDPOINTS = parse_endpoints(f"239.192.71.13:{free_port()}")
STREAM = VisStream(
    name="sdp_l0",
    n_chans=4,
    bandwidth=4e6,
    center_freq=1.4e9,
    sync_time=1.6e9,
    int_time=1.0,
    bls_ordering=correlator_ordering(["m000", "m001"]),
    src_streams=("bcp",),
)


LAYOUT = L0Layout(STREAM.n_chans, STREAM.n_bls, 1, STREAM.int_time)


async def send(cbid: str, dumps: Iterable[int], announced: int | None) -> None:
    sender = make_sender(ENDPOINTS, rate=50e6)
    shape = (STREAM.n_chans, STREAM.n_bls)
    heaps: list[dict[str, Any]] = [
        {
            "correlator_data": np.full(shape, dump, np.complex64),
            "flags": np.zeros(shape, np.uint8),
            "weights": np.ones(shape, np.uint8),
            "weights_channel": np.ones(shape[0], np.float32),
            "timestamp": 5.0 + dump,
            "dump_index": dump,
        }
        for dump in dumps
    ]
    if announced is not None:
        heaps += 3 * [{"timestamp": float(announced), "dump_index": END_DUMP_INDEX}]
    for values in heaps:
        items = l0_items(*shape)
        for name, value in (values | {"frequency": 0, "capture_block_id": int(cbid)}).items():
            items[name].value = value
        heap = spead2.send.Heap(FLAVOUR)
        for item in items.values():
            if item.value is not None:
                heap.add_item(item)
        heap.repeat_pointers = True
        await sender.async_send_heap(heap)


@asynccontextmanager
async def writer(
    redis_server: Any, data: Path, drain: float = PATIENCE
) -> AsyncIterator[tuple[WriterServer, aiokatcp.Client]]:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        options = argparse.Namespace(host="127.0.0.1", port=0, data=data)
        server = WriterServer(options, telstate, L0Input(STREAM, ENDPOINTS, "127.0.0.1", drain))
        async with served(server) as client:
            yield server, client


def chunks(data: Path, cbid: str) -> list[int]:
    directory = data / f"{cbid}-sdp-l0" / "correlator_data"
    return sorted(int(path.name[:5]) for path in directory.glob("*.npy"))


async def chunk_info(redis_server: Any, cbid: str) -> Any:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        return await ts.get(telstate.view(f"{cbid}_sdp_l0"), "chunk_info", None)


async def test_blocks_follow_each_other_and_sensors_count_on(
    redis_server: Any, tmp_path: Path
) -> None:
    async with writer(redis_server, tmp_path) as (server, client):
        for cbid in ("1000000001", "1000000002"):
            await client.request("capture-init", cbid)
            assert server.sensors["capture-block-id"].value == cbid
            await send(cbid, range(5), 6)
            await client.request("capture-done")
            assert chunks(tmp_path, cbid) == [0, 1, 2, 3, 4]
            # The sixth was announced: it is part of the data set, as lost data.
            assert (await chunk_info(redis_server, cbid))["flags"]["shape"] == (6, 4, 12)
        assert server.sensors["input-heaps-total"].value == 10
        assert server.sensors["input-heaps-lost"].value == 2
        assert server.sensors["bytes-written"].value == 10 * (4 * 12 * 10 + 16)
        assert server.sensors["disk-free"].value > 0
        assert server.sensors["capture-block-id"].value == ""
        with pytest.raises(aiokatcp.FailReply, match="already"):
            await client.request("capture-init", "1000000001")
        # A refused block has changed nothing.
        await client.request("capture-init", "1000000003")
        await send("1000000003", range(1), 1)
        await client.request("capture-done")


async def test_requests_out_of_order_are_refused(redis_server: Any, tmp_path: Path) -> None:
    async with writer(redis_server, tmp_path) as (_, client):
        with pytest.raises(aiokatcp.FailReply, match="no capture block"):
            await client.request("capture-done")
        for cbid in ("", "../../etc", "-1", "9" * 40):
            with pytest.raises(aiokatcp.FailReply):
                await client.request("capture-init", cbid)
        await client.request("capture-init", "1000000001")
        with pytest.raises(aiokatcp.FailReply, match="1000000001"):
            await client.request("capture-init", "1000000002")
        await send("1000000001", [], 0)
        await client.request("capture-done")
        assert await chunk_info(redis_server, "1000000001") is None


async def test_a_disk_that_does_not_keep_up_costs_counted_dumps_only(
    redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk stands still while forty dumps come, which is more than there is memory for."""
    goes = threading.Event()
    write = BlockStore.write

    def slow(store: BlockStore, dump: int, part: DumpPart) -> int:
        goes.wait(PATIENCE)
        return write(store, dump, part)

    monkeypatch.setattr(BlockStore, "write", slow)
    async with writer(redis_server, tmp_path) as (server, client):
        dropped = asyncio.Event()
        server.sensors["heaps-dropped"].attach(
            lambda sensor, reading: dropped.set() if reading.value >= 10 else None
        )
        await client.request("capture-init", "1000000001")
        await send("1000000001", range(40), 40)
        async with asyncio.timeout(PATIENCE):
            await dropped.wait()
        goes.set()
        await client.request("capture-done")
        assert server.device_status is aiokatcp.DeviceStatus.DEGRADED
        count = server.sensors["heaps-dropped"].value
        lost = server.sensors["input-heaps-lost"].value
        assert count >= 10
        assert len(chunks(tmp_path, "1000000001")) == 40 - count - lost
        assert (await chunk_info(redis_server, "1000000001"))["flags"]["shape"] == (40, 4, 12)
        assert server.sensors["heaps-dropped"].reading.status is aiokatcp.Sensor.Status.WARN


async def test_what_a_full_disk_refuses_is_counted_and_the_rest_goes_on(
    redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = BlockStore.write

    def sometimes(store: BlockStore, dump: int, part: DumpPart) -> int:
        if dump in (2, 3):
            raise StoreError(f"dump {dump} not written: no space left on device")
        return write(store, dump, part)

    monkeypatch.setattr(BlockStore, "write", sometimes)
    async with writer(redis_server, tmp_path) as (server, client):
        await client.request("capture-init", "1000000001")
        await send("1000000001", range(6), 6)
        await client.request("capture-done")
        assert chunks(tmp_path, "1000000001") == [0, 1, 4, 5]
        assert server.sensors["heaps-not-written"].value == 2
        assert server.device_status is aiokatcp.DeviceStatus.FAIL


async def test_a_killed_writer_is_followed_by_one_that_goes_on(
    redis_server: Any, tmp_path: Path
) -> None:
    """What was written stays, what came while nobody listened is lost data, and the block has all of it."""
    cbid = "1000000001"
    before = BlockStore(tmp_path, cbid, "sdp_l0", LAYOUT)
    part = DumpPart(
        range(STREAM.n_chans),
        np.zeros((STREAM.n_chans, STREAM.n_bls), np.complex64),
        np.zeros((STREAM.n_chans, STREAM.n_bls), np.uint8),
        np.ones((STREAM.n_chans, STREAM.n_bls), np.uint8),
        np.ones(STREAM.n_chans, np.float32),
    )
    for dump in (0, 1):
        before.write(dump, part)
    async with writer(redis_server, tmp_path) as (_, client):
        await client.request("capture-init", cbid)
        await send(cbid, (4, 5), 6)
        await client.request("capture-done")
    assert chunks(tmp_path, cbid) == [0, 1, 4, 5]
    assert (await chunk_info(redis_server, cbid))["flags"]["shape"] == (6, 4, 12)


@pytest.mark.parametrize(("seconds", "status"), [(2000, "NOMINAL"), (1700, "WARN"), (170, "ERROR")])
async def test_that_the_disk_will_be_full_is_told_before(
    seconds: int, status: str, redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = int(seconds * LAYOUT.heap_bytes)
    monkeypatch.setattr(BlockStore, "free_bytes", lambda store: free)
    async with writer(redis_server, tmp_path) as (server, client):
        await client.request("capture-init", "1000000001")
        reading = server.sensors["disk-free"].reading
        assert (reading.value, reading.status.name) == (free, status)
        await send("1000000001", [], 0)
        await client.request("capture-done")


async def test_stopping_finishes_the_block_with_what_came(
    redis_server: Any, tmp_path: Path
) -> None:
    async with writer(redis_server, tmp_path) as (server, client):
        received = asyncio.Event()
        server.sensors["input-heaps-total"].attach(
            lambda sensor, reading: received.set() if reading.value >= 2 else None
        )
        await client.request("capture-init", "1000000001")
        # Eight dumps are a window; what is in it comes out at the end.
        await send("1000000001", range(10), None)
        async with asyncio.timeout(PATIENCE):
            await received.wait()
    assert chunks(tmp_path, "1000000001") == list(range(10))
    assert (await chunk_info(redis_server, "1000000001"))["flags"]["shape"] == (10, 4, 12)
