"""The metadata writer: files while a block goes on, at its end, and when something went wrong."""

from __future__ import annotations

import argparse
import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokatcp
import katsdptelstate
import numpy as np
import pytest
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering
from pipelines.common.dataset import open_dataset
from pipelines.common.dataset_files import lite_rdb_path, rdb_path
from pipelines.common.endpoints import parse_endpoint
from pipelines.common.l0 import DumpPart, L0Layout
from pipelines.common.stream_info import VisStream
from pipelines.metadata import server as metadata_server
from pipelines.metadata.server import MetadataServer
from pipelines.writer.store import BlockStore
from tests.conftest import PATIENCE
from tests.pipelines.cancelling import ends_whenever_it_is_cancelled
from tests.pipelines.served import served

CBID = "1600000000"
ANTENNAS = ("m000", "m001")
STREAM = VisStream(
    name="sdp_l0",
    n_chans=4,
    bandwidth=4e6,
    center_freq=1.4e9,
    sync_time=1.6e9,
    int_time=1.0,
    bls_ordering=correlator_ordering(ANTENNAS),
    src_streams=("bcp",),
)
LAYOUT = L0Layout(STREAM.n_chans, STREAM.n_bls, 1, STREAM.int_time)


@pytest.fixture
async def telstate(redis_server: Any) -> AsyncIterator[TelescopeState]:
    """With what a data set needs, but for its chunks."""
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as state:
        root = {"sub_product": "x", "sub_band": "l", "sub_pool_resources": ",".join(ANTENNAS)}
        for i, name in enumerate(ANTENNAS):
            root[f"{name}_observer"] = f"{name}, -30:42:39.8, 21:26:38.0, 1035, 13.5, {100 * i} 0 0"
        for key, value in root.items():
            await ts.publish(state, key, value)
        await STREAM.publish(state)
        await ts.publish(state.view("sdp_l0"), "stream_type", "sdp.vis")
        params = {"observer": "x", "description": "", "experiment_id": "", "ants": "m000,m001"}
        await ts.publish(state.view(CBID), "obs_params", params)
        await ts.add_sample(state, "cbf_target", "t, radec target, 0:0:0, -30:0:0", 1.6e9)
        await ts.add_sample(state, "obs_activity", "track", 1.6e9)
        yield state


class Writer:
    """Does to disk and telescope state what the visibility writer does."""

    def __init__(self, telstate: TelescopeState, root: Path, cbid: str = CBID) -> None:
        self.view = telstate.view(f"{cbid}_sdp_l0")
        self.store = BlockStore(root, cbid, "sdp_l0", LAYOUT)

    async def begin(self) -> None:
        await ts.publish(self.view, "chunk_info_of_dump", self.store.chunk_info(1))
        await ts.publish(self.view, "first_timestamp", 10.5)

    def write(self, *dumps: int) -> None:
        shape = (STREAM.n_chans, STREAM.n_bls)
        for dump in dumps:
            part = DumpPart(
                range(STREAM.n_chans),
                np.full(shape, dump, np.complex64),
                np.zeros(shape, np.uint8),
                np.ones(shape, np.uint8),
                np.ones(shape[0], np.float32),
            )
            self.store.write(dump, part)

    async def end(self, n_dumps: int) -> None:
        await ts.publish(self.view, "chunk_info", self.store.chunk_info(n_dumps))


@asynccontextmanager
async def metadata(
    telstate: TelescopeState, root: Path, period: float = 60.0
) -> AsyncIterator[tuple[MetadataServer, aiokatcp.Client]]:
    options = argparse.Namespace(host="127.0.0.1", port=0)
    server = MetadataServer(options, telstate, ["sdp_l0"], root, period=period)
    async with served(server) as client:
        yield server, client


def dumps_of(path: Path) -> list[int]:
    """Dumps that katdal has in a data set, and what is in them."""
    return [int(vis[0, 0].real) for vis in open_dataset(path).vis[:]]


async def test_what_is_there_of_a_block_can_be_opened_and_then_all_of_it(
    telstate: TelescopeState, tmp_path: Path
) -> None:
    final, lite = (path(tmp_path, CBID, "sdp_l0") for path in (rdb_path, lite_rdb_path))
    writer = Writer(telstate, tmp_path)
    await writer.begin()
    writer.write(0, 1, 3)
    async with metadata(telstate, tmp_path) as (server, client):
        await client.request("capture-init", CBID)
        assert dumps_of(lite) == [0, 1, 0, 3]  # the third did not come: it is lost data
        assert not final.exists()
        with pytest.raises(aiokatcp.FailReply, match="capture-done first"):
            await client.request("capture-init", "1600000001")
        with pytest.raises(aiokatcp.FailReply, match="is on"):
            await client.request("write-meta", CBID)
        writer.write(2, 4)
        await writer.end(6)  # one more was announced
        await client.request("capture-done")
        assert dumps_of(final) == [0, 1, 2, 3, 4, 0]
        assert not lite.exists()
        assert server.sensors["files-written"].value == 2
        assert server.sensors["keys-written"].value > 20
        assert server.device_status is aiokatcp.DeviceStatus.OK
        with pytest.raises(aiokatcp.FailReply, match="already"):
            await client.request("capture-init", CBID)
        with pytest.raises(aiokatcp.FailReply, match="no capture block"):
            await client.request("capture-done")


async def test_a_client_that_asks_again_waits_for_the_same_files(
    telstate: TelescopeState, tmp_path: Path
) -> None:
    """A controller was killed while the files were written; the next one finds the block on, and ends it."""
    writer = Writer(telstate, tmp_path)
    await writer.begin()
    async with metadata(telstate, tmp_path) as (server, client):
        await client.request("capture-init", CBID)
        await writer.end(1)
        async with server._writing:  # the disk is busy
            asked = [asyncio.create_task(client.request("capture-done")) for _ in range(2)]
            for _ in range(100):
                await asyncio.sleep(0)
            await client.request("watchdog")
            assert server.sensors["capture-block-id"].value == CBID
            asked[0].cancel()
        async with asyncio.timeout(PATIENCE):
            await asked[1]
        assert server.sensors["capture-block-id"].value == ""
        assert server.sensors["files-written"].value == 2
    assert rdb_path(tmp_path, CBID, "sdp_l0").exists()


async def test_a_block_whose_writer_died_is_what_is_on_the_disk(
    telstate: TelescopeState, tmp_path: Path
) -> None:
    writer = Writer(telstate, tmp_path)
    await writer.begin()
    async with metadata(telstate, tmp_path) as (_, client):
        await client.request("capture-init", CBID)
        writer.write(0, 1, 2)
        await client.request("capture-done")
    assert dumps_of(rdb_path(tmp_path, CBID, "sdp_l0")) == [0, 1, 2]


async def test_what_the_disk_refused_is_written_when_it_has_room(
    telstate: TelescopeState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    final = rdb_path(tmp_path, CBID, "sdp_l0")
    writer = Writer(telstate, tmp_path)
    await writer.begin()
    writer.write(0)
    async with metadata(telstate, tmp_path) as (server, client):
        with monkeypatch.context() as patch:
            patch.setattr(metadata_server, "write_rdb", full)
            await client.request("capture-init", CBID)
            assert server.device_status is aiokatcp.DeviceStatus.DEGRADED
            await writer.end(1)
            with pytest.raises(aiokatcp.FailReply, match=r"No space left.*tried again"):
                await client.request("capture-done")
        assert server.device_status is aiokatcp.DeviceStatus.FAIL
        assert server.sensors["write-failures"].value == 2
        assert server.sensors["files-owed"].reading.status is aiokatcp.Sensor.Status.WARN
        await server._write_owed()  # what it does every minute
        assert server.sensors["files-owed"].value == 0
        assert dumps_of(final) == [0]
        final.unlink()
        assert int((await client.request("write-meta", CBID))[0][0]) > 20
        assert final.exists()


async def test_a_run_makes_up_for_what_the_one_before_did_not_do(
    telstate: TelescopeState, tmp_path: Path
) -> None:
    """It was killed: one block has ended since, another goes on."""
    ended, going_on = Writer(telstate, tmp_path), Writer(telstate, tmp_path, "1600000001")
    for writer in (ended, going_on):
        await writer.begin()
        writer.write(0, 1)
    await ended.end(2)
    async with metadata(telstate, tmp_path) as (_, client):
        assert dumps_of(rdb_path(tmp_path, CBID, "sdp_l0")) == [0, 1]
        await client.request("capture-init", "1600000001")  # as the controller does
    assert not rdb_path(tmp_path, "1600000001", "sdp_l0").exists()
    state = katsdptelstate.TelescopeState()
    state.load_from_file(str(lite_rdb_path(tmp_path, "1600000001", "sdp_l0")))
    assert state["1600000001_sdp_l0_chunk_info"]["flags"]["shape"] == (2, 4, 12)
    assert f"{CBID}_sdp_l0_chunk_info" not in state


async def test_it_writes_again_while_a_block_goes_on(
    telstate: TelescopeState, tmp_path: Path
) -> None:
    lite = lite_rdb_path(tmp_path, CBID, "sdp_l0")
    writer = Writer(telstate, tmp_path)
    await writer.begin()
    async with metadata(telstate, tmp_path, period=0.02) as (server, client):
        await client.request("capture-init", CBID)
        writer.write(0, 1)
        before = server.sensors["files-written"].value
        reached = server.sensors["files-written"]
        written = asyncio.Event()
        reached.attach(lambda _, reading: written.set() if reading.value >= before + 2 else None)
        async with asyncio.timeout(PATIENCE):
            await written.wait()
        assert dumps_of(lite) == [0, 1]


async def test_it_ends_whenever_it_is_told_to(telstate: TelescopeState, tmp_path: Path) -> None:
    options = argparse.Namespace(host="127.0.0.1", port=0)
    server = MetadataServer(options, telstate, ["sdp_l0"], tmp_path, period=0)
    await ends_whenever_it_is_cancelled(server._keep_writing)
