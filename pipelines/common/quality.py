"""The data queue of quality assessment: what every stage says of how its work goes.

A record is one JSON document (:class:`QualityRecord`; its schema is ``docs/reference/quality.schema.json``) in
a Redis stream beside the telescope state, in a database of its own, so that it is no part of what is archived.
Whoever wants to know reads the stream; ``pipelines.quality`` keeps the picture of a product.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal

import aiokatcp
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pipelines.common.cancellation import going_on
from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import StreamError

logger = logging.getLogger(__name__)

DATABASE: Final = 1
"""Redis database of the queue; telescope state is in 0."""
STREAM: Final = "quality"
"""Key of the Redis stream."""
FIELD: Final = "record"
"""Field of each of its entries that holds the document."""
MAX_RECORDS: Final = 20_000
"""Entries that the stream keeps, the newest."""
MAX_DOCUMENT: Final = 64 * 1024
"""Bytes of a record that are read."""
PERIOD: Final = 5.0
"""Seconds between two records of a program, while a capture block is on."""
TIMEOUT: Final = 5.0
"""Seconds in which the queue must take a record."""

Status = Literal["nominal", "warn", "error", "unknown"]
_Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:@\[\]-]+$")]

_STATUS: Final[dict[aiokatcp.Sensor.Status, Status]] = {
    aiokatcp.Sensor.Status.NOMINAL: "nominal",
    aiokatcp.Sensor.Status.WARN: "warn",
    aiokatcp.Sensor.Status.ERROR: "error",
    aiokatcp.Sensor.Status.FAILURE: "error",
}


class Metric(BaseModel):
    """One figure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float | None = Field(description="The figure; null where there is none.")
    units: str = Field("", max_length=40, description="Its unit.")
    status: Status = Field("nominal", description="Whether it is as it should be.")


class QualityRecord(BaseModel):
    """What one program says at one time."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = Field(1, description="Version of this schema.")
    time: float = Field(ge=0, description="Unix time of the record [s].")
    task: _Name = Field(description="Name of the task that says it.")
    stage: _Name = Field(
        description="ingest, calibration, flags, writer, metadata, display or imaging."
    )
    stream: str = Field("", max_length=200, description="Stream that it is about.")
    capture_block: str = Field(
        "", pattern=r"^[0-9]{0,15}$", description="Capture block that it is about; empty if none."
    )
    target: str = Field("", max_length=200, description="Target that it is about, if one.")
    metrics: dict[_Name, Metric] = Field(max_length=200, description="Figures by name.")

    @property
    def status(self) -> Status:
        """The worst of the metrics' statuses."""
        found = {metric.status for metric in self.metrics.values()}
        return next((s for s in ("error", "warn", "unknown") if s in found), "nominal")


def parse_record(document: bytes) -> QualityRecord:
    """Read a record that came from outside.

    Raises
    ------
    StreamError
        It is too long or not of the schema.
    """
    if len(document) > MAX_DOCUMENT:
        raise StreamError(f"a quality record of {len(document)} bytes: at most {MAX_DOCUMENT}")
    try:
        return QualityRecord.model_validate_json(document)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StreamError(f"no quality record: {where}: {first['msg']}") from None


class QualityQueue:
    """A connection to the queue; an asynchronous context manager."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def publish(self, record: QualityRecord) -> None:
        """Append a record.

        Raises
        ------
        StreamError
            The server does not take it.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._redis.xadd(
                    STREAM, {FIELD: record.model_dump_json()}, maxlen=MAX_RECORDS, approximate=True
                )
        except (OSError, RedisError, TimeoutError) as exc:
            raise StreamError(f"the quality queue takes no record: {exc}") from exc

    async def read(
        self, last: str = "0", *, block: float | None = None, count: int = 500
    ) -> tuple[str, list[bytes]]:
        """Read what came after an entry.

        Parameters
        ----------
        last
            Id of the last entry that was read; ``0`` for the oldest there is.
        block
            Seconds to wait for an entry where there is none; None: not at all.

        Returns
        -------
        last, documents
            The id to go on from, and the records as they came.

        Raises
        ------
        StreamError
            The server does not answer.
        """
        wait = None if block is None else max(1, round(block * 1000))
        try:
            answer: Any = await self._redis.xread({STREAM: last}, count=count, block=wait)
        except (OSError, RedisError) as exc:
            raise StreamError(f"the quality queue does not answer: {exc}") from exc
        documents = []
        for _, entries in answer or ():
            for entry, fields in entries:
                last = entry.decode()
                documents.append(fields.get(FIELD.encode(), b""))
        return last, documents


@asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[QualityQueue]:
    """Open the queue beside a telescope state; connects with the first record."""
    redis = Redis(
        host=endpoint.host, port=endpoint.port, db=DATABASE, socket_connect_timeout=TIMEOUT
    )
    try:
        yield QualityQueue(redis)
    finally:
        await redis.aclose()


def metrics_of(sensors: Iterable[aiokatcp.Sensor[Any]]) -> dict[str, Metric]:
    """Return sensors as metrics; what is no finite number has no value."""
    metrics = {}
    for sensor in sensors:
        reading = sensor.reading
        status = _STATUS.get(reading.status, "unknown")
        known = status != "unknown" and isinstance(reading.value, int | float)
        value = float(reading.value) if known else math.nan
        metrics[sensor.name] = Metric(
            value=value if math.isfinite(value) else None, units=sensor.units, status=status
        )
    return metrics


class Reporter:
    """Puts a program's own sensors into the queue: while a capture block is on, and once at its end.

    A queue that does not answer costs nothing but the records: it is told in the log once.

    Parameters
    ----------
    sensors
        The program's; ``capture-block-id`` says what block is on.
    names
        Those that are reported.
    task, stage, stream
        Of the records.
    """

    def __init__(
        self,
        queue: QualityQueue,
        sensors: aiokatcp.SensorSet,
        names: Iterable[str],
        *,
        task: str,
        stage: str,
        stream: str,
    ) -> None:
        self._queue = queue
        self._sensors = sensors
        self._names = tuple(names)
        self._about = {"task": task, "stage": stage, "stream": stream}
        self._block = ""
        self._silent = False

    async def run(self) -> None:
        """Report until cancelled."""
        await self.step()
        while going_on():
            await asyncio.sleep(PERIOD)
            await self.step()

    async def step(self) -> None:
        """Report if there is something to report."""
        block = self._sensors["capture-block-id"].value
        about, self._block = block or self._block, block
        if not about:
            return
        record = QualityRecord(
            time=time.time(),
            capture_block=about,
            metrics=metrics_of(self._sensors[name] for name in self._names),
            **self._about,
        )
        try:
            await self._queue.publish(record)
            self._silent = False
        except StreamError as exc:
            if not self._silent:
                logger.warning("%s", exc)
            self._silent = True
