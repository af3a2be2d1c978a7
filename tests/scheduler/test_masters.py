"""The link to Mesos, where masters name each other, flap, drip, say nothing of use, or answer no call."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import pymesos_driver
from scheduler.errors import FrameworkError
from scheduler.framework import (
    Disconnected,
    Framework,
    FrameworkSettings,
    Offered,
    Rescinded,
    Subscribed,
)
from scheduler.pymesos_connection import leader_of
from scheduler.pymesos_driver import CallUncertain
from tests.conftest import PATIENCE
from tests.scheduler.wire import Link, Master

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymesos_driver, "BACK_OFF_FIRST", 0.05)
    monkeypatch.setattr(pymesos_driver, "BACK_OFF_MAX", 0.4)


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """Serve somewhere on loopback; yields the address."""
    writers: list[asyncio.StreamWriter] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve(reader, writer)

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def linked(address: str, http_timeout: float = 20.0) -> AsyncIterator[Link]:
    """Link to a master."""
    framework = Framework(
        FrameworkSettings(master=address, name="test", user="root", http_timeout=http_timeout)
    )
    await framework.start()
    try:
        yield Link(framework)
    finally:
        await framework.stop(teardown=False)


def redirecting(where: str) -> Serve:
    """Say that another master leads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 307 No\r\n{where}Content-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    return serve


def in_turn(*ways: Serve) -> Serve:
    """Serve each connection in another way, the last of them for ever."""
    left = list(ways)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(reader, writer)

    return serve


async def answer_a_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Read a call and answer it well; return its kind."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    call = json.loads(await reader.readexactly(length))
    return str(call["type"])


# ---------------------------------------------------------------------- who leads


async def test_a_master_that_is_named_and_is_dead_is_not_asked_for_ever(unused_port: int) -> None:
    """The one that named it may lead by now."""
    master = Master()
    dead = redirecting(f"Location: //127.0.0.1:{unused_port}/api/v1/scheduler\r\n")
    async with serving(in_turn(dead, dead, master.serve)) as address, linked(address) as link:
        assert str(unused_port) in (await link.next(Disconnected)).reason
        await link.up()
        assert len(master.subscriptions) == 1


async def test_a_leader_is_found_again_though_the_configured_master_is_dead() -> None:
    """Who was taken by another one than is configured asks both, when the link ends."""
    leader = Master()
    async with serving(leader.serve) as where:
        async with serving(redirecting(f"Location: http://{where}/\r\n")) as address:
            framework = Framework(FrameworkSettings(master=address, name="test", user="root"))
            await framework.start()
            link = Link(framework)
            await link.up()
        leader.subscribe_status = [503] * 3
        leader.cut()
        await link.next(Disconnected)
        await link.up()
        await framework.stop(teardown=False)


@pytest.mark.parametrize(
    "where",
    [
        "",
        "Location: /api/v1/scheduler\r\n",
        "Location: http://[::1]:5050/\r\n",
        "Location: x:y\r\n",
    ],
)
async def test_a_redirection_to_nowhere_is_told_and_costs_one_connection(where: str) -> None:
    master = Master()
    serve = in_turn(redirecting(where), master.serve)
    async with serving(serve) as address, linked(address) as link:
        assert "another one leads, at" in (await link.next(Disconnected)).reason
        await link.up()


@pytest.mark.parametrize(
    ("location", "leader"),
    [
        ("//master1:15200", "master1:15200"),
        ("//10.0.0.1/api/v1/scheduler", "10.0.0.1:5050"),
        ("https://m.example:5051/master/api/v1/scheduler", "m.example:5051"),
        ("10.0.0.1:5050", "10.0.0.1:5050"),
    ],
)
def test_leaders_are_read_as_masters_name_them(location: str, leader: str) -> None:
    assert leader_of(location) == leader


@given(st.text(max_size=50))
def test_any_location_names_a_master_or_none(location: str) -> None:
    with contextlib.suppress(FrameworkError):
        host, _, port = leader_of(location).partition(":")
        assert host and 0 < int(port) < 65536


async def test_two_masters_that_name_each_other_are_not_asked_without_pause() -> None:
    asked: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(asyncio.get_running_loop().time())
        await redirecting(f"Location: //{other}\r\n")(reader, writer)

    async def back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(asyncio.get_running_loop().time())
        await redirecting(f"Location: //{address}\r\n")(reader, writer)

    async with serving(back) as other, serving(serve) as address, linked(address) as link:
        async with asyncio.timeout(PATIENCE):
            while len(asked) < 9:
                await link.next(Disconnected)
    assert asked[-1] - asked[-2] > 0.15


# ---------------------------------------------------------------------- links of no use


async def test_a_link_that_breaks_as_soon_as_it_is_made_is_made_after_growing_pauses() -> None:
    master = Master()

    async def brief(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asyncio.get_running_loop().call_later(0.01, writer.transport.abort)
        await master.serve(reader, writer)

    async with serving(brief) as address, linked(address) as link:
        for _ in range(7):
            await link.next(Subscribed)
    assert master.subscribed_at[6] - master.subscribed_at[5] > 0.15


async def test_who_never_takes_us_is_not_listened_to_for_ever() -> None:
    """Whatever else he says; here heartbeats."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nMesos-Stream-Id: s\r\n\r\n")
        while not writer.is_closing():
            writer.write(b'17\r\n20\n{"type":"HEARTBEAT"}\r\n')
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(serve) as address, linked(address, 0.3) as link:
        assert "no answer" in (await link.next(Disconnected)).reason
        await link.next(Disconnected)
    assert count >= 2


async def test_an_endless_head_ends() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"X-Filler: %s\r\n" % (b"x" * 1000))
            await writer.drain()

    async with serving(serve) as address, linked(address) as link:
        assert "head" in (await link.next(Disconnected)).reason


@pytest.mark.parametrize("status", [400, 401, 403, 503])
async def test_why_a_master_refuses_us_is_told_though_it_comes_later_than_that(status: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 11\r\n\r\n" % status)
        await writer.drain()
        for byte in b"not by us!!":
            await asyncio.sleep(0.005)
            writer.write(bytes((byte,)))

    async with serving(serve) as address, linked(address) as link:
        reason = (await link.next(Disconnected)).reason
        assert reason == f"SUBSCRIBE was refused with {status}: not by us!!"


async def test_a_master_that_takes_us_for_another_is_not_believed() -> None:
    """Tasks are recorded under the id that we have."""
    master = Master()
    other = {"framework_id": {"value": "fw-1"}, "heartbeat_interval_seconds": 15.0}
    async with serving(master.serve) as address, linked(address) as link:
        await link.up()
        master.first_event = {"type": "SUBSCRIBED", "subscribed": other}
        master.cut()
        await link.next(Disconnected)
        assert "fw-1, and not fw-0" in (await link.next(Disconnected)).reason
        master.first_event = None
        await link.up()
        assert link.framework.framework_id == "fw-0"


async def test_events_are_read_however_they_are_cut() -> None:
    """Head, lengths of chunks, lengths of events and texts: byte after byte."""
    master = Master()

    class Dripping:
        """Sends one byte at a time."""

        def __init__(self, writer: asyncio.StreamWriter) -> None:
            self._writer, self.transport, self.close = writer, writer.transport, writer.close
            self.left = bytearray()
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def write(self, data: bytes) -> None:
            self.left += data

        async def drip(self) -> None:
            while True:
                await asyncio.sleep(0.0005)
                self._writer.write(bytes(self.left[:1]))
                del self.left[:1]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dripping = Dripping(writer)
        task = asyncio.create_task(dripping.drip())
        try:
            await master.serve(reader, dripping)  # type: ignore[arg-type]
        finally:
            task.cancel()

    async with serving(serve) as address, linked(address) as link:
        await link.up()
        master.send({"type": "OFFERS", "offers": {"offers": [{"note": "é"}]}})
        master.send({"type": "RESCIND", "rescind": {"offer_id": {"value": "o"}}})
        assert (await link.next(Offered)).offers == ({"note": "é"},)
        assert (await link.next(Rescinded)).offer_id == "o"
        assert len(master.subscriptions) == 1


# ---------------------------------------------------------------------- this process


@pytest.fixture
def many_files() -> Iterator[None]:
    """More open files than select() can take."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2000:
        pytest.skip("so many files may not be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2000), before[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_files")
async def test_a_controller_with_a_thousand_connections_is_linked_and_linked_again() -> None:
    master = Master()
    async with serving(master.serve) as address, linked(address) as link:
        await link.up()
        master.subscribe_status = [503]
        master.cut()
        await link.next(Disconnected)
        await link.up()


@pytest.mark.parametrize("master", ["no.such.host.invalid:5050", "127.0.0.1:0"])
async def test_a_connection_that_cannot_even_be_begun_leaves_nothing_open(master: str) -> None:
    """A warning of a socket would be a failure."""
    async with linked(master) as link:
        for _ in range(3):
            await link.next(Disconnected)
    gc.collect()


# ---------------------------------------------------------------------- calls


async def test_a_master_that_answers_no_call_is_left_though_its_events_come() -> None:
    """What waits behind such calls would wait for hours."""
    master = Master(call_status=None)
    async with serving(master.serve) as address, linked(address, 0.2) as link:
        await link.up()
        await asyncio.gather(
            *(link.framework.accept(["o"], [{}]) for _ in range(5)), return_exceptions=True
        )
        reason = (await link.next(Disconnected)).reason
        assert "calls unanswered" in reason
        assert len(master.calls) == pymesos_driver.UNANSWERED_CALLS
        master.call_status = 202
        await link.up()
        await link.framework.accept(["o"], [{}])


@pytest.mark.parametrize("drip", [b"x", b"X-Filler: x\r\n"])
async def test_an_answer_that_drips_holds_the_calls_up_no_longer_than_none(drip: bytes) -> None:
    """In its body, or in its head."""
    master = Master()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_a_call(reader, writer)
        head = b"HTTP/1.1 202 Accepted\r\n"
        writer.write(head + (b"Content-Length: 100000\r\n\r\n" if drip == b"x" else b""))
        while not writer.is_closing():
            writer.write(drip)
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(in_turn(master.serve, serve)) as address, linked(address, 0.4) as link:
        await link.up()
        began = asyncio.get_running_loop().time()
        with pytest.raises(CallUncertain):
            await link.framework.accept(["o"], [{}])
        assert asyncio.get_running_loop().time() - began < PATIENCE / 2


async def test_of_an_endless_answer_only_the_beginning_is_read() -> None:
    master = Master()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_a_call(reader, writer)
        writer.write(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"3e8\r\n%s\r\n" % (b"x" * 1000))
            await writer.drain()

    serve = in_turn(master.serve, endless, endless, master.serve)
    async with serving(serve) as address, linked(address) as link:
        await link.up()
        for _ in range(3):
            await link.framework.accept(["o"], [{}])
        assert len(master.calls) == 1
