"""What is wrong is refused, named, counted or survived by a running system, and leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import spead2
import spead2.send

from pipelines.common import spead
from pipelines.common.endpoints import parse_endpoints
from sdpcontroller.cli.cam import Cam, CamError, as_json, number
from sdpcontroller.cli.demo_config import CORRELATION, IMAGE, VIS, VOLTAGE
from tests.conftest import PATIENCE
from tests.e2e.documents import SIMULATOR, document, with_setting, with_stream
from tests.e2e.system import Stack, multicast_sender

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def nothing_is_left(stack: Stack) -> Iterator[None]:
    """After each test the cluster has everything back."""
    yield
    stack.assert_all_free()


@asynccontextmanager
async def cam(stack: Stack) -> AsyncIterator[Cam]:
    """A KATCP client, and no product when it is done, whatever happened."""
    async with Cam("127.0.0.1", stack.katcp_port) as client:
        try:
            yield client
        finally:
            for row in await client.informs("product-list"):
                await client.request("product-deconfigure", row[0], 1)


async def refusal(client: Cam, text: str, product: str = "bad") -> str:
    """The reason why a configuration is refused, having left no product."""
    with pytest.raises(CamError) as caught:
        await client.request("product-configure", product, text)
    assert await client.informs("product-list") == []
    return str(caught.value)


WRONG: list[tuple[Any, tuple[str, ...]]] = [
    ("{'version': '4.9'}", ("not JSON", "line 1")),
    ("[1, 2]", ("list", "must be an object")),
    (document(version="9.9"), ("version", "9.9")),
    (
        with_stream(VIS, type="sdp.viz"),
        (f"outputs.{VIS}", "sdp.viz", "sdp.vis"),
    ),
    (
        with_stream(VOLTAGE, bandwidth="856 MHz"),
        (f"outputs.{VOLTAGE}.bandwidth", "856 MHz", "Hz"),
    ),
    (with_stream(CORRELATION, int_time=-1), (f"outputs.{CORRELATION}.int_time", "-1")),
    (with_stream(VOLTAGE, n_chans=1000.5), (f"outputs.{VOLTAGE}.n_chans", "1000.5")),
    (with_stream(VIS, output_int_time=None), (f"outputs.{VIS}.output_int_time", "required")),
    (with_stream(VIS, src_streams=["nobody"]), (f"outputs.{VIS}.src_streams", "nobody")),
    (with_stream(VIS, outptu_int_time=2.0), (f"outputs.{VIS}.outptu_int_time", "output_int_time")),
    (with_stream(VOLTAGE, antennas=["m000, here"]), (f"outputs.{VOLTAGE}.antennas", "m000, here")),
]


@pytest.mark.parametrize(("configuration", "told"), WRONG, ids=lambda value: None)
async def test_a_wrong_configuration_is_refused_with_path_and_reason(
    stack: Stack, configuration: Any, told: tuple[str, ...]
) -> None:
    text = configuration if isinstance(configuration, str) else as_json(configuration)
    async with cam(stack) as client:
        reason = await refusal(client, text)
    for words in told:
        assert words in reason


async def test_what_can_never_fit_is_refused_at_once_by_resource(stack: Stack) -> None:
    """32 times the dump rate of a correlator: no interface here is fast enough, and none ever will be."""
    configuration = with_stream(CORRELATION, int_time=0.0005)
    async with cam(stack) as client:
        reason = await refusal(client, as_json(configuration))
    assert "can never run on this cluster" in reason
    assert "bandwidth" in reason and f"{SIMULATOR} asks for 19818" in reason


async def test_what_does_not_fit_now_is_refused_after_its_deadline_by_resource(
    stack: Stack,
) -> None:
    """An agent has 4 CPUs, two ingests take 3 of them: there is no room for two more on the same one."""
    agents = {f"ingest.{VIS}.{i}": {"host": "127.0.1.1"} for i in range(2)}
    configuration = as_json(document(config={"service_overrides": agents}))
    async with cam(stack) as client:
        await client.request("product-configure", "first", configuration)
        lack = f"cpus with its cores: ingest.{VIS}.0, ingest.{VIS}.1 each ask for 1.5"
        with pytest.raises(CamError, match=lack) as caught:
            await client.request("product-configure", "second", configuration)
        assert "127.0.1.1" in str(caught.value) and "never" not in str(caught.value)
        assert [row[0] for row in await client.informs("product-list")] == ["first"]
        assert await client.sensor("first.state") == "idle"


async def test_a_task_that_dies_at_its_start_is_named_with_its_last_words(stack: Stack) -> None:
    configuration = with_setting(f"ingest.{VIS}.1", no_such_option=1)
    async with cam(stack) as client:
        reason = await refusal(client, as_json(configuration))
    assert f"ingest.{VIS}.1" in reason
    assert "127.0.1." in reason  # its host
    assert "no-such-option" in reason or "no_such_option" in reason


async def test_a_task_that_is_killed_puts_the_product_in_error(stack: Stack) -> None:
    async with cam(stack) as client:
        await client.request("product-configure", "demo", as_json(document()))
        others = stack.tasks_running()
        stack.run.task("writer", f"vis_writer.{VIS}").kill()
        await until(lambda: sensor_is(client, "demo.state", "error"))
        reason = await client.sensor("demo.reason")
        assert f"vis_writer.{VIS}" in reason and "127.0.1." in reason
        assert len(stack.tasks_running()) == len(others) - 1  # nobody else was touched
        with pytest.raises(CamError, match="error"):
            await client.request("capture-init", "demo")
        await client.request("product-deconfigure", "demo")
        assert await client.informs("product-list") == []


async def test_bad_heaps_are_counted_and_dropped(stack: Stack) -> None:
    """Truncated ones from the correlator, and what somebody else sends to its groups."""
    configuration = with_setting(SIMULATOR, truncate_fraction=0.1)
    configuration["outputs"][IMAGE]["min_time"] = 3600.0  # no image of this
    async with cam(stack) as client:
        await client.request("product-configure", "demo", as_json(configuration))
        await client.request("capture-init", "demo")
        ((_, endpoint, state),) = await client.informs("capture-list", CORRELATION)
        assert state == "up"
        await until(lambda: total_is(client, "input-heaps-total", 32))
        for address in parse_endpoints(endpoint):
            await send_rubbish(address.host, address.port)
        await until(lambda: total_is(client, "input-heaps-rejected.wrong-size", 4))
        await client.request("capture-done", "demo")
        assert await rejected(client, "wrong-size") == 4  # one for each group
        assert await rejected(client, "bad-channel") == 4
        assert await rejected(client, "missing-item") == 4
        assert await client.sensor("demo.state") == "idle"
        assert await client.sensor("demo.reason") == ""
        values = await client.sensors(r"^demo\.[^.]+\..*heaps.*")  # of the tasks
        lost = number(values, "input-heaps-lost")
        assert lost > 0
        assert await rejected(client, "incomplete") >= lost  # the rubbish's own torn heaps too
        # what was whole came through, and all that was made of it arrived
        assert number(values, "input-heaps-total") > 0
        assert all(
            int(value) == 0
            for name, value in values.items()
            if name.endswith("input-heaps-lost") and ".ingest." not in name
        )


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, as CAM would, until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not await holds():  # noqa: ASYNC110  # it happens in another process
            await asyncio.sleep(0.1)


async def sensor_is(client: Cam, name: str, value: str) -> bool:
    """Whether a sensor has a value."""
    return await client.sensor(name) == value


async def total_is(client: Cam, sensor: str, least: int) -> bool:
    """Whether a sensor of all ingests together has reached a number."""
    return number(await client.sensors(rf"^demo\.ingest\..*\.{sensor}$"), sensor) >= least


async def rejected(client: Cam, reason: str) -> int:
    """Heaps that the ingests threw away for a reason."""
    suffix = f"input-heaps-rejected.{reason}"
    return number(await client.sensors(rf"^demo\.ingest\..*\.{suffix}$"), suffix)


async def send_rubbish(group: str, port: int) -> None:
    """Send what is no SPEAD, a heap of the wrong size, one of no channel, one without timestamp, a torn one."""
    with multicast_sender() as sock:
        for junk in (b"", b"\0", b"SPEAD" * 100, bytes(range(256)) * 30):
            sock.sendto(junk, (group, port))
    stream = spead2.send.asyncio.UdpStream(
        spead2.ThreadPool(),
        [(group, port)],
        spead2.send.StreamConfig(max_packet_size=1472),
        interface_address="127.0.0.1",
        ttl=1,
    )
    now = 0
    for count, (timestamp, channel, size) in enumerate(
        ((now, 0, 100), (now, 1 << 40, None), (None, 0, None)), start=1
    ):
        await stream.async_send_heap(heap(timestamp, channel, size), (1 << 47) + count)


def heap(timestamp: int | None, channel: int, size: int | None) -> spead2.send.Heap:
    """A heap like the correlator's, as far as it is asked for; `size` in bytes, None for the right one."""
    shape = (128, 36 * 4, 2) if size is None else (size // 8, 1, 2)
    made = spead2.send.Heap(spead.FLAVOUR)
    for item_id, value in ((spead.TIMESTAMP_ID, timestamp), (spead.FREQUENCY_ID, channel)):
        if value is not None:
            made.add_item(spead2.Item(item_id, "", "", (), format=[("u", 48)], value=value))
    counts = np.zeros(shape, "<i4")
    made.add_item(spead2.Item(spead.XENG_RAW_ID, "", "", shape, dtype=counts.dtype, value=counts))
    made.repeat_pointers = True
    return made
