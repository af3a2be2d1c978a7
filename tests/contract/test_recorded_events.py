"""What a real master sent to its frameworks, read by ours: however it is cut, and whatever it means."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from scheduler.framework import (
    AgentLost,
    AskedToLeave,
    Framework,
    FrameworkSettings,
    LinkEvent,
    Offered,
    Rescinded,
    Updated,
)
from tests.conftest import PATIENCE
from tests.contract.recording import FOLDER, MISSING, load
from tests.scheduler.wire import Link, leading

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=MISSING)

KINDS: dict[str, type[LinkEvent]] = {
    "OFFERS": Offered,
    "RESCIND": Rescinded,
    "UPDATE": Updated,
    "FAILURE": AgentLost,
    "INVERSE_OFFERS": AskedToLeave,
}
NEVER_TOLD = ("HEARTBEAT",)
LEAST = 1200
"""How many events of these kinds there are at least: a recording that is read wrong has none."""


def sent() -> Iterator[Mapping[str, Any]]:
    """Yield the events of all scenes that a framework may get while it is subscribed."""
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in load(path.stem).lines:
            if line.kind == "event" and line["event"].get("type") in (*KINDS, *NEVER_TOLD):
                yield line["event"]


def pieces(events: list[Mapping[str, Any]], seed: int) -> Iterator[bytes]:
    """Yield chunks of HTTP with records of the events in them, cut anywhere."""
    records = b"".join(
        b"%d\n%s" % (len(text), text) for event in events for text in [json.dumps(event).encode()]
    )
    chance, begin = random.Random(seed), 0
    while begin < len(records):
        size = chance.choice((1, 2, 3, 100, 5000, 60_000))
        piece = records[begin : begin + size]
        begin += size
        yield b"%x\r\n%s\r\n" % (len(piece), piece)


async def test_every_event_of_a_real_master_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """None is malformed to us, of unknown kind, lost or out of order."""
    caplog.set_level(logging.WARNING, "scheduler")
    events = list(sent())
    expected = [event for event in events if event["type"] in KINDS]
    expected = [e for e in expected if "executor_id" not in e.get("failure", {})]
    assert len(expected) > LEAST
    told: list[LinkEvent] = []
    async with leading() as master, asyncio.timeout(PATIENCE):
        framework = Framework(FrameworkSettings(master=master.address, name="test", user="root"))
        await framework.start()
        link = Link(framework)
        await link.up()
        for piece in pieces(events, seed=1):
            master.streams[-1].write(piece)
            await master.streams[-1].drain()
        async for event in link.events:
            told.append(event)
            if len(told) == len(expected):
                break
        await framework.stop(teardown=False)
    assert [type(event) for event in told] == [KINDS[event["type"]] for event in expected]
    for event, original in zip(told, expected, strict=True):
        if isinstance(event, Updated):
            status = original["update"]["status"]
            assert event.status.task_id == status["task_id"]["value"]
            assert event.status.state == status["state"]
            assert event.status.uuid == status.get("uuid")
        elif isinstance(event, Offered):
            assert list(event.offers) == original["offers"]["offers"]
    assert len(master.subscriptions) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
