"""A master on the wire, which misbehaves as told, and a link to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from scheduler.framework import Disconnected, Framework, LinkEvent, Subscribed
from scheduler.listening import stop_accepting
from tests.conftest import PATIENCE


@dataclass
class Master:
    """Speaks just enough of the v1 scheduler API, and misbehaves as told."""

    subscribe_status: list[int] = field(default_factory=list)
    """Statuses of the next SUBSCRIBEs, before they are answered well."""
    errors: list[str] = field(default_factory=list)
    """With which the next streams begin and end."""
    call_status: int | None = 202
    """None: no answer at all."""
    heartbeat: float = 15.0
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    subscribed_at: list[float] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    """Of all requests."""
    called: asyncio.Event = field(default_factory=asyncio.Event)
    streams: list[asyncio.StreamWriter] = field(default_factory=list)
    address: str = ""
    first_event: dict[str, Any] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
                call = json.loads(await reader.readexactly(length))
                if call["type"] == "SUBSCRIBE":
                    await self.subscribe(call, writer)
                else:
                    await self.answer(call, writer)
        writer.close()

    async def subscribe(self, call: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.subscriptions.append(call)
        self.subscribed_at.append(asyncio.get_running_loop().time())
        if self.subscribe_status:
            writer.write(
                b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % self.subscribe_status.pop(0)
            )
            writer.close()
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
            b"Mesos-Stream-Id: stream-%d\r\n\r\n" % len(self.subscriptions)
        )
        self.streams.append(writer)
        if self.errors:
            self.send({"type": "ERROR", "error": {"message": self.errors.pop(0)}})
            writer.write(b"0\r\n\r\n")
            return
        body = {"framework_id": {"value": "fw-0"}, "heartbeat_interval_seconds": self.heartbeat}
        self.send(self.first_event or {"type": "SUBSCRIBED", "subscribed": body})

    def send(self, event: Any) -> None:
        record = json.dumps(event).encode()
        record = b"%d\n%s" % (len(record), record)
        self.streams[-1].write(b"%x\r\n%s\r\n" % (len(record), record))

    async def answer(self, call: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.calls.append(call)
        self.called.set()
        if self.call_status is not None:
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.call_status)

    async def until_called(self, kind: str) -> dict[str, Any]:
        while True:
            for call in self.calls:
                if call["type"] == kind:
                    return call
            self.called.clear()
            await self.called.wait()

    async def restart(self, link: Link, *, heartbeat: float) -> None:
        """Come back with another interval of heartbeats."""
        self.heartbeat = heartbeat
        self.cut()
        await link.next(Disconnected)
        await link.up()

    def cut(self) -> None:
        self.streams[-1].transport.abort()


@contextlib.asynccontextmanager
async def leading() -> AsyncIterator[Master]:
    """Return a master that is there."""
    master = Master()
    server = await asyncio.start_server(master.serve, "127.0.0.1", 0)
    master.address = "{}:{}".format(*server.sockets[0].getsockname())
    yield master
    await stop_accepting(server.sockets)
    server.close()
    for stream in master.streams:
        stream.transport.abort()
    await asyncio.sleep(0)


class Link:
    """A framework and its events."""

    def __init__(self, framework: Framework) -> None:
        self.framework = framework
        self.events = framework.events()

    async def next(self, kind: type[LinkEvent]) -> Any:
        async with asyncio.timeout(PATIENCE):
            async for event in self.events:
                if isinstance(event, kind):
                    return event
        raise AssertionError("the link has ended")

    async def up(self) -> None:
        await self.next(Subscribed)
        self.framework.confirm()
