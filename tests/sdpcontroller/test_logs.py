"""Log lines carry what they are about."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from sdpcontroller import logs


@pytest.fixture(autouse=True)
def root_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_marks_go_with_the_work_and_with_what_it_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.set_up("info", "json")
    logger = logging.getLogger("test")

    async def work(block: str) -> None:
        with logs.about(capture_block=block):
            await asyncio.sleep(0)
            logger.info("in\nblock")

    with logs.about(product="array_1"):
        async with asyncio.TaskGroup() as group:
            group.create_task(work("1"))
            group.create_task(work("2"))
        logger.warning("of %s", "one", extra={"task": "ingest.0"})
    logger.error("outside")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(m.get("product"), m.get("capture_block"), m.get("task")) for m in lines] == [
        ("array_1", "1", None),
        ("array_1", "2", None),
        ("array_1", None, "ingest.0"),
        (None, None, None),
    ]
    assert lines[0]["message"] == "in\nblock"
    assert lines[2] | {"time": ""} == {
        "time": "",
        "level": "warning",
        "logger": "test",
        "message": "of one",
        "product": "array_1",
        "task": "ingest.0",
    }


def test_text_says_it_in_front_and_exceptions_come_along(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.set_up("info")
    with logs.about(product="p", capture_block="7"):
        logging.getLogger("test").info("hello")
    assert "INFO test: [p 7] hello" in capsys.readouterr().err
    logs.set_up("info", "json")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("test").exception("failed")
    line = json.loads(capsys.readouterr().err)
    assert "ValueError: why" in line["exception"]


def test_the_schedulers_graph_is_a_field_of_json_only(capsys: pytest.CaptureFixture[str]) -> None:
    marks = {"task": "ingest.0", "graph": "array_1-7"}
    for form in ("text", "json"):
        logs.set_up("info", form)
        logging.getLogger("test").info("ready", extra=marks)
    text, line = capsys.readouterr().err.splitlines()
    assert "[ingest.0] ready" in text and "array_1-7" not in text
    assert {k: v for k, v in json.loads(line).items() if k in marks} == marks
