"""An image's figures as a record in the data queue of quality assessment."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from typing import Final

from pipelines.common import quality as queue
from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import StreamError
from pipelines.imaging.quality import Quality

logger = logging.getLogger(__name__)

STAGE: Final = "imaging"
FIGURES: Final[Mapping[str, str]] = {
    "rms": "Jy/beam",
    "peak": "Jy/beam",
    "residual_peak": "Jy/beam",
    "dynamic_range": "",
    "signal_to_noise": "",
    "flagged_fraction": "",
    "clean_flux": "Jy",
    "sources": "",
    "cpu_seconds": "s",
}
"""What is told, with its units."""


def record_of(quality: Quality, task: str) -> queue.QualityRecord:
    """Return what there is to say of an image."""
    metrics = {}
    for name, units in FIGURES.items():
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


def publish(quality: Quality, task: str, endpoint: Endpoint) -> None:
    """Put an image's figures into the queue; a queue that is not there any more costs the record only.

    A batch outlives its product, and the queue goes with the product.
    """
    try:
        asyncio.run(_publish(record_of(quality, task), endpoint))
    except StreamError as exc:
        logger.warning("%s", exc)


async def _publish(record: queue.QualityRecord, endpoint: Endpoint) -> None:
    async with queue.connect(endpoint) as connected:
        await connected.publish(record)
