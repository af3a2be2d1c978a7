"""Repeats a recorded scene: the same calls at the same moments, and compares what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from tests.conftest import PATIENCE
from tests.contract import compare
from tests.contract.event_comparison import EventComparison
from tests.contract.recording import Line, in_order
from tests.contract.story import Inbox, Scene, Story

_SKIPPED_HEADERS = {"Host", "Content-Length", "Connection"}


class Replay:
    """Repeats one recording.

    Parameters
    ----------
    story
        The recording, and what becomes of it.
    scene
        The cluster with which it is repeated.
    """

    def __init__(self, story: Story, scene: Scene) -> None:
        self.story = story
        self._scene = scene
        self._events = EventComparison(story, scene)
        self._session: aiohttp.ClientSession | None = None
        self.subscribed: Callable[[str, str], object] = lambda framework_id, stream_id: None
        """Told of the ids that a subscription has got, where nothing was recorded of them."""
        self.extra_headers: dict[str, str] = {}
        """Sent with every call, where headers were not recorded."""
        self._answers: dict[int, tuple[int | None, str, Mapping[str, str]]] = {}
        self._requests: dict[int, Line] = {}
        self._handlers: Mapping[str, Callable[[Line], Awaitable[None]]] = {
            "process": scene.process,
            "note": scene.note,
            "end": self._end,
            "request": self._request,
            "response": self._response,
            "stream_open": self._stream_open,
            "stream_end": self._stream_end,
            "client_closes_stream": self._client_closes_stream,
            "event": self._events.event,
        }

    async def run(self) -> None:
        """Repeat the whole scene."""
        async with aiohttp.ClientSession() as session:
            self._session = session
            try:
                for line in in_order(self.story.recording.lines):
                    self.story.turn_to(line)
                    await self._scene.advance(line.time)
                    if (handler := self._handlers.get(line.kind)) is not None:
                        await handler(line)
                    self._events.check_offerable()
            finally:
                for name in list(self.story.inboxes):
                    self._close(name)
                await self._scene.close()

    async def _end(self, line: Line) -> None:
        for name in list(self.story.inboxes):
            self._close(name)
        await self._scene.close()

    async def _request(self, line: Line) -> None:
        assert self._session is not None
        self._requests[line["id"]] = line
        body, data = line["body"], None
        if body is not None:
            self._scene.foresee(line)
            translated = self.story.names.translate(body)
            if isinstance(body, dict) and body.get("type") in ("ACCEPT", "DECLINE"):
                self._name_once(body, translated)
            text = translated if isinstance(body, str) else json.dumps(translated)
            data = self._scene.path_of(text).encode()
        path = self._scene.path_of(self.story.names.translate(line["path"]))
        headers = {k: v for k, v in line["headers"].items() if k not in _SKIPPED_HEADERS}
        headers |= self.extra_headers
        try:
            response = await self._session.request(
                line["method"],
                self._scene.address_of(line) + path,
                data=data,
                headers=self.story.names.translate(headers),
                skip_auto_headers=["Content-Type", "Accept"],
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError):
            self._answers[line["id"]] = (None, "", {})
            return
        if "stream" in line.body and response.status == 200:
            await self._open(line, response)
        else:
            self._answers[line["id"]] = (response.status, await response.text(), response.headers)
        await self._scene.settle()
        if "stream" in line.body and line["stream"] in self.story.inboxes:
            inbox = self.story.inboxes[line["stream"]]
            for event in inbox.events:
                if event["type"] == "SUBSCRIBED" and "framework_id" in event["subscribed"]:
                    self.subscribed(event["subscribed"]["framework_id"]["value"], inbox.stream_id)

    def _name_once(self, recorded: Mapping[str, Any], ours: dict[str, Any]) -> None:
        """Name an offer once that stands for several recorded ones; what was repeated stays so."""
        name = recorded["type"].lower()
        call = recorded.get(name)
        ids = call.get("offer_ids") if isinstance(call, Mapping) else None
        if not isinstance(ids, list):
            return
        stands_for: dict[str, str] = {}
        kept = []
        for theirs, mine in zip(ids, ours[name]["offer_ids"], strict=True):
            first = stands_for.setdefault(str(mine), str(theirs))
            if first == str(theirs):
                kept.append(mine)
        ours[name]["offer_ids"] = kept

    async def _open(self, line: Line, response: aiohttp.ClientResponse) -> None:
        stream_id = response.headers.get("Mesos-Stream-Id", "")
        lines = self.story.recording.lines
        opened = next(x for x in lines if x.kind == "stream_open" and x["id"] == line["id"])
        recorded = dict(opened["headers"]).get("Mesos-Stream-Id", "")
        if recorded:
            self.story.names.learn(recorded, stream_id)
        inbox = Inbox(response, stream_id, opened=line.number)
        inbox.reader = asyncio.ensure_future(inbox.read())
        self.story.inboxes[line["stream"]] = inbox
        self._answers[line["id"]] = (response.status, "", response.headers)

    async def _response(self, line: Line) -> None:
        status, text, _ = self._answers[line["id"]]
        request = self._requests[line["id"]]
        what = request["path"].partition("?")[0]
        if isinstance(request["body"], dict) and "type" in request["body"]:
            what = f"{what} {request['body']['type']}"
        self.story.compared += 1
        if status != line.get("status"):
            self.story.differ(f"{what}: status", line.get("status"), f"{status} {text[:200]}")
            return
        if status is None or "body_truncated_from" in line.body:
            return
        recorded = self.story.names.translate(line.get("body"))
        if isinstance(recorded, str) and recorded.startswith("{"):
            recorded = json.loads(recorded)
        if isinstance(recorded, str):
            if compare.message(recorded) != compare.message(text):
                self.story.differ(f"{what}: body", recorded, text)
            return
        try:
            ours = json.loads(text)
        except ValueError:
            self.story.differ(f"{what}: body", recorded, text)
            return
        for path, theirs, mine in compare.differing(recorded, ours):
            self.story.differ(f"{what}: {path}", theirs, mine)

    async def _stream_open(self, line: Line) -> None:
        status, _, headers = self._answers[line["id"]]
        self.story.compared += 1
        if str(status) != line["status_line"].split()[1]:
            self.story.differ("stream: status", line["status_line"], status)
        wanted = {k for k, _ in line["headers"]} - {"Date", "Content-Length"}
        missing = wanted - set(headers)
        if missing:
            self.story.differ("stream: headers", sorted(wanted), sorted(headers))

    async def _client_closes_stream(self, line: Line) -> None:
        inbox = self.story.inboxes.get(line["stream"])
        if inbox is None:
            return
        stream_id = inbox.stream_id
        self._close(line["stream"])
        await self._scene.forget(stream_id)

    def _close(self, name: str) -> None:
        inbox = self.story.inboxes.pop(name)
        self._events.check_left(name, inbox)
        inbox.response.close()
        if inbox.reader is not None:
            inbox.reader.cancel()

    async def _stream_end(self, line: Line) -> None:
        inbox = self.story.inboxes.get(line["stream"])
        if inbox is None or line["how"] == "not a stream":
            return
        async with asyncio.timeout(PATIENCE):
            while inbox.ended is None:  # noqa: ASYNC110 - the end has no event of its own
                await asyncio.sleep(0.001)
        self.story.compared += 1
        expected = "clean" if line["how"].startswith("last chunk") else "broken"
        if inbox.ended != expected:
            self.story.differ("stream: end", line["how"], inbox.ended)
        self._close(line["stream"])
