"""The data queue of quality assessment, in a real Redis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiokatcp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.common import quality
from pipelines.common.endpoints import parse_endpoint
from pipelines.common.errors import StreamError
from pipelines.common.quality import Metric, QualityRecord, Reporter, metrics_of, parse_record

SCHEMA = Path(__file__).parents[3] / "docs/reference/quality.schema.json"


def record(**changes: Any) -> QualityRecord:
    values: dict[str, Any] = {
        "time": 1.0,
        "task": "cal.cal",
        "stage": "calibration",
        "capture_block": "1700000000",
        "metrics": {"phase-rms": Metric(value=0.1, units="rad")},
    }
    return QualityRecord(**(values | changes))


def test_the_documented_schema_is_the_one_that_is_used() -> None:
    """To renew: write `json.dumps(QualityRecord.model_json_schema(), indent=2)` and a newline there."""
    assert json.loads(SCHEMA.read_text()) == QualityRecord.model_json_schema()


@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True),
        st.builds(
            Metric,
            value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
            units=st.text(max_size=8),
            status=st.sampled_from(["nominal", "warn", "error", "unknown"]),
        ),
        max_size=5,
    )
)
def test_what_is_written_is_what_is_read(metrics: dict[str, Metric]) -> None:
    written = record(metrics=metrics)
    assert parse_record(written.model_dump_json().encode()) == written


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'{"version": 2}',
        record().model_dump_json().replace("0.1", "NaN").encode(),
        record().model_dump_json().replace("1700000000", "17; rm").encode(),
        json.dumps(record().model_dump() | {"more": 1}).encode(),
        b'"' + b"x" * quality.MAX_DOCUMENT + b'"',
    ],
)
def test_what_is_no_record_is_refused(document: bytes) -> None:
    with pytest.raises(StreamError, match="quality record"):
        parse_record(document)


async def test_records_come_in_order_and_are_read_once(redis_server: Any) -> None:
    async with quality.connect(parse_endpoint(redis_server.endpoint)) as queue:
        assert await queue.read() == ("0", [])
        for number in range(3):
            await queue.publish(record(time=number))
        last, documents = await queue.read(count=2)
        assert [parse_record(d).time for d in documents] == [0, 1]
        last, documents = await queue.read(last, block=0.01)
        assert [parse_record(d).time for d in documents] == [2]
        assert (await queue.read(last, block=0.01))[1] == []


async def test_a_queue_that_is_not_there_costs_records_only(unused_port: int) -> None:
    async with quality.connect(parse_endpoint(f"127.0.0.1:{unused_port}")) as queue:
        with pytest.raises(StreamError, match="takes no record"):
            await queue.publish(record())
        with pytest.raises(StreamError, match="does not answer"):
            await queue.read()
        sensors = aiokatcp.SensorSet()
        sensors.add(aiokatcp.Sensor(str, "capture-block-id", "", default="17"))
        await Reporter(queue, sensors, (), task="t", stage="s", stream="").step()


class _Queue:
    def __init__(self) -> None:
        self.records: list[QualityRecord] = []

    async def publish(self, record: QualityRecord) -> None:
        self.records.append(record)


async def test_a_program_reports_during_a_block_and_once_after_it() -> None:
    sensors, queue = aiokatcp.SensorSet(), _Queue()
    block: aiokatcp.Sensor[str] = aiokatcp.Sensor(str, "capture-block-id", "")
    lost: aiokatcp.Sensor[int] = aiokatcp.Sensor(int, "lost", "", default=0)
    for sensor in (block, lost):
        sensors.add(sensor)
    reporter = Reporter(queue, sensors, ["lost"], task="t", stage="s", stream="l0")  # type: ignore[arg-type]
    await reporter.step()
    block.value, lost.value = "17", 0
    await reporter.step()
    lost.set_value(3, status=aiokatcp.Sensor.Status.WARN)
    block.value = ""
    await reporter.step()
    await reporter.step()
    assert [(r.capture_block, r.status) for r in queue.records] == [
        ("17", "nominal"),
        ("17", "warn"),
    ]
    assert queue.records[1].metrics["lost"] == Metric(value=3, status="warn")


def test_sensors_without_a_number_have_no_value() -> None:
    unknown: aiokatcp.Sensor[float] = aiokatcp.Sensor(float, "a", "", "rad")
    nan: aiokatcp.Sensor[float] = aiokatcp.Sensor(float, "b", "")
    nan.value = float("nan")
    text: aiokatcp.Sensor[str] = aiokatcp.Sensor(str, "c", "")
    text.value = "x"
    assert metrics_of([unknown, nan, text]) == {
        "a": Metric(value=None, units="rad", status="unknown"),
        "b": Metric(value=None),
        "c": Metric(value=None),
    }
