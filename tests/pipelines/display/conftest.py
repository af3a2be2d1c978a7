"""A display that a sender feeds over UDP."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import aiokatcp
import numpy as np
import pytest
import spead2.send

from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering
from pipelines.common.endpoints import parse_endpoint, parse_endpoints
from pipelines.common.l0.server import L0Input
from pipelines.common.spead import END_DUMP_INDEX, FLAVOUR, l0_items, make_sender
from pipelines.common.stream_info import VisStream
from pipelines.display.server import DisplayServer
from pipelines.display.warm_up import warm_up
from pipelines.display.web import serve
from tests.conftest import PATIENCE, free_port
from tests.pipelines.flow import taken
from tests.pipelines.served import served

ENDPOINTS = parse_endpoints(f"239.192.71.44:{free_port()}")
N_CHANS = 256
STREAM = VisStream(
    name="sdp_l0",
    n_chans=N_CHANS,
    bandwidth=856e6,
    center_freq=1.284e9,
    sync_time=1.6e9,
    int_time=1.0,
    bls_ordering=correlator_ordering([f"m{i:03}" for i in range(4)]),
    src_streams=("bcp",),
)


def model(dump: int, seed: int = 1) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Visibilities with a fringe that turns, and flags where there is RFI."""
    generator = np.random.default_rng((seed, dump))
    shape = (N_CHANS, STREAM.n_bls)
    channel, product = np.meshgrid(np.arange(N_CHANS), np.arange(STREAM.n_bls), indexing="ij")
    auto = np.array([a == b for a, b in STREAM.bls_ordering])
    fringe = np.exp(1j * (0.03 * channel * (product % 7 - 3) + 0.05 * dump * (product % 5)))
    noise = 0.1 * (generator.normal(size=shape) + 1j * generator.normal(size=shape))
    vis = np.where(auto, 400 + 30 * np.sin(channel / 40), fringe + noise)
    vis[100:108] *= 5 if dump % 7 < 4 else 1
    flags = np.zeros(shape, np.uint8)
    flags[100:108] = 16 if dump % 7 < 4 else 0
    return vis.astype(np.complex64), flags


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Compilation is no part of a test's time."""
    warm_up()


@dataclass
class Display:
    server: DisplayServer
    client: aiokatcp.Client
    url: str
    http: aiohttp.ClientSession

    async def send(self, cbid: str, dumps: range, *, announced: int | None = None) -> None:
        sender = make_sender(ENDPOINTS, rate=20e6)
        ends = () if announced is None else (END_DUMP_INDEX,) * 3
        for sent, dump in enumerate((*dumps, *ends), 1):
            items = l0_items(N_CHANS, STREAM.n_bls)
            values: dict[str, Any] = {
                "frequency": 0,
                "capture_block_id": int(cbid),
                "dump_index": dump,
                "timestamp": float(announced or 0),
            }
            if dump != END_DUMP_INDEX:
                vis, flags = model(dump)
                values |= {
                    "correlator_data": vis,
                    "flags": flags,
                    "weights": np.ones(vis.shape, np.uint8),
                    "weights_channel": np.ones(N_CHANS, np.float32),
                    "timestamp": 5.0 + dump,
                }
            heap = spead2.send.Heap(FLAVOUR)
            for name, item in items.items():  # their order is that of the payload
                if name in values:
                    item.value = values[name]
                    heap.add_item(item)
            heap.repeat_pointers = True
            await sender.async_send_heap(heap)
            await taken(sent, self.server)

    async def get(self, path: str) -> Any:
        async with self.http.get(self.url + path) as answer:
            answer.raise_for_status()
            return await answer.json()


@pytest.fixture
async def display(redis_server: Any) -> AsyncIterator[Display]:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        options = argparse.Namespace(host="127.0.0.1", port=0)
        source = L0Input(STREAM, ENDPOINTS, "127.0.0.1", PATIENCE)
        server = DisplayServer(options, telstate, source, max_rate=1000)
        async with (
            served(server) as client,
            serve(server, "127.0.0.1", 0) as port,
            aiohttp.ClientSession() as http,
        ):
            yield Display(server, client, f"http://127.0.0.1:{port}", http)
