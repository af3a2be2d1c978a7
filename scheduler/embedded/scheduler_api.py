"""The v1 scheduler API over HTTP: requests in, event streams out.

The checks come in Mesos' order: method, content type, ``Accept``, JSON, conversion, validation, framework,
stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from scheduler.embedded.authentication import SCHEDULER_REALM, Credentials
from scheduler.embedded.calls import CallRefusedError, SchedulerCalls
from scheduler.embedded.convert import ConversionError, Document, parse
from scheduler.embedded.master import Master
from scheduler.embedded.responses import method_not_allowed, text, unauthorized
from scheduler.embedded.stream import EventStream
from scheduler.embedded.validation import validate_call

logger = logging.getLogger(__name__)

STREAM_ID = "Mesos-Stream-Id"
_JSON = "application/json"
_PROTOBUF = "application/x-protobuf"
_LARGE = 256 * 1024
"""Bytes of a body that is parsed in a worker thread, so that the event loop does not stall."""


class SchedulerApi:
    """Serves ``/api/v1/scheduler``.

    Parameters
    ----------
    master
        Who is spoken to.
    credentials
        Of those who may speak; None: everybody may.
    gate
        Sees every valid call before the master does, and may answer it instead (status, text); for faults.
    """

    def __init__(
        self,
        master: Master,
        credentials: Credentials | None = None,
        gate: Callable[[Document], Awaitable[tuple[int, str] | None]] | None = None,
    ) -> None:
        self._gate = gate
        self._master = master
        self._credentials = credentials
        self._calls = SchedulerCalls(master)
        self._streams: set[EventStream] = set()
        self._closing = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if self._closing:
            return text(503, "The cluster is being stopped")
        principal = None
        if self._credentials is not None:
            principal = self._credentials.principal(request.headers.get("Authorization"))
            if principal is None:
                return unauthorized(SCHEDULER_REALM)
        if (refusal := refuse_form(request)) is not None:
            return refusal
        body = await request.read()
        if request.headers["Content-Type"] == _PROTOBUF:
            return text(400, "Failed to parse body into Call protobuf")
        try:
            call = await _parse(body)
        except ConversionError as exc:
            return text(400, str(exc))
        if (problem := validate_call(call, principal)) is not None:
            return text(400, f"Failed to validate scheduler::Call: {problem}")
        if self._gate is not None and (answer := await self._gate(call)) is not None:
            return text(*answer) if answer[1] else web.Response(status=answer[0])
        stream_id = request.headers.get(STREAM_ID)
        if call["type"] != "SUBSCRIBE":
            return self._call(call, stream_id)
        if stream_id is not None:
            return text(400, f"Subscribe calls should not include the '{STREAM_ID}' header")
        return await self._subscribe(request, call)

    def cut(self) -> None:
        """Cut all streams off, as a master that dies does."""
        self._closing = True
        for stream in self._streams:
            stream.cut()

    def close(self) -> None:
        """End all streams, and refuse what still comes over open connections."""
        self._closing = True
        for stream in self._streams:
            stream.close()

    def _call(self, call: Document, stream_id: str | None) -> web.Response:
        try:
            status = self._calls.call(call, stream_id)
        except CallRefusedError as exc:
            return text(exc.status, exc.text)
        return web.Response(status=status)

    async def _subscribe(self, request: web.Request, call: Document) -> web.StreamResponse:
        stream = self._master.subscribe(call)
        self._streams.add(stream)
        try:
            return await send_stream(request, stream, {STREAM_ID: stream.id})
        finally:  # also when this handler is cancelled because the connection was lost
            self._streams.discard(stream)
            self._master.disconnected(stream)


async def send_stream(
    request: web.Request, stream: EventStream, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer with the records of a stream until its end, or that of the connection."""
    response = web.StreamResponse(headers={**headers, "Content-Type": _JSON})
    response.enable_chunked_encoding()
    try:
        await response.prepare(request)
        async for record in stream:
            await response.write(record)
        if stream.overflowed and request.transport is not None:
            logger.warning("connection of subscriber %s is cut", stream.id)
            request.transport.abort()
        else:
            await response.write_eof()
    except ConnectionError:
        logger.info("subscriber %s is gone", stream.id)
    return response


async def _parse(body: bytes) -> Document:
    if len(body) > _LARGE:
        return await asyncio.to_thread(parse, body, "Call")
    return parse(body, "Call")


def refuse_form(request: web.Request) -> web.Response | None:
    """Judge what comes before the body."""
    if request.method != "POST":
        return method_not_allowed(request, "POST")
    content_type = request.headers.get("Content-Type")
    if content_type is None:
        return text(400, "Expecting 'Content-Type' to be present")
    if content_type not in (_JSON, _PROTOBUF):
        return text(415, f"Expecting 'Content-Type' of {_JSON} or {_PROTOBUF}")
    if not _accepts(request.headers.get("Accept")):
        return text(406, f"Expecting 'Accept' to allow '{_PROTOBUF}' or '{_JSON}'")
    return None


def _accepts(header: str | None) -> bool:
    """Whether JSON may be answered; protobuf alone is not spoken here."""
    if header is None:
        return True
    kinds = {part.split(";", 1)[0].strip() for part in header.split(",")}
    return bool(kinds & {_JSON, "*/*", "application/*"})
