"""The aggregator's KATCP server: it follows the queue and shows the picture as sensors."""

from __future__ import annotations

import argparse
import asyncio
import enum
import json
import logging
from typing import Final

import aiokatcp

from pipelines.common.cancellation import going_on
from pipelines.common.errors import StreamError
from pipelines.common.program import ProgramServer
from pipelines.common.quality import QualityQueue, Status, parse_record
from pipelines.quality.picture import Picture

logger = logging.getLogger(__name__)

_WAIT: Final = 1.0
"""Seconds of one look at the queue."""
_PAUSE: Final = 1.0
"""Seconds after a failed one."""


class Quality(enum.Enum):
    """Status of a capture block."""

    NOMINAL = "nominal"
    WARN = "warn"
    ERROR = "error"
    UNKNOWN = "unknown"


_SENSOR_STATUS: Final[dict[Status, aiokatcp.Sensor.Status]] = {
    "nominal": aiokatcp.Sensor.Status.NOMINAL,
    "unknown": aiokatcp.Sensor.Status.NOMINAL,
    "warn": aiokatcp.Sensor.Status.WARN,
    "error": aiokatcp.Sensor.Status.ERROR,
}


class QualityServer(ProgramServer):
    """Keeps the picture of a product."""

    def __init__(self, options: argparse.Namespace, queue: QualityQueue) -> None:
        super().__init__(options)
        self._queue = queue
        self.picture = Picture()
        self._block = self.add_sensor(
            str, "capture-block-id", "Newest capture block; empty if none"
        )
        self._status = self.add_sensor(
            Quality, "quality", "Worst that any stage says of the newest capture block"
        )
        self._complaints = self.add_sensor(
            str, "complaints", "What is not as it should be in it, a JSON list"
        )
        self._picture = self.add_sensor(str, "picture", "All figures of it, a JSON document")
        self._records = self.add_sensor(int, "records", "Records read")
        self._rejected = self.add_sensor(
            int, "records-rejected", "Records that are not of the schema"
        )

    async def start(self) -> None:
        """Follow the queue from its beginning: a restarted aggregator knows what the one before knew."""
        await super().start()
        self.add_service_task(asyncio.create_task(self._follow()))

    async def _follow(self) -> None:
        last, silent = "0", False
        while going_on():
            try:
                last, documents = await self._queue.read(last, block=_WAIT)
                silent = False
            except StreamError as exc:
                if not silent:
                    logger.warning("%s", exc)
                silent = True
                await asyncio.sleep(_PAUSE)
                continue
            if documents:
                self.take(documents)

    def take(self, documents: list[bytes]) -> None:
        """Take records into the picture and show it."""
        for document in documents:
            try:
                self.picture = self.picture.with_record(parse_record(document))
                self._records.value += 1
            except StreamError as exc:
                logger.warning("%s", exc)
                self._rejected.set_value(
                    self._rejected.value + 1, status=aiokatcp.Sensor.Status.WARN
                )
        block = self.picture.newest
        status = self.picture.status(block)
        self._block.value = block
        self._status.set_value(Quality(status), status=_SENSOR_STATUS[status])
        self._complaints.value = json.dumps(self.picture.complaints(block))
        self._picture.value = json.dumps(self.picture.as_data(block))
