"""A ZooKeeper at the protocol's edge: what a reader of registrations needs of it, and no more.

Frames and records as ``zookeeper.jute`` of Apache ZooKeeper 3.8 has them: big-endian, texts and buffers with
their length before them.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field

NO_NODE = -101
GET_DATA, GET_CHILDREN, CLOSE = 4, 8, -11
STAT = bytes(68)
SESSION = 0x5D


@dataclass
class ZooKeeper:
    """One folder of registrations."""

    path: str = "/mesos"
    nodes: dict[str, bytes] | None = None
    """By name; None: the folder is not there."""
    asked: list[int] = field(default_factory=list)
    """Kinds of the requests that came."""
    _watching: list[asyncio.StreamWriter] = field(default_factory=list)
    _clients: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None
    port: int = 0

    async def start(self) -> None:
        """Be there, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be there no more."""
        assert self._server is not None
        self._server.close()
        for client in tuple(self._clients):
            client.transport.abort()
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        return f"zk://127.0.0.1:{self.port}{self.path}"

    def change(self, nodes: dict[str, bytes] | None) -> None:
        """Have other registrations, and tell those who watch."""
        self.nodes = nodes
        children_changed, connected = 4, 3
        event = struct.pack(">iqiii", -1, -1, 0, children_changed, connected) + _text(self.path)
        for client in self._watching:
            client.write(_frame(event))
        self._watching.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await _read(reader)  # ConnectRequest
            writer.write(_frame(struct.pack(">iiqi16s?", 0, 10_000, SESSION, 16, bytes(16), False)))
            while True:
                request = await _read(reader)
                xid, kind = struct.unpack_from(">ii", request)
                self.asked.append(kind)
                error, body = self._answer(kind, request[8:], writer)
                writer.write(_frame(struct.pack(">iqi", xid, 1, error) + body))
                if kind == CLOSE:
                    break
        self._clients.discard(writer)
        writer.close()

    def _answer(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> tuple[int, bytes]:
        if kind not in (GET_CHILDREN, GET_DATA):
            return 0, b""
        (length,) = struct.unpack_from(">i", body)
        path, watch = body[4 : 4 + length].decode(), bool(body[4 + length])
        if kind == GET_CHILDREN:
            if self.nodes is None or path != self.path:
                return NO_NODE, b""
            if watch:
                self._watching.append(writer)
            names = b"".join(map(_text, self.nodes))
            return 0, struct.pack(">i", len(self.nodes)) + names
        data = (self.nodes or {}).get(path.removeprefix(f"{self.path}/"))
        return (NO_NODE, b"") if data is None else (0, struct.pack(">i", len(data)) + data + STAT)


async def _read(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(length)


def _frame(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


def _text(text: str) -> bytes:
    return struct.pack(">i", len(text.encode())) + text.encode()
