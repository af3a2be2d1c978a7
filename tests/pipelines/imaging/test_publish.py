"""What an image is worth, in the data queue of quality assessment."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from typing import Any

import pytest

from pipelines.common import quality as queue
from pipelines.common.endpoints import parse_endpoint
from pipelines.imaging.cube_quality import CubeQuality
from pipelines.imaging.publish import publish
from pipelines.imaging.quality import Quality


def quality(kind: type[Quality] | type[CubeQuality] = Quality) -> Quality | CubeQuality:
    values: dict[str, Any] = {field.name: 3 for field in dataclasses.fields(kind)}
    words = {"target": "a field", "capture_block_id": "1700000000", "dynamic_range": math.inf}
    return kind(**(values | words | {"peak": 1.5e-4}))


@pytest.mark.parametrize("kind", [Quality, CubeQuality])
def test_a_record_has_the_figures(
    redis_server: Any, kind: type[Quality] | type[CubeQuality]
) -> None:
    endpoint = parse_endpoint(redis_server.endpoint)
    publish(quality(kind), "imager.image.1700000000.0", endpoint)

    async def read() -> list[bytes]:
        async with queue.connect(endpoint) as connected:
            return (await connected.read())[1]

    (document,) = asyncio.run(read())
    record = queue.parse_record(document)
    assert (record.stage, record.target, record.capture_block) == (
        "imaging",
        "a field",
        "1700000000",
    )
    assert len(record.metrics) == len(kind.FIGURES)
    assert record.metrics["peak"] == queue.Metric(value=1.5e-4, units="Jy/beam")
    assert record.metrics["dynamic-range"].value is None


def test_a_queue_that_went_with_its_product_is_no_failure(
    unused_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        publish(quality(), "imager", parse_endpoint(f"127.0.0.1:{unused_port}"))
    assert "takes no record" in caplog.text
