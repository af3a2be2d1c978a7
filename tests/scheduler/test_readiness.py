"""Readiness checks, against programs that answer well, badly, in turn, or not at all."""

# No annotations as text: aiokatcp reads those of requests.

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiokatcp
import async_solipsism
import pytest
from aiohttp import web

from scheduler import readiness
from scheduler.graph import PhysicalGraph, ReadyCheck, ReadyKind
from scheduler.listening import stop_accepting
from scheduler.placement import Assignment
from scheduler.readiness import until_ready
from scheduler.requests import TaskRequest
from scheduler.runs import GraphRun, TaskEntry
from scheduler.task import Accepted, LetThrough, Placed, StatusUpdate, advance
from tests.conftest import PATIENCE
from tests.scheduler.programs import physical, shell


def started(check: ReadyCheck, *ports: int) -> tuple[GraphRun, TaskEntry]:
    """Return a task that runs here, on these ports, and whose readiness is not known yet."""
    names = tuple(f"p{n}" for n in range(len(ports)))
    graph: PhysicalGraph = physical(
        "g", shell("t", "true", request=TaskRequest.of(ports=names), ready=check)
    )
    run = GraphRun(graph)
    entry = run.entries["t"]
    entry.assignment = Assignment("t", "S0", "host", ports=ports)
    entry.address = "127.0.0.1"
    for event in (Placed("S0"), Accepted(), LetThrough(), StatusUpdate("g.t.0", "TASK_RUNNING")):
        entry.life, _ = advance(entry.life, event, 0.0)
    return run, entry


async def ready(check: ReadyCheck, *ports: int) -> None:
    async with asyncio.timeout(PATIENCE):
        await until_ready(*started(check, *ports))


async def not_ready(check: ReadyCheck, *ports: int, seconds: float = 0.5) -> str:
    """Wait in vain; return what was wrong at last."""
    run, entry = started(check, *ports)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await until_ready(run, entry)
    return entry.unready


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LAST_PAUSE", 0.05)


# ---------------------------------------------------------------------- HTTP


@pytest.fixture
async def website(unused_port: int) -> AsyncIterator[tuple[int, Callable[[int], None]]]:
    """A server whose status is what the returned function was told last."""
    status = 200

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status if request.path == "/ready" else 404)

    def say(number: int) -> None:
        nonlocal status
        status = number

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_port).start()
    yield unused_port, say
    await runner.cleanup()


async def test_http_is_ready_with_a_good_status_of_that_path(
    website: tuple[int, Callable[[int], None]],
) -> None:
    port, say = website
    check = ReadyCheck(ReadyKind.HTTP, ("p0",), path="/ready")
    await ready(check, port)
    await not_ready(ReadyCheck(ReadyKind.HTTP, ("p0",), path="/other"), port)
    for bad in (500, 302, 404):
        say(bad)
        told = f"port p0 (127.0.0.1:{port}) answers a GET of /ready with {bad}"
        assert await not_ready(check, port) == told
    say(204)
    await ready(check, port)


async def test_who_accepts_but_never_answers_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PROBE_SECONDS", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await ready(ReadyCheck(ReadyKind.PORTS, ("p0",)), port)
    sensor = ReadyCheck(ReadyKind.SENSOR, ("p0",), sensor="state", values=("ok",))
    for check in (ReadyCheck(ReadyKind.HTTP, ("p0",)), sensor):
        assert "did not answer within 0.1 s" in await not_ready(check, port)
    server.close()
    await server.wait_closed()


# ---------------------------------------------------------------------- KATCP


class Device(aiokatcp.DeviceServer):
    """A program with one sensor."""

    VERSION = "device-1.0"
    BUILD_STATE = "device-1.0"

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0)
        self.state = aiokatcp.Sensor(str, "device-state", "how it is")
        self.sensors.add(self.state)

    async def stop(self, cancel: bool = True) -> None:
        await stop_accepting(self.sockets)
        await super().stop(cancel)


@pytest.fixture
async def device() -> AsyncIterator[tuple[Device, int]]:
    device = Device()
    await device.start()
    yield device, device.sockets[0].getsockname()[1]
    await device.stop()


async def test_a_sensor_is_ready_with_the_right_value_and_status(
    device: tuple[Device, int],
) -> None:
    server, port = device
    check = ReadyCheck(ReadyKind.SENSOR, ("p0",), sensor="device-state", values=("ok", "very well"))
    nominal = aiokatcp.Sensor.Status.NOMINAL
    await not_ready(check, port)  # its status is unknown
    server.state.set_value("starting", status=nominal)
    await not_ready(check, port)
    server.state.set_value("ok\x07", status=aiokatcp.Sensor.Status.ERROR)
    told = "says error ok\N{REPLACEMENT CHARACTER} of its sensor device-state, not nominal ok or very well"
    assert told in await not_ready(check, port)
    server.state.set_value("very well", status=nominal)
    await ready(check, port)
    nobody = ReadyCheck(ReadyKind.SENSOR, ("p0",), sensor="no-such", values=("ok",))
    assert "fails ?sensor-value no-such" in await not_ready(nobody, port)


# ---------------------------------------------------------------------- programs that are none of ours


@contextlib.asynccontextmanager
async def serving(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Serve on a port of loopback, until all that was begun has ended."""
    async with asyncio.TaskGroup() as group:

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            group.create_task(talk(reader, writer))

        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        await stop_accepting(server.sockets)
        server.close()


@pytest.mark.parametrize("address", ["bad..name", "x" * 70, "\ud800", "a b", "", "no.such.invalid"])
async def test_an_address_that_can_be_none_is_told_and_raises_nothing(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot be asked" in await readiness._accepts(address, 9)
    assert "cannot be asked" in await readiness._answers_well(address, 9, "/")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"#version-connect katcp-protocol 9.9\n", "Unknown protocol version"),
        (b"", ""),
        (b"\0\xff" * 100_000, ""),
        (b"#version-connect katcp-protocol 5.1-MI\n!sensor-value fail\n", ""),
    ],
)
async def test_what_speaks_otherwise_is_not_ready_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, said: bytes, told: str
) -> None:
    monkeypatch.setattr(readiness, "PROBE_SECONDS", 0.5)

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await asyncio.sleep(0.05)
        writer.close()

    async with serving(talk) as port:
        for answer in (
            await readiness._sensor_says("127.0.0.1", port, "state", ("ok",)),
            await readiness._answers_well("127.0.0.1", port, "/"),
        ):
            assert answer
            assert answer.isprintable()
        assert told in await readiness._sensor_says("127.0.0.1", port, "state", ("ok",))


async def test_a_page_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(b"x" * 1000)
                await writer.drain()
        writer.close()

    async with serving(stream) as port:
        await ready(ReadyCheck(ReadyKind.HTTP, ("p0",)), port)


# ---------------------------------------------------------------------- what flaps


def test_ready_only_when_it_holds() -> None:
    """One bad answer begins the time anew."""
    asked: list[float] = []

    async def probe(address: str, port: int) -> str:
        asked.append(asyncio.get_running_loop().time())
        return "refuses" if len(asked) == 3 else ""

    async def hold() -> float:
        _, entry = started(ReadyCheck(ReadyKind.PORTS, ("p0",), hold=0.4), 9)
        await readiness._until_holds(entry, probe, {"p0": 9})
        assert entry.unready == ""
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        end = runner.run(hold())
    assert end - asked[0] < 0.4 + 4 * 0.05 + 0.4
    assert end - asked[3] >= 0.4


async def test_ports_that_answer_in_turn_do_not_count(unused_port: int) -> None:
    """Never more than one of the two is there."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    here = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = here.sockets[0].getsockname()[1]
    check = ReadyCheck(ReadyKind.PORTS, ("p0", "p1"))
    waiting = asyncio.create_task(not_ready(check, port, unused_port, seconds=1.0))
    await asyncio.sleep(0.3)  # one answers, the other does not
    here.close()
    await here.wait_closed()
    there = await asyncio.start_server(hang_up, "127.0.0.1", unused_port)
    await waiting
    there.close()
    await there.wait_closed()


async def test_a_dead_task_is_waited_for_no_longer() -> None:
    run, entry = started(ReadyCheck(ReadyKind.PORTS, ("p0",)), 9)
    waiting = asyncio.create_task(until_ready(run, entry))
    await asyncio.sleep(0.1)
    entry.life, _ = advance(entry.life, StatusUpdate("g.t.0", "TASK_FAILED"), 1.0)
    async with asyncio.timeout(PATIENCE):
        await waiting
