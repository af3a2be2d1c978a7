"""Writing reports beside everything else that a calibration does."""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from pathlib import Path

import aiokatcp

from pipelines.calibration.report.record import BlockRecord

logger = logging.getLogger(__name__)


class ReportWriter:
    """Writes the reports of capture blocks, one at a time, in a thread.

    Parameters
    ----------
    root
        The data volume; None: no reports are written.
    sensor
        Is told the file of the newest report; an error status says that it could not be written.
    """

    def __init__(self, root: Path | None, sensor: aiokatcp.Sensor[str]) -> None:
        self._root = root
        self._sensor = sensor
        self._tasks: set[asyncio.Task[None]] = set()
        self._drawing = asyncio.Lock()

    def start(self, record: BlockRecord) -> None:
        """Have a report written; nobody has to wait for it."""
        if self._root is not None:
            task = asyncio.create_task(self._write(self._root, record))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for all that were started."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _write(self, root: Path, record: BlockRecord) -> None:
        async with self._drawing:
            try:
                path = await asyncio.to_thread(_write, root, record)
            except Exception as exc:
                # Whatever a plot stumbles over, the solutions are written: the observation goes on.
                logger.exception("no report of capture block %s", record.cbid)
                self._sensor.set_value(str(exc)[:200], status=aiokatcp.Sensor.Status.ERROR)
                return
        self._sensor.value = str(path)
        logger.info("report of capture block %s: %s", record.cbid, path)


def _write(root: Path, record: BlockRecord) -> Path:
    # Imported by the first who needs it: matplotlib takes a second, and memory.
    page = import_module("pipelines.calibration.report.page")
    path: Path = page.write_report(root, record)
    return path
