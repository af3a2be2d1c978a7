"""The picture of a product, and the program that keeps it."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import aiokatcp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.common import quality
from pipelines.common.endpoints import parse_endpoint
from pipelines.common.quality import Metric, QualityRecord
from pipelines.quality import server as quality_server
from pipelines.quality.picture import MAX_BLOCKS, Picture
from pipelines.quality.server import Quality, QualityServer
from tests.conftest import PATIENCE
from tests.pipelines.cancelling import ends_whenever_it_is_cancelled

records = st.builds(
    QualityRecord,
    time=st.integers(0, 20).map(float),
    task=st.sampled_from(["ingest.0", "cal.cal", "vis_writer.l0"]),
    stage=st.sampled_from(["ingest", "calibration"]),
    target=st.sampled_from(["", "J0408-6545"]),
    capture_block=st.integers(1, 30).map(str),
    metrics=st.dictionaries(
        st.sampled_from(["lost", "rms"]),
        st.builds(
            Metric,
            value=st.floats(0, 10),
            status=st.sampled_from(["nominal", "warn", "error", "unknown"]),
        ),
        min_size=1,
    ),
)


@given(st.lists(records, max_size=60))
def test_it_has_the_newest_word_of_each_task_on_the_newest_blocks(
    said: list[QualityRecord],
) -> None:
    picture = Picture()
    expected: dict[str, dict[tuple[str, str], QualityRecord]] = {}
    for record in said:
        picture = picture.with_record(record)
        block = expected.setdefault(record.capture_block, {})
        old = block.get((record.task, record.target))
        if old is None or old.time <= record.time:
            block[record.task, record.target] = record
        expected = dict(sorted(expected.items(), key=lambda item: int(item[0]))[-MAX_BLOCKS:])
    assert {block: dict(known) for block, known in picture.blocks.items()} == expected
    for block, known in expected.items():
        statuses = [m.status for record in known.values() for m in record.metrics.values()]
        bad = [status for status in statuses if status in ("warn", "error")]
        assert len(picture.complaints(block)) == len(bad)
        if "error" in statuses:
            assert picture.status(block) == "error"
        elif "warn" in statuses:
            assert picture.status(block) == "warn"


async def test_the_program_follows_the_queue_and_survives_nonsense(redis_server: Any) -> None:
    async with quality.connect(parse_endpoint(redis_server.endpoint)) as queue:
        first = QualityRecord(
            time=1,
            task="ingest.0",
            stage="ingest",
            capture_block="17",
            metrics={"lost": Metric(value=0)},
        )
        await queue.publish(first)
        options = argparse.Namespace(host="127.0.0.1", port=0)
        server = QualityServer(options, queue)
        known = asyncio.Event()
        server.sensors["records"].attach(lambda s, r: known.set() if r.value == 2 else None)
        await server.start()
        await queue._redis.xadd(quality.STREAM, {quality.FIELD: "nonsense"})
        metrics = {"lost": Metric(value=3, status="warn")}
        await queue.publish(first.model_copy(update={"time": 2.0, "metrics": metrics}))
        async with asyncio.timeout(PATIENCE):
            await known.wait()
            await asyncio.sleep(0)
        assert server.sensors["records-rejected"].value == 1
        assert server.sensors["capture-block-id"].value == "17"
        assert server.sensors["quality"].value is Quality.WARN
        (complaint,) = json.loads(server.sensors["complaints"].value)
        assert complaint == "ingest.0: lost is 3 (warn)"
        picture = json.loads(server.sensors["picture"].value)
        assert picture["stages"]["ingest"]["ingest.0"]["metrics"]["lost"]["value"] == 3
        await server.stop()


async def test_the_program_ends_whenever_it_is_told_to(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_server, "_WAIT", 0.001)
    async with quality.connect(parse_endpoint(redis_server.endpoint)) as queue:
        following = QualityServer(argparse.Namespace(host="127.0.0.1", port=0), queue)
        await ends_whenever_it_is_cancelled(following._follow)


async def test_a_reporter_ends_whenever_it_is_told_to(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "PERIOD", 0.0)
    async with quality.connect(parse_endpoint(redis_server.endpoint)) as queue:
        block: aiokatcp.Sensor[Any] = aiokatcp.Sensor(str, "capture-block-id", "", default="17")
        sensors = aiokatcp.SensorSet()
        sensors.add(block)
        reporter = quality.Reporter(queue, sensors, (), task="t", stage="ingest", stream="l0")
        await ends_whenever_it_is_cancelled(reporter.run)
