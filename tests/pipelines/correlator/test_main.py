"""The program: options, a process of its own over KATCP, failed starts."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import aiokatcp
import numpy as np
import pytest

from pipelines.common import telstate as ts
from pipelines.common.endpoints import Endpoint, parse_endpoint
from pipelines.common.stream_info import CorrelatorStream
from pipelines.correlator.__main__ import main, model_config, parser
from pipelines.correlator.faults import Fate
from pipelines.correlator.model import Model
from pipelines.correlator.server import CorrelatorServer
from pipelines.correlator.simulator import Progress
from tests.conftest import PATIENCE

Groups = Callable[[int], tuple[Endpoint, ...]]


class Server(Protocol):
    endpoint: str


CONFIGURATION = {
    "stream": "bcp",
    "antenna": ["m000", "m001, -30:42:39.8, 21:26:38.0, 1086.6, 13.5, 1.121 -171.762 8.471"],
    "n_chans": 16,
    "n_chans_per_substream": 8,
    "int_time": 0.5,
    "clock_ratio": 0.1,
    "start_time": 1.6e9,
    "source": ["s, radec, 20:01:00, -30:00:00, (800 2000 0.5)"],
    "gains": False,
}


async def connect(process: asyncio.subprocess.Process) -> aiokatcp.Client:
    """Connect to the port that the program says it is ready on."""
    assert process.stderr is not None
    while b"ready on" not in (line := await process.stderr.readline()):
        assert line, "the program ended"
    port = int(line.rpartition(b":")[2])
    client: aiokatcp.Client = await aiokatcp.Client.connect("127.0.0.1", port)
    return client


async def test_a_process_streams_what_its_stored_configuration_says(
    redis_server: Server, receiving: Any, groups: Groups
) -> None:
    endpoints = groups(2)
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        listed = ",".join(str(endpoint) for endpoint in endpoints)
        await telstate.set("config.sim", {**CONFIGURATION, "endpoints": listed})
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *["-m", "pipelines.correlator", "--config-key=config.sim"],
            f"--telstate={redis_server.endpoint}",
            stderr=asyncio.subprocess.PIPE,
        )
        client = await asyncio.wait_for(connect(process), PATIENCE)
        stream = await CorrelatorStream.load(telstate, "bcp", timeout=PATIENCE)
        assert (stream.n_chans, stream.n_bls, stream.n_substreams) == (16, 12, 2)
        async with receiving(endpoints) as received:
            await client.request("capture-init", "1795366788")
            await received.until(lambda: len(received.heaps) >= 10)
            (dumps, heaps), _ = await client.request("capture-done")
            assert int(heaps) == 2 * int(dumps)
            await received.until(lambda: len(received.heaps) == int(heaps))
        timestamps = sorted({timestamp for timestamp, _ in received.heaps})
        steps = {b - a for a, b in itertools.pairwise(timestamps)}
        assert steps == {stream.dump_ticks}
        assert await client.sensor_value("heaps-sent", int) == int(heaps)
        assert not await client.sensor_value("transmitting", bool)
        with pytest.raises(aiokatcp.FailReply, match="capture block id"):
            await client.request("capture-init", "abc")
        with pytest.raises(aiokatcp.FailReply, match="no stream 'x'"):
            await client.request("capture-stop", "x")
        reply, _ = await client.request("target", "t, radec, 20:00:00, -30:00:00")
        assert reply[0].startswith(b"t, radec")
        client.close()
        await client.wait_closed()
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, errors


async def test_every_fault_on_purpose_has_its_sensor() -> None:
    server = CorrelatorServer(argparse.Namespace(host="127.0.0.1", port=0), 0.0)
    faults = [fate for fate in Fate if fate is not Fate.SENT]
    server.update(Progress(fates={fate: n for n, fate in enumerate(faults, 1)}))
    shown = [server.sensors[f"heaps-{fate.value}"].value for fate in faults]
    assert shown == [1, 2, 3, 4, 5]


def test_what_is_injected_follows_from_the_options() -> None:
    base = ["--stream=bcp", "--endpoints=239.102.250.1", "--n-chans=32", "--start-time=1.6e9"]
    polarised = [*base, "--leakage=0.03", "--cross-delay=-2e-9", "--cross-phase=90"]
    config = model_config(parser().parse_args([*polarised, "--hot-inputs=m001h", "--seed=4"]))
    truth, again = Model(config), Model(config)
    assert (config.hot_inputs, config.dead_inputs) == (("m001h",), ())
    assert (truth.gains.cross_delay, truth.gains.cross_phase) == (-2e-9, pytest.approx(np.pi / 2))
    np.testing.assert_array_equal(truth.leakage.middle, again.leakage.middle)
    assert 0 < np.abs(truth.leakage.middle).max() < 0.15
    assert not Model(model_config(parser().parse_args(base))).leakage.middle.any()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--leakage=0.9"], "leakage is 0.9"),
        (["--hot-inputs=m009h"], "hot input 'm009h' is none of m000h"),
        (["--endpoints=nonsense"], "no IPv4 address"),
        (["--endpoints=239.1.1.1+5000"], "more than 1024 endpoints"),
        (["--antenna=m999"], "nor a MeerKAT antenna"),
        (["--antenna=x, y, z"], "nor a MeerKAT antenna"),
        (["--antenna=m000", "--antenna=m000"], "given twice"),
        (["--source=s, radec, 0:0, 0:0"], "no flux model"),
        (["--source=nonsense, nonsense"], "no katpoint target"),
        (["--n-chans=10"], "10 channels cannot be divided among 4 endpoints"),
        (["--n-chans=0"], "n_chans is 0"),
        (["--int-time=-1"], "int_time is -1"),
        (["--clock-ratio=-1"], "clock-ratio"),
        (["--clock-ratio=1e-6"], "larger clock ratio"),
        (["--max-rate=0"], "max-rate"),
        (["--drop-fraction=2"], "fractions of faults"),
        (["--interface=no-such"], "interface no-such"),
        (["--replay=/no/such"], "no MeasurementSet"),
        (["--telstate=127.0.0.1:1"], "cannot reach telescope state"),
    ],
)
def test_a_failed_start_is_one_line_and_status_1(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--stream=bcp", "--endpoints=239.102.250.1+3", "--log-level=error"]
    assert main([*base, *argv]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert message in error


def test_a_recording_that_contradicts_the_options_is_refused(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--stream=x", "--endpoints=239.102.250.1", f"--replay={recording}", "--log-level=error"]
    for option, message in (
        ("--n-chans=32", "--n-chans is 32, but"),
        ("--antenna=m000", "has the antennas ea01, ea02"),
        ("--int-time=0.04", "--int-time is 0.04, but"),
    ):
        assert main([*base, option]) == 1
        assert message in capsys.readouterr().err
