"""Clients that flood, do not read, send nonsense or vanish: each is bounded, and the others are answered."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator

import pytest

from katcp_iface import KatcpServer, Limits
from katcp_iface.bounded import MAX_FAILURE, MAX_LINE, one_line
from katcp_iface.lines import TOLD
from tests.conftest import PATIENCE


@contextlib.asynccontextmanager
async def raw(
    server: KatcpServer, receive_buffer: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A socket that speaks for itself."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, server.address)
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # close() would wait for a server that reads no more
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def reply(reader: asyncio.StreamReader, start: bytes) -> bytes:
    """Read up to the line that begins so."""
    async with asyncio.timeout(PATIENCE):
        async for line in reader:
            if line.startswith(start):
                return line.rstrip(b"\n")
    raise AssertionError(f"closed before {start!r} came")


async def test_a_line_of_a_megabyte_is_read(server, control) -> None:
    async with raw(server) as (reader, writer):
        document = b"\\_" * 500_000
        writer.write(b"?product-configure[1] a " + document + b"\n")
        assert await reply(reader, b"!product-configure[1]") == (
            b"!product-configure[1] ok a 127.0.0.1 5001"
        )
    assert len(control.executed[0].config) == 500_000


async def test_a_line_beyond_the_bound_fails_by_name_and_the_next_is_read(
    server, client, control
) -> None:
    async with raw(server) as (reader, writer):
        writer.write(b"?product-configure[17] a " + b"x" * MAX_LINE + b"\n?watchdog[2]\n")
        failure = await reply(reader, b"!")
        assert failure.startswith(b"!product-configure[17] fail the\\_line\\_is\\_longer\\_than")
        assert str(MAX_LINE).encode() in failure
        assert await reply(reader, b"!") == b"!watchdog[2] ok"
        await client.request("watchdog")
    assert control.executed == []


async def test_it_fails_before_it_ends(server) -> None:
    async with raw(server) as (reader, writer):
        writer.write(b"?product-configure a " + b"x" * MAX_LINE)  # and the client waits
        assert (await reply(reader, b"!")).startswith(b"!product-configure fail")
        (conn,) = server._server._connections
        assert conn._parser.buffer_size == 0, "nothing of it is kept"
        writer.write(b"x" * 1000 + b"\r\n?watchdog[2]\n")
        assert await reply(reader, b"!") == b"!watchdog[2] ok"


async def test_nonsense_is_answered_and_does_no_harm(server, client) -> None:
    async with raw(server) as (reader, writer):
        writer.write(b"hello\n?\n?1 2\n!watchdog ok\n#x\n\x00\xff\n?watchdog[0]\n?watchdog[7]\n")
        assert await reply(reader, b"!") == b"!watchdog[7] ok"
    await client.request("watchdog")


async def test_a_request_with_what_must_be_escaped_fails_by_name(server, control) -> None:
    async with raw(server) as (reader, writer):
        writer.write(b"?capture-init[5] array\\qone\n?watchdog[7]\n")
        answer = await reply(reader, b"!")
        assert answer.startswith(b"!capture-init[5] fail the\\_line\\_cannot\\_be\\_read")
        assert await reply(reader, b"!") == b"!watchdog[7] ok"
    assert control.executed == []


async def test_a_flood_of_nonsense_is_told_a_few_times_and_counted(
    server, client, caplog: pytest.LogCaptureFixture
) -> None:
    count = 20_000
    async with raw(server) as (reader, writer):
        writer.write(b"?\n" * count + b"?watchdog[1]\n")
        told = 0
        async with asyncio.timeout(PATIENCE):
            while (line := await reader.readline()) != b"!watchdog[1] ok\n":
                told += line.startswith(b"#log")
        assert told == TOLD
    while len(server._server._connections) > 1:
        await client.request("watchdog")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == TOLD + 1 and f"{count - TOLD} more malformed lines" in lines[-1]


async def test_half_a_line_and_gone(server, client) -> None:
    async with raw(server) as (_reader, writer):
        writer.write(b"?product-conf")
        await writer.drain()
    await client.request("watchdog")


async def test_every_request_of_a_flood_is_answered_once_and_others_are_served(
    server, client
) -> None:
    count = 5000
    async with raw(server) as (reader, writer):
        writer.write(b"".join(b"?watchdog[%d]\n" % (i + 1) for i in range(count)))
        for _ in range(3):
            await client.request("watchdog")
        answered = []
        async with asyncio.timeout(PATIENCE):
            while len(answered) < count:
                line = await reader.readline()
                if line.startswith(b"!watchdog"):
                    answered.append(line)
        assert len(set(answered)) == count
        assert all(line.endswith(b" ok\n") for line in answered)


async def test_a_client_has_only_so_many_requests_in_progress(server, client, control) -> None:
    control.gate = asyncio.Event()
    async with raw(server) as (reader, writer):
        for i in range(10):
            writer.write(b"?product-configure[%d] a%d {}\n" % (i + 1, i))
        writer.write(b"?product-list[99]\n")
        await writer.drain()
        await client.request("watchdog")
        assert len(control.executed) == 4  # the fixture's limit
        control.gate.set()
        assert await reply(reader, b"!product-list[99]")
    assert len(control.executed) == 10


async def test_a_client_that_vanishes_leaves_its_request_running(server, client, control) -> None:
    control.gate = asyncio.Event()
    async with raw(server) as (_reader, writer):
        writer.write(b"?product-configure a {}\n")
        await writer.drain()
        await client.request("watchdog")
        assert len(control.executed) == 1
    control.gate.set()
    # It comes back and asks again; the controller decides that nothing is to do.
    answer, _ = await client.request("product-configure", "a", "{}")
    assert answer[0] == b"a"
    assert [record.name for record in control.products().values()] == ["a"]


async def test_clients_beyond_the_bound_are_sent_away(server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            reader, _writer = await stack.enter_async_context(raw(server))
            await reply(reader, b"#version-connect katcp-device")
        late, _writer = await stack.enter_async_context(raw(server))
        assert await late.read() == b"#disconnect too\\_many\\_clients\n"
    async with raw(server) as (reader, writer):
        writer.write(b"?watchdog[1]\n")
        assert await reply(reader, b"!") == b"!watchdog[1] ok"


async def test_a_client_that_sends_nonsense_and_does_not_read_is_cut_off(
    control, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    server = KatcpServer(control, port=0, limits=Limits(backlog=100_000))
    await server.start()
    for (
        listener
    ) in server._server.sockets:  # or megabytes of answers are with the kernel before any waits
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    try:
        async with raw(server, receive_buffer=4096) as (_reader, writer):
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(PATIENCE):
                    while True:
                        writer.write(b"?watchdog \\q\n" * 100)
                        await writer.drain()
        async with raw(server) as (reader, writer):
            writer.write(b"?watchdog[1]\n")
            assert await reply(reader, b"!") == b"!watchdog[1] ok"
    finally:
        await server.stop()


@pytest.mark.parametrize("request_", [b"?help\n", b"?product-list nothing\n"])
async def test_a_client_that_asks_and_does_not_read_is_read_no_more(
    server, client, request_
) -> None:
    async with raw(server, receive_buffer=4096) as (_reader, writer):
        with pytest.raises(TimeoutError):  # the server takes no more in
            for _ in range(10_000):
                writer.write(request_ * 100)
                async with asyncio.timeout(0.5):
                    await writer.drain()
        waiting = [conn.get_write_buffer_size() for conn in server._server._connections]
        assert max(waiting) < 1_000_000
        await client.request("watchdog")


async def test_what_is_in_progress_at_the_stop_is_answered(control) -> None:
    control.gate = asyncio.Event()
    server = KatcpServer(control, port=0)
    await server.start()
    async with raw(server) as (reader, writer):
        writer.write(b"?product-configure[1] a {}\n?watchdog[2]\n")
        await reply(reader, b"!watchdog[2]")
        await server.stop()
        rest = await reader.read()
    assert (
        rest
        == b"!product-configure[1] fail request\\_cancelled\n#disconnect server\\_shutting\\_down\n"
    )
    assert control.listeners == []


async def test_a_client_that_does_not_read_does_not_hold_up_the_stop(control) -> None:
    server = KatcpServer(control, port=0)
    await server.start()
    async with raw(server, receive_buffer=4096) as (_reader, writer):
        with pytest.raises(TimeoutError):
            for _ in range(10_000):
                writer.write(b"?help\n" * 100)
                async with asyncio.timeout(0.5):
                    await writer.drain()
        async with asyncio.timeout(PATIENCE):
            await server.stop()


@pytest.mark.parametrize("turns", range(5))
async def test_who_connects_while_it_stops_is_let_go_in_order(control, turns: int) -> None:
    """See scheduler.listening."""
    server = KatcpServer(control, port=0)
    await server.start()
    with socket.create_connection(server.address) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.stop()
        gc.collect()
        client.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):  # it was not accepted yet
            heard = b"".join(iter(lambda: client.recv(4096), b""))
            assert heard.endswith(b"#disconnect server\\_shutting\\_down\n")


async def test_an_address_in_use_is_told_and_leaves_nothing(server, control) -> None:
    other = KatcpServer(control, port=server.address[1])
    with pytest.raises(OSError, match="address already in use"):
        await other.start()
    assert len(control.listeners) == 1


@pytest.mark.parametrize(
    "words", [b"?sensor-value %s", b"?get-multicast-groups a %s", b"?product-list %s"]
)
async def test_a_failure_does_not_say_all_again(server, control, words: bytes) -> None:
    control.put(control.product("a"))
    async with raw(server) as (reader, writer):
        writer.write(words % (b"y" * 1_000_000) + b"\n")
        answer = await reply(reader, b"!")
        assert b" fail " in answer and len(answer) < 2 * MAX_FAILURE


def test_messages_become_one_line() -> None:
    assert one_line("a: 1\n  b: 2\n\n") == "a: 1; b: 2"
    assert one_line("2 of 3 do not fit.\ncpus: 4\nlast lines:\n  gone") == (
        "2 of 3 do not fit. cpus: 4; last lines: gone"
    )


async def test_every_request_is_counted_by_how_it_ended(control) -> None:
    counted: list[tuple[str, str]] = []
    server = KatcpServer(
        control, port=0, observed=lambda request, outcome, s: counted.append((request, outcome))
    )
    await server.start()
    async with raw(server) as (reader, writer):
        writer.write(b"?watchdog[1]\n?product-list[2] nobody\n?no-such-thing[3]\n")
        for _ in range(3):
            await reply(reader, b"!")
        control.fault = RuntimeError("a fault of ours")
        writer.write(b"?capture-init[4] p\n")
        await reply(reader, b"!capture-init[4] fail")
    await server.stop()
    assert sorted(counted) == [
        ("capture-init", "failed"),
        ("product-list", "refused"),
        ("unknown", "refused"),
        ("watchdog", "ok"),
    ]
