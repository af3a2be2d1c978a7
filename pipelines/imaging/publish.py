"""The figures of an image or a cube as a record in the data queue of quality assessment."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from typing import ClassVar, Final, Protocol

from pipelines.common import quality as queue
from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import StreamError

logger = logging.getLogger(__name__)

STAGE: Final = "imaging"


class Report(Protocol):
    """A quality report, of an image or of a cube."""

    FIGURES: ClassVar[Mapping[str, str]]
    """Which of its attributes are told, with their units."""

    @property
    def target(self) -> str:
        """What was observed."""

    @property
    def capture_block_id(self) -> str:
        """When."""


def record_of(quality: Report, task: str) -> queue.QualityRecord:
    """Return what there is to say of an image or a cube."""
    metrics = {}
    for name, units in quality.FIGURES.items():
        value = float(getattr(quality, name))
        known = value if math.isfinite(value) else None
        metrics[name.replace("_", "-")] = queue.Metric(value=known, units=units)
    return queue.QualityRecord(
        time=time.time(),
        task=task,
        stage=STAGE,
        capture_block=quality.capture_block_id,
        target=quality.target[:200],
        metrics=metrics,
    )


def publish(quality: Report, task: str, endpoint: Endpoint) -> None:
    """Put the figures into the queue; a queue that is not there any more costs the record only.

    A batch outlives its product, and the queue goes with the product.
    """
    try:
        asyncio.run(_publish(record_of(quality, task), endpoint))
    except StreamError as exc:
        logger.warning("%s", exc)


async def _publish(record: queue.QualityRecord, endpoint: Endpoint) -> None:
    async with queue.connect(endpoint) as connected:
        await connected.publish(record)
