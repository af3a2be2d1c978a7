"""What all programs share: options, stored configurations, beginnings and ends."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import Protocol

import aiokatcp
import pytest
from aiokatcp import FailReply

from pipelines.common import telstate as ts
from pipelines.common.endpoints import Endpoint, parse_endpoint
from pipelines.common.errors import ProgramError
from pipelines.common.program import (
    ProgramServer,
    check_capture_block_id,
    config_arguments,
    make_parser,
    parse_options,
    run,
)


class Server(Protocol):
    endpoint: str


def parser() -> argparse.ArgumentParser:
    result = make_parser("pipelines.example", "An example")
    result.add_argument("--n-chans", type=int, required=True)
    result.add_argument("--source", action="append")
    result.add_argument("--gains", action=argparse.BooleanOptionalAction, default=True)
    return result


async def test_defaults_of_the_interface() -> None:
    options = await parse_options(parser(), ["--n-chans=4", "--telstate=1.2.3.4:5"])
    assert (options.name, options.host, options.port) == ("example", "127.0.0.1", 0)
    assert options.interface == "127.0.0.1"
    assert options.telstate == Endpoint("1.2.3.4", 5)


def test_a_stored_configuration_becomes_arguments_and_the_command_line_wins() -> None:
    config = {"n_chans": 64, "source": ["-a, b", "c"], "gains": False, "port": 1, "seed": None}
    assert config_arguments(config, ["--port", "2"]) == [
        "--n-chans=64",
        "--source=-a, b",
        "--source=c",
        "--no-gains",
    ]
    assert "--n-chans=64" not in config_arguments(config, ["--n-chans=8"])
    assert "--no-gains" not in config_arguments(config, ["--gains"])


@pytest.mark.parametrize("config", [None, "x", [1], {1: 2}, {"a": {"b": 1}}, {"a": [[1]]}])
def test_other_stored_configurations_are_refused(config: object) -> None:
    with pytest.raises(ProgramError, match="stored configuration"):
        config_arguments(config, [])


async def test_options_are_filled_in_from_telescope_state(redis_server: Server) -> None:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        await telstate.set("config.x", {"n_chans": 64, "source": ["a", "b"], "host": "1.1.1.1"})
        await telstate.set("config.y", {"n_chanz": 64})
    argv = [f"--telstate={redis_server.endpoint}", "--host=2.2.2.2", "--config-key"]
    options = await parse_options(parser(), [*argv, "config.x"])
    assert (options.n_chans, options.source, options.host) == (64, ["a", "b"], "2.2.2.2")
    with pytest.raises(ProgramError, match=r"n-chan.*config\.y"):
        await parse_options(parser(), [*argv, "config.y"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--n-chans"),
        (["--n-chans=x"], "invalid int"),
        (["--n-chans=1", "--port=65536"], "no port from 0 to 65535"),
        (["--n-chans=1", "--telstate=x"], "expected HOST:PORT"),
        (["--n-chans=1", "--config-key=x"], "needs --telstate"),
        (["--n-ch=1"], "--n-chans"),
    ],
)
def test_a_bad_command_line_is_one_line_and_status_1(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def start(options: argparse.Namespace, resources: AsyncExitStack) -> ProgramServer:
        raise AssertionError("must not be reached")

    assert run(parser(), start, argv) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (ProgramError("no such\n band"), "error: no such band\n"),
        (KeyError("x"), "error: KeyError: 'x'\n"),
        (ExceptionGroup("g", [ExceptionGroup("h", [OSError("gone")])]), "error: gone\n"),
    ],
)
def test_a_failed_start_closes_what_was_opened(
    failure: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = []

    async def start(options: argparse.Namespace, resources: AsyncExitStack) -> ProgramServer:
        resources.callback(closed.append, True)
        raise failure

    assert run(parser(), start, ["--n-chans=1"]) == 1
    assert closed == [True]
    assert capsys.readouterr().err.endswith(line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    steps: list[str] = []

    class Example(ProgramServer):
        async def start(self) -> None:
            await super().start()
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)

        async def on_stop(self) -> None:
            steps.append("server")

    async def start(options: argparse.Namespace, resources: AsyncExitStack) -> ProgramServer:
        resources.callback(steps.append, "resources")
        return Example(options)

    assert run(parser(), start, ["--n-chans=1"]) == 0
    assert steps == ["server", "resources"]


def test_a_signal_during_a_slow_start_ends_it_too() -> None:
    async def start(options: argparse.Namespace, resources: AsyncExitStack) -> ProgramServer:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
        raise AssertionError("must not be reached")

    assert run(parser(), start, ["--n-chans=1"]) == 0


def test_a_background_task_that_dies_takes_the_program_down(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def die() -> None:
        raise ProgramError("the link is gone")

    async def start(options: argparse.Namespace, resources: AsyncExitStack) -> ProgramServer:
        server = ProgramServer(options)
        server.add_service_task(asyncio.create_task(die()))
        return server

    assert run(parser(), start, ["--n-chans=1"]) == 1
    assert capsys.readouterr().err.endswith("error: the link is gone\n")


async def test_device_status_is_a_sensor_with_a_status() -> None:
    server = ProgramServer(await parse_options(parser(), ["--n-chans=1"]))
    sensor = server.sensors["device-status"]
    assert (sensor.value, sensor.status) == (
        aiokatcp.DeviceStatus.OK,
        aiokatcp.Sensor.Status.NOMINAL,
    )
    server.set_device_status(aiokatcp.DeviceStatus.DEGRADED, "late")
    assert sensor.status is aiokatcp.Sensor.Status.WARN


@pytest.mark.parametrize("cbid", ["", "abc", "-1", "1.5", "٣", str(2**48), "1" * 100])
def test_capture_block_ids_are_decimal_numbers(cbid: str) -> None:
    with pytest.raises(FailReply):
        check_capture_block_id(cbid)
    assert check_capture_block_id("1795366788") == "1795366788"
