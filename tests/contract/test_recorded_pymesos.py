"""What pymesos 0.3.15 sent through a recording proxy, and what a real master answered to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.embedded_scene import EmbeddedScene
from tests.contract.recording import FOLDER, MISSING, Line, Recording, load
from tests.contract.replay import Replay
from tests.contract.story import Story

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=MISSING)

COMPARED = 26
"""How many answers are compared."""


def conversation(recording: Recording) -> Iterator[Line]:
    """Yield the calls of the first act, up to where connections are cut, and their answers."""
    waiting: dict[int, list[int]] = {}
    for line in recording.lines:
        if line.kind == "note" and line["text"].startswith("B:"):
            return
        if line.kind == "process":
            yield line
        elif line.kind == "proxy_request":
            method, path, _ = line["request_line"].split()
            call: dict[str, Any] = {"id": line.number, "method": method, "path": path}
            kind = {"Content-Type": "application/json", "Accept": "application/json"}
            call |= {"headers": kind, "body": line["body"] or None}
            if isinstance(line["body"], dict) and line["body"]["type"] == "SUBSCRIBE":
                call["stream"] = "pymesos"
                head = {"id": line.number, "stream": "pymesos", "headers": []}
                yield Line(line.number, line.time, "request", call)
                status = {"status_line": "HTTP/1.1 200 OK"}
                yield Line(line.number, line.time, "stream_open", head | status)
                continue
            waiting.setdefault(line["conn"], []).append(line.number)
            yield Line(line.number, line.time, "request", call)
        elif line.kind == "proxy_response":
            status_code = int(line["head"].split()[1])
            answer = {"id": waiting[line["conn"]].pop(0), "status": status_code}
            yield Line(line.number, line.time, "response", answer | {"body": line["body"]})


async def test_every_call_of_pymesos_is_answered_as_a_real_master_does(tmp_path: Path) -> None:
    recording = load("12_pymesos")
    story = Story(replace(recording, lines=tuple(conversation(recording))))
    replay = Replay(story, EmbeddedScene(story, tmp_path))
    recorded = next(
        line["body"]["framework_id"]["value"]
        for line in story.recording.lines
        if line.kind == "request" and isinstance(line["body"], dict) and "accept" in line["body"]
    )
    replay.subscribed = lambda framework_id, stream_id: (
        story.names.learn(recorded, framework_id),
        replay.extra_headers.update({"Mesos-Stream-Id": stream_id}),
    )
    await replay.run()
    answers = [d for d in story.differences if d.what.startswith("/") and "build_" not in d.what]
    assert not answers, "\n".join(map(str, answers))
    assert story.compared == COMPARED
