"""L0 with known gains, over real multicast, through calibration and writer, to what katdal gives back."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiokatcp
import numpy as np
import pytest
import spead2.send
from casacore.tables import table

from pipelines.calibration.pairs import Pairs
from pipelines.calibration.publish import publish_attributes
from pipelines.calibration.server import CalServer
from pipelines.calibration.settings import CalSettings
from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering, split_input
from pipelines.common.dataset import open_dataset
from pipelines.common.endpoints import parse_endpoint, parse_endpoints
from pipelines.common.l0.server import L0Input, L0Server
from pipelines.common.spead import END_DUMP_INDEX, FLAVOUR, l0_items, make_sender
from pipelines.common.stream_info import VisStream
from pipelines.metadata.server import MetadataServer
from pipelines.writer.server import WriterServer
from tests.conftest import PATIENCE, free_port
from tests.pipelines.flow import taken
from tests.pipelines.served import served

CBID = "1234567890"
ENDPOINTS = parse_endpoints(f"239.192.71.9+1:{free_port()}")
ANTENNAS = tuple(f"m{i:03d}" for i in range(5))
STREAM = VisStream(
    name="sdp_l0",
    n_chans=32,
    bandwidth=20e6,
    center_freq=1.4e9,
    sync_time=1_600_000_000.0,
    int_time=2.0,
    bls_ordering=correlator_ordering(ANTENNAS),
    src_streams=("bcp",),
)
FIRST = 40.0
N_DUMPS = 16
BANDPASS = "J0408-6545 | PKS 0408-65, radec bpcal delaycal, 4:08:20.38, -65:45:09.1, (900 2000 0.7)"
GAINCAL = "J0240-2309, radec gaincal, 2:40:08.17, -23:09:15.7"
"""Without a model: its flux density must follow from the other calibrator's gains."""
FIELD = "field, radec target, 2:50:00, -25:00:00"
SCANS = ((0, BANDPASS), (6, GAINCAL), (9, FIELD), (13, GAINCAL))
FLUX = {BANDPASS: 10**0.7, GAINCAL: 10**0.5, FIELD: 2.0}
NOISE = 0.05
"""Jy, of real and imaginary part of one sample."""


def target_of(dump: int) -> str:
    return next(target for start, target in reversed(SCANS) if start <= dump)


@dataclass(frozen=True)
class Truth:
    """Corrupted visibilities (T, F, B), and the flux at each dump."""

    vis: np.ndarray
    flux: np.ndarray


@pytest.fixture(scope="module")
def truth() -> Truth:
    rng = np.random.default_rng(1)
    inputs = [a + p for a in ANTENNAS for p in "hv"]
    n = len(inputs)
    delays = rng.uniform(-20e-9, 20e-9, n)
    x = np.linspace(-1, 1, STREAM.n_chans)[:, np.newaxis]
    bandpass = (1 + 0.2 * x**2 * rng.normal(size=n)) * np.exp(
        0.3j * np.cos(4 * x * rng.normal(size=n))
    )
    rate, start = rng.uniform(-0.03, 0.03, n), rng.uniform(-np.pi, np.pi, n)
    dumps = np.arange(N_DUMPS)[:, np.newaxis]
    level = rng.uniform(0.7, 1.4, n) * np.exp(1j * (start + rate * dumps))
    fringe = np.exp(2j * np.pi * delays * STREAM.channel_freqs[:, np.newaxis])
    gains = level[:, np.newaxis] * bandpass * fringe
    flux = np.array([FLUX[target_of(dump)] for dump in range(N_DUMPS)])
    vis = np.zeros((N_DUMPS, STREAM.n_chans, STREAM.n_bls), np.complex64)
    for k, (a, b) in enumerate(STREAM.bls_ordering):
        i, j = inputs.index(a), inputs.index(b)
        parallel = split_input(a)[1] == split_input(b)[1]
        model = flux[:, np.newaxis] * parallel
        vis[..., k] = model * gains[..., i] * gains[..., j].conj()
    noise = rng.normal(size=(*vis.shape, 2)) * NOISE
    return Truth((vis + noise[..., 0] + 1j * noise[..., 1]).astype(np.complex64), flux)


def heap_values(truth: Truth, dump: int, sender: int) -> dict[str, Any]:
    half = STREAM.n_chans // 2
    rows = slice(sender * half, (sender + 1) * half)
    flags = np.zeros((half, STREAM.n_bls), np.uint8)
    flags[3] = 0x10
    weights = np.full((half, STREAM.n_bls), 200, np.uint8)
    vis = truth.vis[dump, rows].copy()
    vis[3] = 1e6
    return {
        "correlator_data": vis,
        "flags": flags,
        "weights": weights,
        "weights_channel": np.full(half, 0.5 + sender, np.float32),
        "timestamp": FIRST + dump * STREAM.int_time,
        "dump_index": dump,
    }


LOST = {(4, 1), (7, 0), (7, 1)}
"""Heaps (dump, sender) that do not arrive."""


async def send_block(truth: Truth, *receivers: L0Server) -> None:
    sender, sent = make_sender(ENDPOINTS, rate=20e6, max_packet_size=1400, max_heaps=8), 0
    for dump in range(N_DUMPS):
        for ingest in range(2):
            if (dump, ingest) not in LOST:
                await send_heap(sender, ingest, heap_values(truth, dump, ingest))
                sent += 1
                await taken(sent, *receivers)
    for _ in range(3):
        for ingest in range(2):
            end = {"dump_index": END_DUMP_INDEX, "timestamp": float(N_DUMPS)}
            await send_heap(sender, ingest, end)


async def send_heap(sender: Any, ingest: int, values: dict[str, Any]) -> None:
    items = l0_items(STREAM.n_chans // 2, STREAM.n_bls)
    heap = spead2.send.Heap(FLAVOUR)
    for name, value in values.items():
        items[name].value = value
    items["frequency"].value = ingest * STREAM.n_chans // 2
    items["capture_block_id"].value = int(CBID)
    for item in items.values():
        if item.value is not None:
            heap.add_item(item)
    heap.repeat_pointers = True
    await sender.async_send_heap(heap, substream_index=ingest)


async def describe(telstate: Any) -> None:
    """What controller, correlator and ingest write."""
    root = {
        "sub_product": "test",
        "sub_band": "l",
        "sub_pool_resources": ",".join(ANTENNAS),
        "subarray_product_id": "test",
        "sdp_archived_streams": ["sdp_l0", "cal"],
    }
    for key, value in root.items():
        await ts.publish(telstate, key, value)
    for i, name in enumerate(ANTENNAS):
        where = f"{name}, -30:42:39.8, 21:26:38.0, 1035.0, 13.5, {100 * i} {37 * i * i} 1.0"
        await ts.publish(telstate, f"{name}_observer", where)
    await STREAM.publish(telstate)
    await ts.publish(telstate.view("sdp_l0"), "stream_type", "sdp.vis")
    await ts.publish(telstate.view("cal"), "stream_type", "sdp.cal")
    await ts.publish(telstate.view("cal"), "src_streams", ["sdp_l0"])
    block = {"observer": "x", "description": "y", "experiment_id": "z", "ants": ",".join(ANTENNAS)}
    await ts.publish(telstate.view(CBID), "obs_params", block)
    await ts.publish(telstate.view(telstate.join(CBID, "sdp_l0")), "first_timestamp", FIRST)
    origin = STREAM.sync_time + FIRST - STREAM.int_time / 2
    for start, target in SCANS:
        time = origin + start * STREAM.int_time
        # Exactly at a dump's beginning it would be katdal's target of the dump before, too.
        await ts.add_sample(telstate, "cbf_target", target, time + 1e-3)
        await ts.add_sample(telstate, "obs_activity", "slew", time - 1e-3)
        await ts.add_sample(telstate, "obs_activity", "track", time)


async def all_heaps_came(server: Any) -> None:
    """Wait until the block's heaps have been counted, lost ones included."""
    came = asyncio.Event()
    total = server.sensors["input-heaps-total"]
    expected = 2 * N_DUMPS - len(LOST)
    total.attach(lambda sensor, reading: came.set() if reading.value == expected else None)
    async with asyncio.timeout(PATIENCE):
        if total.value != expected:
            await came.wait()


@pytest.fixture
def written(
    truth: Truth, redis_server: Any, tmp_path: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The data set, and the sensors of both programs after the block."""
    data = tmp_path / "data"
    data.mkdir()

    async def observe() -> dict[str, Any]:
        async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
            await describe(telstate)
            options = argparse.Namespace(host="127.0.0.1", port=0, data=data)
            source = L0Input(STREAM, ENDPOINTS, "127.0.0.1", drain=PATIENCE)
            pairs = Pairs.of(STREAM.bls_ordering)
            await publish_attributes(telstate, "cal", STREAM, pairs.antennas)
            cal = CalServer(options, telstate, source, CalSettings("cal", 100.0))
            writer = WriterServer(options, telstate, source, measurement_set=True)
            metadata = MetadataServer(options, telstate, ["sdp_l0"], data)
            async with (
                served(metadata) as metadata_client,
                served(cal) as cal_client,
                served(writer) as writer_client,
            ):
                await metadata_client.request("capture-init", CBID)
                await cal_client.request("capture-init", CBID)
                await writer_client.request("capture-init", CBID)
                await send_block(truth, cal, writer)
                # The writer has all data long before the calibration is through; it must wait.
                await all_heaps_came(writer)
                assert not await ts.get(telstate.view(f"{CBID}_sdp_l0"), "chunk_info", None)
                await cal_client.request("capture-done")
                await writer_client.request("capture-done")
                await metadata_client.request("capture-done")
                return {
                    f"{name}.{key}": sensor.value
                    for name, server in (("cal", cal), ("writer", writer))
                    for key, sensor in server.sensors.items()
                }

    sensors = asyncio.run(observe())
    report = data / CBID / f"{CBID}_cal_report.html"
    assert "Reference antenna" in report.read_text()
    yield data / CBID / f"{CBID}_sdp_l0.rdb", sensors


def test_a_block_with_losses_is_written_and_calibrated(
    written: tuple[Path, dict[str, Any]], truth: Truth
) -> None:
    path, sensors = written
    raw = open_dataset(path)
    sent = [heap_values(truth, dump, s) for dump in range(N_DUMPS) for s in range(2)]
    shape = (N_DUMPS, STREAM.n_chans, STREAM.n_bls)
    vis = np.concatenate([h["correlator_data"] for h in sent]).reshape(shape)
    flags = np.concatenate([h["flags"] for h in sent]).reshape(shape)
    scale = np.concatenate([h["weights_channel"] for h in sent]).reshape(shape[:2])
    lost = np.zeros(shape, bool)
    for dump, sender in LOST:
        lost[dump, sender * 16 : (sender + 1) * 16] = True
    np.testing.assert_array_equal(raw.vis[:], np.where(lost, 0, vis))
    np.testing.assert_array_equal(raw.raw_flags[:], np.where(lost, 0x08, flags))
    expected = np.broadcast_to(200 * scale[..., np.newaxis], shape)
    np.testing.assert_array_equal(raw.weights[:], np.where(lost, 0, expected))
    np.testing.assert_allclose(
        raw.timestamps, STREAM.sync_time + FIRST + 2.0 * np.arange(N_DUMPS), rtol=0, atol=1e-6
    )
    assert [t.name for t in raw.catalogue.targets] == ["J0408-6545", "J0240-2309", "field"]
    for name in ("cal", "writer"):
        assert sensors[f"{name}.input-heaps-total"] == 2 * N_DUMPS - len(LOST)
        assert sensors[f"{name}.input-heaps-lost"] == len(LOST)
        assert sensors[f"{name}.device-status"] is aiokatcp.DeviceStatus.DEGRADED
    assert sensors["writer.dumps-written"] == N_DUMPS - 1
    assert sensors["cal.scans-without-flux"] == 2
    assert sensors["cal.solutions-k"] == sensors["cal.solutions-b"] == 1
    # One per dump of the calibrators but the one that was lost.
    assert sensors["cal.solutions-g"] == 6 + 2 + 3

    assert sensors["writer.ms-dumps-written"] + sensors["writer.ms-dumps-dropped"] == N_DUMPS - 1
    with table(str(path.with_suffix(".ms")), ack=False) as main:
        n_pairs = len(ANTENNAS) * (len(ANTENNAS) + 1) // 2
        assert main.nrows() == n_pairs * sensors["writer.ms-dumps-written"]
    with table(f"{path.with_suffix('.ms')}::FIELD", ack=False) as field:
        assert field.getcol("NAME") == ["J0408-6545", "J0240-2309", "field"]

    data = open_dataset(path, applycal="l1")
    good = ~data.flags[:]
    pols = [(a[-1], b[-1]) for a, b in data.corr_products]
    cross = [a[:-1] != b[:-1] for a, b in data.corr_products]
    chosen = np.array([p in (("h", "h"), ("v", "v")) for p in pols]) & np.array(cross)
    # Every sample that came unflagged has a solution: flagged channels are interpolated.
    np.testing.assert_array_equal(good, ~lost & (flags == 0))
    error = data.vis[:] / truth.flux[:, np.newaxis, np.newaxis] - 1
    kept = good & chosen
    # A sample's own noise, and the gains of two antennas on top of it: those of the bandpass are the worst,
    # with five dumps and four baselines.
    weakest = NOISE * np.sqrt(2) / 2.0 / 0.5
    assert np.abs(error[kept]).mean() < weakest
    # The mean over channels and baselines of each dump: noise averages away, and no bias is left. The field is
    # calibrated by gains interpolated over four dumps.
    for dump in range(N_DUMPS):
        if kept[dump].any():
            assert abs(error[dump][kept[dump]].mean()) < 0.01
    before = raw.vis[:] / truth.flux[:, np.newaxis, np.newaxis] - 1
    assert np.abs(before[kept].mean()) > 0.5


async def test_a_restarted_calibration_with_a_small_buffer_solves_whole_scans(
    truth: Truth, redis_server: Any
) -> None:
    """Two dumps are held at a time, of scans of six, two (one was lost) and three.

    The block has a reference antenna from before, which must stay the same.
    """
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        await describe(telstate)
        options = argparse.Namespace(host="127.0.0.1", port=0)
        source = L0Input(STREAM, ENDPOINTS, "127.0.0.1", drain=PATIENCE)
        await ts.publish(telstate.view(telstate.join(CBID, "cal")), "refant", "m003")
        cal = CalServer(options, telstate, source, CalSettings("cal", 2 * STREAM.int_time))
        async with served(cal) as client:
            await client.request("capture-init", CBID)
            await send_block(truth, cal)
            await client.request("capture-done")
        merged = cal.sensors["dumps-merged"]
        # A dump that comes while the solver is at work lengthens an interval; none is lost.
        assert cal.sensors["solutions-g"].value + merged.value == 6 + 2 + 3
        assert merged.value == 0 or merged.reading.status is aiokatcp.Sensor.Status.WARN
        assert cal.sensors["scans-unsolved"].value == 0
        assert cal.sensors["reference-antenna"].value == "m003"
        assert cal.sensors["phase-rms"].value < 0.05
        view = telstate.view(telstate.join(CBID, "cal"))
        (_, time), *more = await view.get_range("product_K", st=0)
        assert not more
        assert time == STREAM.sync_time + FIRST
