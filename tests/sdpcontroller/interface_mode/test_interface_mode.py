"""A controller without a cluster, as its clients see it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiokatcp
import katsdptelstate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import LaunchError
from scheduler.graph import instantiate
from scheduler.service import Scheduler
from sdpcontroller.cli.leading import serve_interface
from sdpcontroller.cli.main import make_parser
from sdpcontroller.interface_mode.stand_in import StandInScheduler
from tests.conftest import PATIENCE, free_port
from tests.sdpcontroller.documents import build, make_config

IMAGE = {"type": "sdp.continuum_image", "src_streams": ["l0_0", "cal_0"], "min_time": 5.0}


@asynccontextmanager
async def controller() -> AsyncIterator[aiokatcp.Client]:
    port = free_port()
    words = ["master", "--interface-mode", "--port", str(port)]
    options: argparse.Namespace = make_parser().parse_args(words)
    stop = asyncio.Event()
    running = asyncio.create_task(serve_interface(options, stop))
    client = aiokatcp.Client("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE):
            await client.wait_connected()
        yield client
    finally:
        client.close()
        await client.wait_closed()
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await running


def test_the_stand_in_can_be_called_as_the_scheduler_is() -> None:
    """With the same arguments: nobody who calls knows which one there is."""
    for name, method in vars(StandInScheduler).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            here = inspect.signature(method).parameters
            there = inspect.signature(getattr(Scheduler, name)).parameters
            assert here.keys() <= there.keys() and there.keys() - here.keys() <= {"queue"}, name


@pytest.mark.parametrize("when", ["up", "coming up"])
async def test_a_graph_that_several_take_down_at_once_is_down(when: str) -> None:
    """STANDBY and a forced deconfigure, and the launch itself: nothing is left of it."""
    graph = instantiate(build(make_config()).graph, "g-1")
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def late(_task: str) -> Mapping[str, str]:
        arrived.set()
        await gate.wait()
        return {}

    async with StandInScheduler() as scheduler:
        launch = asyncio.create_task(scheduler.launch(graph, timeout=PATIENCE, late_values=late))
        await arrived.wait()
        if when == "up":
            gate.set()
            await launch
        await asyncio.gather(*(scheduler.stop("g-1", force=True) for _ in range(3)))
        assert scheduler.graphs() == ()
        gate.set()
        (end,) = await asyncio.gather(launch, return_exceptions=True)
        assert when == "up" or isinstance(end, LaunchError)
        assert scheduler.graphs() == ()
    gc.collect()  # complains of servers that were left


class Movement(aiokatcp.AbstractSensorWatcher):
    """Tells when a sensor has a value above 0, whenever it comes to be."""

    def __init__(self, name: str, moved: asyncio.Event) -> None:
        self._name = name
        self._moved = moved

    def sensor_updated(self, name: str, value: bytes, status: Any, timestamp: float) -> None:
        if name == self._name and int(value) > 0:
            self._moved.set()


async def value(client: aiokatcp.Client, name: str) -> str:
    _, informs = await client.request("sensor-value", name)
    return informs[0].arguments[4].decode()


async def test_a_whole_observation_without_a_cluster() -> None:
    text = json.dumps(make_config(outputs={"image": IMAGE}).to_json())
    async with controller() as client:
        await client.request("product-configure", "array_1", text)
        assert await value(client, "array_1.state") == "idle"
        assert await value(client, "state") == "ON"
        reply, _ = await client.request("capture-init", "array_1")
        assert await value(client, "array_1.state") == "capturing"
        tasks = {inform.arguments[0] for inform in (await client.request("task-list"))[1]}
        assert b"array_1.ingest.l0_0.0" in tasks
        _, streams = await client.request("capture-list")
        assert streams[0].arguments[2] == b"up"
        await client.request("capture-stop", "corr")
        assert (await client.request("capture-list"))[1][0].arguments[2] == b"down"
        assert (await client.request("capture-done", "array_1"))[0] == reply
        with pytest.raises(aiokatcp.FailReply, match="no capture block is under way"):
            await client.request("capture-start", "corr")
        await client.request("task-restart", "array_1", "display.l0_0")
        await client.request("product-deconfigure", "array_1", 1)
        assert await value(client, "products") == "[]"
        with pytest.raises(aiokatcp.FailReply, match="there is no product"):
            await client.request("capture-init", "array_1")


async def test_telescope_state_is_real_and_each_products_own() -> None:
    text = json.dumps(make_config().to_json())
    async with controller() as client:
        endpoints = set()
        for name in ("a", "b"):
            await client.request("product-configure", name, text)
            (endpoint,), _ = await client.request("telstate-endpoint", name)
            endpoints.add(endpoint)
            telstate: Any = katsdptelstate.TelescopeState(endpoint.decode())
            assert telstate["subarray_product_id"] == name
            telstate.backend.client.close()
        assert len(endpoints) == 2


async def test_sensors_of_stand_ins_move_while_a_capture_is_on() -> None:
    async with controller() as client:
        text = json.dumps(make_config(cal=False).to_json())
        await client.request("product-configure", "p", text)
        moved = asyncio.Event()
        client.add_sensor_watcher(Movement("p.ingest.l0_0.0.input-heaps-total", moved))
        await client.request("capture-init", "p")
        async with asyncio.timeout(PATIENCE):
            await moved.wait()


DOCUMENT = json.dumps(make_config(cal=False).to_json())
LATE = '{"config": {"shutdown_delay": 0.01}}'
REQUESTS: Sequence[tuple[str, ...]] = (
    *(2 * [("product-configure", name, DOCUMENT) for name in ("a", "b", "c*")]),
    *((request, name) for request in ("capture-init", "capture-done") for name in "aabb"),
    *(("product-deconfigure", name, force) for name in "ab" for force in "01"),
    *(("product-reconfigure", name) for name in "ab"),
    *(("task-restart", name, "display.l0_0") for name in "ab"),
    *((request, "corr", "a") for request in ("capture-start", "capture-stop")),
    *(("set-config-override", "a", override) for override in (LATE, "{}")),
    *(("set-target-state", state) for state in ("ON", "ON", "ON", "STANDBY")),
    ("product-list",), ("capture-list",), ("get-multicast-groups", "a", "3"),
)  # fmt: skip


@settings(max_examples=3)
@given(
    st.lists(
        st.lists(st.tuples(st.booleans(), st.sampled_from(REQUESTS)), min_size=10, max_size=25),
        min_size=3,
        max_size=6,
    )
)
def test_whatever_two_clients_ask_at_once_is_answered_and_nothing_is_left(
    rounds: list[list[tuple[bool, tuple[str, ...]]]],
) -> None:
    async def walk() -> None:
        async with controller() as one, AsyncExitStack() as stack:
            other = await aiokatcp.Client.connect(one.host, one.port)
            stack.push_async_callback(other.wait_closed)
            stack.callback(other.close)
            for asked in rounds:
                async with asyncio.timeout(PATIENCE):
                    ends = await asyncio.gather(
                        *((one if first else other).request(*words) for first, words in asked),
                        return_exceptions=True,
                    )
                for end in ends:
                    assert isinstance(end, tuple | aiokatcp.FailReply)
                    assert "fault of the controller" not in str(end)
            await one.request("set-target-state", "ON")
            for name in json.loads(await value(one, "products")):
                with suppress(aiokatcp.FailReply):  # STANDBY was faster
                    await one.request("product-deconfigure", name, 1)
            assert await value(one, "products") == "[]"
            _, sensors = await one.request("sensor-list", r"/^[abc]\d*\./")
            assert sensors == []

    asyncio.run(walk())
