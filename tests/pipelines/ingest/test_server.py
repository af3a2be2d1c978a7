"""The whole program: KATCP, telescope state on a real Redis, and UDP multicast on loopback."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiokatcp
import numpy as np
import pytest
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import spead
from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering
from pipelines.common.endpoints import Endpoint, parse_endpoint
from pipelines.common.errors import PipelineError
from pipelines.common.l0 import Dump, L0Layout, L0Receiver
from pipelines.common.stream_info import CorrelatorStream, VisStream
from pipelines.ingest.__main__ import parser, start
from pipelines.ingest.errors import LayoutError
from pipelines.ingest.server import IngestServer
from tests.conftest import PATIENCE
from tests.pipelines.flow import reach

TICKS, RATE, SCALE = 4096 * 64, 1.712e6, 0.25
STREAM = CorrelatorStream(
    name="corr",
    n_chans=64,
    bandwidth=64e6,
    center_freq=1.4e9,
    sync_time=1.7e9,
    int_time=TICKS / RATE,
    bls_ordering=correlator_ordering(["m000", "m001"]),
    n_chans_per_substream=16,
    n_accs=64,
    scale_factor_timestamp=RATE,
    ticks_between_spectra=4096,
    scale=SCALE,
)
N_BLS = STREAM.n_bls
AUTOS = [a == b for a, b in STREAM.bls_ordering]
POWER = 2**16
Counts = np.ndarray | dict[int, np.ndarray]


@dataclass
class Bench:
    """An ingest of the upper half of the band, with all that surrounds it."""

    client: aiokatcp.Client
    telstate: TelescopeState
    server: IngestServer
    sender: object
    output: Endpoint

    async def send(self, dumps: range, counts: Counts, skip: set[tuple[int, int]]) -> None:
        """Send heaps as the correlator does; `skip` has those (dump, substream) that get lost.

        Each is waited for: a receiver that has no core for a while loses what does not fit into its socket.
        """
        for dump in dumps:
            for substream in (2, 3):
                if (dump, substream) in skip:
                    continue
                items = spead.correlator_items(16, N_BLS)
                items["timestamp"].value = dump * TICKS
                items["frequency"].value = substream * 16
                items["xeng_raw"].value = counts[dump][substream]
                heap = items.get_heap(data="all", descriptors="none")
                heap.repeat_pointers = True
                before = self.seen()
                await self.sender.async_send_heap(heap)
                await reach(self.seen, before + 1)

    def seen(self) -> int:
        """Heaps that the ingest has seen since its stream was switched last."""
        assert self.server._stream is not None
        return sum(self.server._stream.classes().values())

    async def sensor(self, name: str) -> str:
        _, informs = await self.client.request("sensor-value", name)
        return informs[0].arguments[-1].decode()

    async def until(self, name: str, value: str) -> None:
        """Wait for a sensor to have a value."""
        async with asyncio.timeout(PATIENCE):
            # A reading is asked for over KATCP; there is no event on this side.
            while await self.sensor(name) != value:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@asynccontextmanager
async def bench(redis: str, unused_port: int, *extra: str) -> AsyncIterator[Bench]:
    """Run an ingest in this process, on multicast groups and ports of its own."""
    group, out_group = "239.102.7.1", "239.102.7.9"
    arguments = [
        "--telstate", redis, "--input-stream", "corr", "--input", f"{group}:{unused_port}",
        "--output-stream", "sdp_l0", "--output", f"{out_group}:{unused_port}",
        "--channels", "32:64", "--output-int-time", str(2 * STREAM.int_time),
        "--continuum-factor", "4", "--idle-time", "0.2", "--drain-time", str(PATIENCE),
        "--clock-ratio", "0.001", *extra,
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        telstate = await stack.enter_async_context(ts.connect(parse_endpoint(redis)))
        await STREAM.publish(telstate)
        server = await start(parser().parse_args(arguments), stack)
        await server.start()
        stack.push_async_callback(server.stop)
        host, port = server.sockets[0].getsockname()[:2]
        client = await aiokatcp.Client.connect(host, port)
        stack.push_async_callback(client.wait_closed)
        stack.callback(client.close)
        sender = spead.make_sender([Endpoint(group, unused_port)], rate=5e6)
        yield Bench(client, telstate, server, sender, Endpoint(out_group, unused_port))


@pytest.fixture
def counts() -> np.ndarray:
    rng = np.random.default_rng(1)
    counts = rng.integers(-(2**16), 2**16, (12, 4, 16, N_BLS, 2), np.int32)
    counts[..., AUTOS, :] = (POWER, 0)
    return counts


def copied(dump: Dump) -> tuple[int, float, np.ndarray, np.ndarray, np.ndarray]:
    """Take what is needed of a dump and give it back."""
    (part,) = dump.parts
    weights = part.weights * part.weights_channel[:, np.newaxis]
    result = (dump.index, dump.timestamp, part.vis.copy(), part.flags.copy(), weights)
    dump.release()
    return result


@dataclass
class Listener:
    """Receives the L0 stream of one block."""

    block: int
    output: Endpoint
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all is sent: the other half of the band has no sender, and would be waited for."""

    async def receive(self) -> list[tuple]:
        """Return all dumps."""
        layout = L0Layout(n_chans=16, n_bls=N_BLS, n_senders=2, int_time=2 * STREAM.int_time)
        async with L0Receiver(layout, self.block) as receiver, asyncio.TaskGroup() as tasks:
            receiver.listen(self.output)
            self.ready.set()
            tasks.create_task(self._finish(receiver))
            dumps = [copied(dump) async for dump in receiver]
            assert receiver.counts[1].announced == len(dumps)
            assert receiver.counts[1].lost == 0
        return dumps

    async def _finish(self, receiver: L0Receiver) -> None:
        await self.sent.wait()
        await reach(lambda: int(receiver._ended[1]), 1)
        receiver.finish_within(0)


async def run_block(b: Bench, cbid: int, counts: np.ndarray, skip: set) -> tuple[list, list[int]]:
    """Run a capture block; return the L0 dumps and what capture-done replied."""
    listener = Listener(cbid, b.output)
    receiving = asyncio.create_task(listener.receive())
    await listener.ready.wait()
    await b.client.request("capture-init", str(cbid))
    assert await b.sensor("capture-block-id") == str(cbid)
    await b.send(range(12), counts, skip)
    reply, _ = await b.client.request("capture-done")
    listener.sent.set()
    return await receiving, [int(x) for x in reply]


async def test_capture_blocks_one_after_another(
    redis_server, unused_port: int, counts: np.ndarray
) -> None:
    async with bench(redis_server.endpoint, unused_port) as b:
        # Before any capture, data is counted and thrown away.
        await b.send(range(2), counts, set())
        for cbid, skip in ((1700000001, set()), (1700000002, {(0, 2), (5, 2), (5, 3), (7, 3)})):
            dumps, reply = await run_block(b, cbid, counts, skip)
            assert reply == [6, 24 - len(skip), len(skip)]
            assert await b.sensor("input-heaps-total") == str(24 - len(skip))
            assert await b.sensor("input-heaps-lost") == str(len(skip))
            assert await b.sensor("input-heaps-rejected") == "0"
            assert await b.sensor("output-dumps-total") == "6"
            assert await b.sensor("device-status") == ("degraded" if skip else "ok")
            view = b.telstate.view(b.telstate.join(str(cbid), "sdp_l0"))
            assert await view["first_timestamp"] == pytest.approx(STREAM.int_time)
            check(dumps, counts, skip)
        assert await b.sensor("input-heaps-idle") == "4"
        assert await b.sensor("capture-block-id") == ""
        vis = await VisStream.load(b.telstate, "sdp_l0")
        assert vis.n_chans == 16
        assert vis.int_time == pytest.approx(2 * STREAM.int_time)
        assert vis.bls_ordering == STREAM.bls_ordering
        assert vis.channel_freqs == pytest.approx(STREAM.channel_freqs.reshape(16, 4).mean(axis=1))


def check(dumps: list, counts: np.ndarray, skip: set[tuple[int, int]]) -> None:
    """Compare L0 with averages over two dumps and four channels of what was sent."""
    vis = SCALE * (counts[:, 2:, ..., 0] + 1j * counts[:, 2:, ..., 1])
    good = np.ones(vis.shape, int)
    for dump, substream in skip:
        good[dump, substream - 2] = 0
    shape = (6, 2, 8, 4, N_BLS)
    vis = vis.reshape(12, 32, N_BLS).reshape(shape)
    good = good.reshape(12, 32, N_BLS).reshape(shape)
    count = good.sum(axis=(1, 3))
    expected = (vis * good).sum(axis=(1, 3)) / np.maximum(count, 1)
    assert [d[0] for d in dumps] == list(range(6))
    for index, timestamp, got, flags, weights in dumps:
        assert timestamp == pytest.approx((2 * index + 1) * STREAM.int_time)
        np.testing.assert_allclose(got, expected[index], rtol=1e-5, atol=0.05)
        np.testing.assert_array_equal(flags, np.where(count[index] > 0, 0, 0x08))
        information = STREAM.channel_width * STREAM.int_time / (SCALE * POWER) ** 2
        np.testing.assert_allclose(weights, count[index] * information, rtol=1e-5)


async def test_requests_out_of_order_are_refused(redis_server, unused_port: int) -> None:
    async with bench(redis_server.endpoint, unused_port) as b:
        with pytest.raises(aiokatcp.FailReply, match="no capture"):
            await b.client.request("capture-done")
        with pytest.raises(aiokatcp.FailReply, match="decimal digits"):
            await b.client.request("capture-init", "yesterday")
        await b.client.request("capture-init", "5")
        with pytest.raises(aiokatcp.FailReply, match="capturing"):
            await b.client.request("capture-init", "6")
        # A block without any data ends, too.
        reply, _ = await b.client.request("capture-done")
        assert reply == [b"0", b"0", b"0"]
        await b.client.request("capture-init", "6")


async def test_stopping_in_mid_capture_sends_what_there_is(
    redis_server, unused_port: int, counts: np.ndarray
) -> None:
    async with bench(redis_server.endpoint, unused_port) as b:
        listener = Listener(9, b.output)
        receiving = asyncio.create_task(listener.receive())
        await listener.ready.wait()
        await b.client.request("capture-init", "9")
        await b.send(range(12), counts, set())
        await b.until("input-dumps", "8")  # the other four are in the window
    listener.sent.set()
    check(await receiving, counts, set())


async def test_a_restarted_ingest_goes_on_in_mid_stream_where_its_dumps_belong(
    redis_server, unused_port: int, counts: np.ndarray
) -> None:
    """Another program of the same stream, in the same block: its first dump is number 3, not 0."""
    async with bench(redis_server.endpoint, unused_port) as b:
        await b.client.request("capture-init", "12")
        await b.send(range(6), counts, set())
        await b.until("input-heaps-total", "4")  # the other four dumps are in its window
    async with bench(redis_server.endpoint, unused_port) as b:
        listener = Listener(12, b.output)
        receiving = asyncio.create_task(listener.receive())
        await listener.ready.wait()
        await b.client.request("capture-init", "12")
        await b.send(range(6, 12), counts, set())
        reply, _ = await b.client.request("capture-done")
        listener.sent.set()
    assert [int(x) for x in reply] == [3, 12, 0]
    dumps = await receiving
    assert [dump[0] for dump in dumps] == [3, 4, 5]
    assert dumps[0][1] == pytest.approx(7 * STREAM.int_time)


async def test_a_restarted_sender_is_noticed(
    redis_server, unused_port: int, counts: np.ndarray
) -> None:
    async with bench(redis_server.endpoint, unused_port) as b:
        await b.client.request("capture-init", "13")
        await b.send(range(12), counts, set())
        await b.send(range(12), counts, set())  # from the beginning, on the same grid of dumps
        reply, _ = await b.client.request("capture-done")
        assert int(await b.sensor("input-heaps-rejected")) > 0
        assert await b.sensor("device-status") == "degraded"
        # Nothing of the first run was averaged twice or overwritten.
        assert [int(x) for x in reply] == [6, 24, 0]


async def test_a_sender_that_never_stops_does_not_hold_up_the_end(
    redis_server, unused_port: int, counts: np.ndarray
) -> None:
    async with bench(redis_server.endpoint, unused_port, "--drain-time", "0.5") as b:
        await b.client.request("capture-init", "11")

        async def send_for_ever() -> None:
            for dump in itertools.count():
                await b.send(range(dump, dump + 1), {dump: counts[0]}, set())

        sending = asyncio.create_task(send_for_ever())
        await reach(b.seen, 24)
        async with asyncio.timeout(PATIENCE):
            reply, _ = await b.client.request("capture-done")
        sending.cancel()
        assert int(reply[0]) >= 4
        assert int(reply[2]) <= 1  # of two heaps of the dump in which it lost its patience


async def test_a_stream_that_does_not_fit_is_refused(redis_server, unused_port: int) -> None:
    with pytest.raises(LayoutError, match="splits an average"):
        async with bench(redis_server.endpoint, unused_port, "--continuum-factor", "64"):
            pass
    with pytest.raises(PipelineError, match="cannot receive"):
        async with bench(redis_server.endpoint, unused_port, "--interface", "10.255.255.1"):
            pass


async def test_wrong_options_end_with_one_line() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipelines.ingest", "--channels", "9",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert len(stderr.decode().splitlines()) == 1
    assert "expected A:B" in stderr.decode()


async def test_help_is_help_and_nothing_else() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipelines.ingest", "--help",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    stdout, stderr = await process.communicate()
    assert process.returncode == 0
    assert b"--continuum-factor" in stdout
    assert stderr == b""
