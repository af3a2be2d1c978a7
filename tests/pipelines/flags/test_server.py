"""L0 over multicast, through flagger and both writers, to what katdal opens."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spead2.send

from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering
from pipelines.common.dataset import open_dataset
from pipelines.common.endpoints import parse_endpoint, parse_endpoints
from pipelines.common.l0 import Content, L0Layout
from pipelines.common.l0.server import L0Input, L0Server
from pipelines.common.spead import (
    END_DUMP_INDEX,
    FLAG_CAL_RFI,
    FLAG_DATA_LOST,
    FLAG_INGEST_RFI,
    FLAVOUR,
    l0_items,
    make_sender,
)
from pipelines.common.stream_info import VisStream
from pipelines.flags.send import FlagSender
from pipelines.flags.server import FlagsServer
from pipelines.flags.warm_up import warm_up
from pipelines.metadata.server import MetadataServer
from pipelines.writer.server import WriterServer
from pipelines.writer.store import StoreError
from tests.conftest import PATIENCE, free_port
from tests.pipelines.flow import taken

CBID = "1234567890"
L0 = parse_endpoints(f"239.192.71.61+1:{(PORT := free_port())}")
FLAGS = parse_endpoints(f"239.192.71.65+1:{PORT}")
ANTENNAS = ("m000", "m001", "m002")
STREAM = VisStream(
    name="sdp_l0",
    n_chans=128,
    bandwidth=856e6,
    center_freq=1.284e9,
    sync_time=1_600_000_000.0,
    int_time=2.0,
    bls_ordering=correlator_ordering(ANTENNAS),
    src_streams=("bcp",),
)
N_DUMPS = 11
WEAK = 30
LOST = (3, 1)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    warm_up()


async def send_block(cbid: str, *receivers: L0Server) -> None:
    sender, sent = make_sender(L0, rate=4e6), 0
    rng = np.random.default_rng(1)
    half = STREAM.n_chans // 2
    for dump in (*range(N_DUMPS), *(END_DUMP_INDEX,) * 3):
        for part in range(2):
            items = l0_items(half, STREAM.n_bls)
            shape = (half, STREAM.n_bls)
            items["frequency"].value = part * half
            items["capture_block_id"].value = int(cbid)
            items["dump_index"].value = dump
            items["timestamp"].value = float(N_DUMPS)
            if dump != END_DUMP_INDEX:
                vis = rng.normal(size=shape) + 1j * rng.normal(size=shape)
                flags = np.zeros(shape, np.uint8)
                if part == 0:
                    vis[WEAK] += 7 * np.exp(2j * np.pi * rng.random(STREAM.n_bls))
                    flags[5] = FLAG_INGEST_RFI
                items["correlator_data"].value = vis.astype(np.complex64)
                items["flags"].value = flags
                items["weights"].value = np.ones(shape, np.uint8)
                items["weights_channel"].value = np.ones(half, np.float32)
                items["timestamp"].value = 10.0 + 2.0 * dump
                if (dump, part) == LOST:
                    continue
            heap = spead2.send.Heap(FLAVOUR)
            for item in items.values():
                if item.value is not None:
                    heap.add_item(item)
            heap.repeat_pointers = True
            await sender.async_send_heap(heap, substream_index=part)
            sent += 1
            await taken(sent, *receivers)


async def describe(telstate: Any) -> None:
    root = {
        "sub_product": "test",
        "sub_band": "l",
        "sub_pool_resources": ",".join(ANTENNAS),
        "subarray_product_id": "test",
        "sdp_archived_streams": ["sdp_l0", "sdp_l1_flags"],
        "sdp_l0_stream_type": "sdp.vis",
        "sdp_l1_flags_stream_type": "sdp.flags",
        "sdp_l1_flags_src_streams": ["sdp_l0", "cal"],
    }
    for i, name in enumerate(ANTENNAS):
        root[f"{name}_observer"] = f"{name}, -30:42:39.8, 21:26:38.0, 1035.0, 13.5, {100 * i} 0 0"
    for key, value in root.items():
        await ts.publish(telstate, key, value)
    await STREAM.publish(telstate)
    block = {"observer": "x", "description": "y", "experiment_id": "z", "ants": ",".join(ANTENNAS)}
    await ts.publish(telstate.view(CBID), "obs_params", block)
    await ts.publish(telstate.view(telstate.join(CBID, "sdp_l0")), "first_timestamp", 10.0)
    await ts.publish(telstate.view("cal"), "antlist", list(ANTENNAS))
    await ts.publish(telstate.view("cal"), "pol_ordering", ["h", "v"])
    solution = np.exp(1j * np.arange(STREAM.n_chans * 6)).reshape(-1, 2, 3).astype(np.complex64)
    await ts.add_sample(telstate.view(f"{CBID}_cal"), "product_B0", solution, 1.6e9)
    await ts.add_sample(telstate, "cbf_target", "t, radec target, 0:0:0, -30:0:0", 1.6e9)
    await ts.add_sample(telstate, "obs_activity", "track", 1.6e9)


async def test_the_better_flags_are_those_that_katdal_reads(
    redis_server: Any, tmp_path: Path
) -> None:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        await describe(telstate)
        options = argparse.Namespace(host="127.0.0.1", port=0, data=tmp_path)
        source = L0Input(STREAM, L0, "127.0.0.1", PATIENCE)
        layout = L0Layout(128, STREAM.n_bls, 2, 2.0, Content.FLAGS)
        sender = FlagSender(layout, FLAGS, "127.0.0.1", 5e6)
        flagger = FlagsServer(options, telstate, source, sender, depth=8, cal_stream="cal")
        flags_stream = dataclasses.replace(STREAM, name="sdp_l1_flags")
        flag_source = L0Input(flags_stream, FLAGS, "127.0.0.1", PATIENCE, Content.FLAGS)
        flag_writer = WriterServer(options, telstate, flag_source)
        writer = WriterServer(options, telstate, source)
        metadata = MetadataServer(options, telstate, ["sdp_l0"], tmp_path)
        servers = (metadata, writer, flag_writer, flagger)
        ctx: Any = None
        for server in servers:
            await server.start()
            await server.request_capture_init(ctx, CBID)
        await send_block(CBID, flagger, writer)
        for server in reversed(servers):  # as the controller ends them: with the flow
            await server.request_capture_done(ctx)
        assert flagger.sensors["output-heaps-total"].value == 2 * N_DUMPS
        assert flagger.sensors["bandpasses"].value == 1
        assert flag_writer.sensors["input-heaps-lost"].value == 0
        for server in servers:
            await server.stop()
        again = WriterServer(options, telstate, flag_source)
        with pytest.raises(StoreError, match="already"):
            await again.prepare(CBID)
        await again.start()
        await again.stop()
    data = open_dataset(tmp_path / CBID / f"{CBID}_sdp_l0.rdb")
    raw = data.raw_flags[:]
    assert raw.shape == (N_DUMPS, 128, STREAM.n_bls)
    hit = (raw & FLAG_CAL_RFI) != 0
    assert hit[:8, WEAK].mean() > 0.9
    others = np.delete(hit[:8], [WEAK - 1, WEAK, WEAK + 1], axis=1)
    assert others.mean() < 5e-3
    assert (raw[:, 5] == FLAG_INGEST_RFI).all()
    dump, part = LOST
    assert (raw[dump, 64:] & FLAG_DATA_LOST).all() and not (raw[dump + 1] & FLAG_DATA_LOST).any()
    assert part == 1
