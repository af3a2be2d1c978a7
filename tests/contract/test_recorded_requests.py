"""Recorded conversations with a real Mesos master, repeated with the embedded one.

Every request of the recordings ``01_subscribe`` and ``02_errors`` is sent again, in their order, with the ids
that this master has given in the place of the recorded ones. Status and text of each answer, the kinds and
texts of the events that open a stream, and the way in which streams end have to be the same. Not repeated: the
part of ``02_errors`` with authentication, which the embedded master does not have.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.recordio import Decoder
from scheduler.quantities import Ranges, Resources

RECORDINGS = Path(__file__).parents[2] / "../shared/data/mesos"
WITHOUT_STORY = {"HEARTBEAT", "OFFERS", "RESCIND"}
"""Events that come when they come: offers are compared elsewhere, the RESCIND was a race."""
pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="the recordings of a real Mesos master are not here"
)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    resources = Resources(
        {"cpus": 4000, "mem": 4_096_000, "disk": 10_000_000, "gpu.0.compute": 1000},
        {"ports": Ranges.parse("[31000-32000]"), "cores": Ranges.parse("[0-7]")},
    )
    specs = [AgentSpec(f"agent{number}", resources, {"rack": "r1"}) for number in (1, 2, 3)]
    async with Cluster(specs, work_dir=tmp_path, port=0, allocation_interval=0.2) as cluster:
        yield cluster


class Stream:
    """A repeated subscription."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.id = response.headers["Mesos-Stream-Id"]
        self._response = response
        self._decoder = Decoder()
        self._events: list[dict[str, Any]] = []
        self.clean_end = False

    async def next(self) -> dict[str, Any] | None:
        """Return the next event that has a story, None at the end."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if event["type"] not in WITHOUT_STORY:
                    return event
            chunk = await self._response.content.readany()
            if not chunk:
                self.clean_end = True  # an incomplete chunked body raises instead
                return None
            self._events += map(json.loads, self._decoder.feed(chunk))

    def close(self) -> None:
        self._response.close()


class Replay:
    """Repeats one recording."""

    def __init__(self, session: aiohttp.ClientSession, base: str, cluster: Cluster) -> None:
        self._session = session
        self._base = base
        self._cluster = cluster
        self._ids: dict[str, str] = {}
        self._streams: dict[str, Stream] = {}
        self._lines: list[dict[str, Any]] = []
        self._requests: dict[int, dict[str, Any]] = {}
        self._answers: dict[int, tuple[int, str]] = {}
        self.compared = 0

    def translate(self, text: str) -> str:
        """Put our ids in the place of the recorded ones."""
        for theirs, ours in self._ids.items():
            text = text.replace(theirs, ours)
        return text

    async def step(self, line: dict[str, Any]) -> None:
        handler = getattr(self, f"_{line['kind']}", None)
        if handler is not None:
            await handler(line)

    async def _request(self, line: dict[str, Any]) -> None:
        body = line["body"]
        data = None
        if body is not None:
            text = body if isinstance(body, str) else json.dumps(body)
            data = self.translate(text).encode()
        dropped = {"Host", "Content-Length", "Connection"}
        headers = {k: self.translate(v) for k, v in line["headers"].items() if k not in dropped}
        response = await self._session.request(
            line["method"],
            self._base + self.translate(line["path"]),
            data=data,
            headers=headers,
            skip_auto_headers=["Content-Type", "Accept"],
            allow_redirects=False,
        )
        self._requests[line["id"]] = line
        if "stream" in line and response.status == 200:
            self._ids[_recorded_stream_id(line, self._lines)] = response.headers["Mesos-Stream-Id"]
            self._answers[line["id"]] = (200, "")
            self._streams[line["stream"]] = Stream(response)
            return
        self._answers[line["id"]] = (response.status, await response.text())

    async def _stream_open(self, line: dict[str, Any]) -> None:
        assert line["status_line"].split()[1] == str(self._answers[line["id"]][0])
        self.compared += 1

    async def _response(self, line: dict[str, Any]) -> None:
        request = self._requests[line["id"]]
        status, text = self._answers[line["id"]]
        what = f"{request['method']} {request['path']}: {request.get('why') or request['body']}"
        assert status == line["status"], what
        if isinstance(line["body"], str):
            assert text == self.translate(line["body"]), what
        else:
            recorded = json.loads(self.translate(json.dumps(line["body"])))
            _compare_frameworks(json.loads(text), recorded)
        self.compared += 1

    async def _event(self, line: dict[str, Any]) -> None:
        recorded = line["event"]
        if recorded["type"] in WITHOUT_STORY:
            return
        event = await asyncio.wait_for(self._streams[line["stream"]].next(), 10)
        assert event is not None
        if event["type"] == "SUBSCRIBED":
            theirs = recorded["subscribed"]["framework_id"]["value"]
            self._ids[theirs] = event["subscribed"]["framework_id"]["value"]
            assert _shape(event) == _shape(recorded)
        else:
            assert event == recorded
        self.compared += 1

    async def _stream_end(self, line: dict[str, Any]) -> None:
        stream = self._streams.pop(line["stream"], None)
        if stream is None or line["how"] != "last chunk (clean end)":
            return
        assert await asyncio.wait_for(stream.next(), 10) is None
        assert stream.clean_end
        self.compared += 1

    async def _client_closes_stream(self, line: dict[str, Any]) -> None:
        stream = self._streams.pop(line["stream"], None)
        if stream is None:
            return
        stream.close()
        async with asyncio.timeout(5):
            # The server must notice before the story goes on; it has no event for that to wait for.
            while self._is_connected(stream.id):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.005)

    def _is_connected(self, stream_id: str) -> bool:
        frameworks = self._cluster.master.frameworks.values()
        return any(f.stream is not None and f.stream.id == stream_id for f in frameworks)

    async def run(self, lines: Iterable[dict[str, Any]]) -> None:
        self._lines = list(lines)
        for line in self._lines:
            await self.step(line)


def _recorded_stream_id(request: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    opened = next(x for x in lines if x["kind"] == "stream_open" and x["id"] == request["id"])
    return dict(opened["headers"])["Mesos-Stream-Id"]


def _shape(value: Any) -> Any:
    """Return the structure of a document: names and types, without values."""
    if isinstance(value, dict):
        return {name: _shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return type(value).__name__


def _compare_frameworks(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    by_id = {framework["id"]: framework for framework in ours["frameworks"]}
    for recorded in theirs["frameworks"]:
        mine = by_id[recorded["id"]]
        assert mine.keys() == recorded.keys()
        for name in ("name", "user", "capabilities", "failover_timeout", "checkpoint", "active"):
            assert mine[name] == recorded[name]


def _lines(name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (RECORDINGS / name).read_text().splitlines()]
    end = next(
        (n for n, x in enumerate(lines) if x["kind"] == "note" and "authenticat" in x["text"]
         and x["text"].startswith("I:")),
        len(lines),
    )  # fmt: skip
    return lines[:end]


@pytest.mark.parametrize(
    ("recording", "comparisons"), [("01_subscribe.jsonl", 101), ("02_errors.jsonl", 149)]
)
async def test_every_request_is_answered_as_a_real_master_does(
    cluster: Cluster, recording: str, comparisons: int
) -> None:
    base = "http://{}:{}".format(*cluster.address)
    async with aiohttp.ClientSession() as session:
        replay = Replay(session, base, cluster)
        await replay.run(_lines(recording))
    assert replay.compared == comparisons
