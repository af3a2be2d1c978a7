# No annotations as text: aiokatcp reads those of requests.
import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiokatcp
import pytest

from scheduler.breath import Ration
from scheduler.listening import stop_accepting
from sdpcontroller.control import TaskSensor
from sdpcontroller.errors import CommandError
from sdpcontroller.products.connections import MAX_SENSORS, TaskConnection
from tests.conftest import PATIENCE


class Mode(enum.Enum):
    SLEW = 1
    TRACK = 2


class Program(aiokatcp.DeviceServer):
    VERSION = "p-1.0"
    BUILD_STATE = "p-1.0"

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0)
        self.asked = asyncio.Event()

    async def request_wait(self, ctx: aiokatcp.RequestContext) -> None:
        """Never answer."""
        self.asked.set()
        await asyncio.Event().wait()

    async def request_echo(self, ctx: aiokatcp.RequestContext, text: str) -> str:
        """Say the same."""
        return text

    async def request_refuse(self, ctx: aiokatcp.RequestContext) -> None:
        """Refuse."""
        raise aiokatcp.FailReply("not today")

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    async def stop(self, cancel: bool = True) -> None:
        await stop_accepting(self.sockets)
        await super().stop(cancel)

    async def vanish(self) -> None:
        """Go as a process that is killed."""
        assert self.server is not None
        await stop_accepting(self.server.sockets)
        self.server.close()
        for conn in tuple(self._connections):
            conn.abort()


class Readings:
    """What the connection tells."""

    def __init__(self) -> None:
        self.seen: list[TaskSensor] = []
        self._changed = asyncio.Event()

    def __call__(self, sensor: TaskSensor) -> None:
        self.seen.append(sensor)
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, holds: Callable[[TaskSensor], bool]) -> TaskSensor:
        async with asyncio.timeout(PATIENCE):
            while not any(map(holds, self.seen)):
                await self._changed.wait()
        return next(filter(holds, self.seen))


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    server = Program()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def readings() -> Readings:
    return Readings()


@pytest.fixture
async def link(program: Program, readings: Readings) -> AsyncIterator[TaskConnection]:
    connection = TaskConnection("p", "t", "127.0.0.1", program.port, readings)
    yield connection
    connection.close()
    await connection.wait_closed()


async def test_answers_come_back_as_text(link: TaskConnection) -> None:
    assert list(await link.request("echo", "mööp", timeout=PATIENCE)) == ["mööp"]


async def test_refusals_are_told_with_the_task(link: TaskConnection) -> None:
    with pytest.raises(CommandError, match="t refused refuse: not today"):
        await link.request("refuse", timeout=PATIENCE)
    with pytest.raises(CommandError, match=r"t at .*: nonsense failed|t refused nonsense"):
        await link.request("nonsense", timeout=PATIENCE)


async def test_no_answer_in_time(link: TaskConnection) -> None:
    await link.request("echo", "x", timeout=PATIENCE)
    with pytest.raises(CommandError, match=r"did not answer wait within 0\.01 s"):
        await link.request("wait", timeout=0.01)
    assert list(await link.request("echo", "y", timeout=PATIENCE)) == ["y"]


async def test_nobody_is_there(unused_port: int, readings: Readings) -> None:
    connection = TaskConnection("p", "t", "127.0.0.1", unused_port, readings)
    with pytest.raises(CommandError, match=f":{unused_port} did not answer echo within"):
        await connection.request("echo", "x", timeout=0.05)
    connection.close()
    await connection.wait_closed()


async def test_one_that_vanishes_in_mid_request_fails_it_at_once(
    program: Program, link: TaskConnection
) -> None:
    waiting = asyncio.ensure_future(link.request("wait", timeout=1000))
    await program.asked.wait()
    await program.vanish()
    with pytest.raises(CommandError, match="wait failed"):
        await asyncio.wait_for(waiting, PATIENCE)


async def test_closing_the_link_ends_what_waits_and_what_comes(
    program: Program, link: TaskConnection
) -> None:
    waiting = [asyncio.ensure_future(link.request("wait", timeout=1000)) for _ in range(3)]
    await program.asked.wait()
    link.close()
    await link.wait_closed()
    for request in waiting:
        with pytest.raises(CommandError, match=r"closed|failed"):
            await asyncio.wait_for(request, PATIENCE)
    with pytest.raises(CommandError, match="closed"):
        await link.request("echo", "x", timeout=1000)


async def test_closing_ends_the_wait_for_one_that_is_gone(
    unused_port: int, readings: Readings
) -> None:
    connection = TaskConnection("p", "t", "127.0.0.1", unused_port, readings)
    waiting = asyncio.ensure_future(connection.request("echo", "x", timeout=1000))
    await asyncio.sleep(0)
    connection.close()
    connection.close()
    await connection.wait_closed()
    with pytest.raises(CommandError, match=r"its link was closed|echo failed"):
        await asyncio.wait_for(waiting, PATIENCE)


async def test_sensors_are_mirrored_with_type_units_and_status(
    program: Program, readings: Readings
) -> None:
    status = aiokatcp.Sensor.Status
    sensors: list[tuple[Any, str, Any, Any]] = [
        (int, "heaps", 7, status.NOMINAL),
        (float, "rate", 2.5, status.WARN),
        (bool, "lost", True, status.ERROR),
        (str, "note", "a b", status.NOMINAL),
        (Mode, "mode", Mode.TRACK, status.NOMINAL),
        (aiokatcp.Timestamp, "when", aiokatcp.Timestamp(12.5), status.NOMINAL),
        (aiokatcp.Address, "where", aiokatcp.Address.parse(b"127.0.0.1:5"), status.NOMINAL),
    ]
    for kind, name, value, state in sensors:
        default = aiokatcp.Address.parse(b"0.0.0.0") if kind is aiokatcp.Address else None
        sensor = aiokatcp.Sensor(kind, name, f"about {name}", "u", default)
        sensor.set_value(value, status=state, timestamp=1000.25)
        program.sensors.add(sensor)
    link = TaskConnection("p", "t", "127.0.0.1", program.port, readings)
    types = ["integer", "float", "boolean", "string", "discrete", "timestamp", "address"]
    for (_, name, value, state), kind in zip(sensors, types, strict=True):
        seen = await readings.until(lambda sensor, name=name: sensor.name == name)
        wanted = "track" if name == "mode" else value
        assert (seen.product, seen.task, seen.type_name) == ("p", "t", kind)
        assert (seen.value, seen.status) == (wanted, state.name.lower())
        assert (seen.description, seen.units, seen.timestamp) == (f"about {name}", "u", 1000.25)
        assert seen.params == (("slew", "track") if name == "mode" else ())
    program.sensors["heaps"].set_value(8)
    await readings.until(lambda sensor: sensor.value == 8)
    await program.vanish()
    gone = await readings.until(lambda s: s.name == "heaps" and s.status == "unreachable")
    assert gone.value is None
    link.close()
    await link.wait_closed()


async def test_what_there_is_no_time_for_is_read_in_order_later(
    program: Program, readings: Readings
) -> None:
    """A loop that was held up does not read all tasks before it does anything else."""
    program.sensors.add(aiokatcp.Sensor(int, "heaps", "", "", 0))
    reading = Ration()
    link = TaskConnection("p", "t", "127.0.0.1", program.port, readings, reading=reading)
    await readings.until(lambda sensor: sensor.name == "heaps")
    reading._debt = 3600.0  # for an hour
    for n in range(1, 6):
        program.sensors["heaps"].set_value(n)
        await readings.until(lambda sensor, n=n: sensor.value == n)
    assert [sensor.value for sensor in readings.seen][-6:] == [0, 1, 2, 3, 4, 5]
    assert (await link.request("echo", "x", timeout=PATIENCE)) == ["x"]
    await program.vanish()
    await readings.until(lambda sensor: sensor.status == "unreachable")
    link.close()
    await link.wait_closed()


async def test_a_task_cannot_declare_sensors_without_end(
    program: Program, readings: Readings, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(MAX_SENSORS + 20):
        program.sensors.add(aiokatcp.Sensor(int, f"s{number:05}", ""))
    with caplog.at_level(logging.WARNING):
        link = TaskConnection("p", "t", "127.0.0.1", program.port, readings)
        await readings.until(lambda sensor: len({s.name for s in readings.seen}) >= MAX_SENSORS)
        assert list(await link.request("echo", "x", timeout=PATIENCE)) == ["x"]
        link.close()
        await link.wait_closed()
    assert len({sensor.name for sensor in readings.seen}) == MAX_SENSORS
    assert [r for r in caplog.records if "the rest are not mirrored" in r.getMessage()][1:] == []


async def hostile(*lines: bytes) -> tuple[asyncio.Server, int]:
    """A server that declares one sensor and reports these lines about it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"#version-connect katcp-protocol 5.1-IM\n")
        while line := await reader.readline():
            head, _, rest = line.decode().partition(" ")
            request, _, mid = head.strip()[1:].partition("[")
            mid = "[" + mid if mid else ""
            if request == "sensor-list":
                writer.write(f"#sensor-list{mid} heaps about heaps integer\n".encode())
                writer.write(f"!sensor-list{mid} ok 1\n".encode())
            elif request == "sensor-sampling":
                for report in lines:
                    writer.write(report + b"\n")
                writer.write(f"!sensor-sampling{mid} ok heaps event\n".encode())
            else:
                writer.write(f"!{request}{mid} ok {rest}\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


async def test_readings_that_do_not_parse_are_left_out(readings: Readings) -> None:
    server, port = await hostile(
        b"#sensor-status 1 1 heaps nominal many",
        b"#sensor-status 1 1 heaps splendid 3",
        b"#sensor-status never 1 heaps nominal 3",
        b"#sensor-status 1 1 unheard-of nominal 3",
        b"#sensor-status 1",
        b"\xff\xfe nonsense",
        b"#sensor-status 1 1 heaps nominal 4",
    )
    async with server:
        link = TaskConnection("p", "t", "127.0.0.1", port, readings)
        await readings.until(lambda sensor: sensor.value == 4)
        link.close()
        await link.wait_closed()
    assert {sensor.value for sensor in readings.seen} <= {4, None}
