"""The metadata writer's KATCP server: telescope state of each capture block to files beside its data."""

# No postponed annotations here: aiokatcp reads those of request handlers to decode arguments.

import argparse
import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiokatcp
from katsdptelstate.aio.telescope_state import TelescopeState
from redis.exceptions import RedisError

from pipelines.common.cancellation import going_on
from pipelines.common.dataset_files import OF_BLOCK, lite_rdb_path, rdb_path
from pipelines.common.errors import PipelineError
from pipelines.common.program import ProgramServer, check_capture_block_id
from pipelines.metadata.chunks import chunks_so_far
from pipelines.metadata.rdb import write_rdb

logger = logging.getLogger(__name__)

DEFAULT_PERIOD: Final = 60.0
"""Seconds between files of a block that goes on."""


class MetadataError(PipelineError):
    """Telescope state could not be written to a file."""


class MetadataServer(ProgramServer):
    """Writes telescope state for every capture block and stream.

    While a block goes on there is a *lite* file, made at its beginning and every `period` seconds: it opens
    what has been written so far, whatever becomes of the product. At the end the data set's own file takes its
    place. What could not be written (the disk was full, the program was not there) is tried again every
    `period` seconds, and when the program starts, as long as telescope state is there to be written.

    Parameters
    ----------
    streams
        Visibility streams that have a data set each.
    root
        The data volume.
    """

    STAGE = "metadata"
    QUALITY = ("keys-written", "files-written", "write-failures", "files-owed")

    def __init__(
        self,
        options: argparse.Namespace,
        telstate: TelescopeState,
        streams: Sequence[str],
        root: Path,
        *,
        period: float = DEFAULT_PERIOD,
    ) -> None:
        super().__init__(options)
        self._telstate = telstate
        self._streams = tuple(streams)
        self._root = root
        self._period = period
        # One file at a time, for memory's sake.
        self._writing = asyncio.Lock()
        self._block = self.add_sensor(str, "capture-block-id", "Capture block; empty if none")
        self._files = self.add_sensor(int, "files-written", "Files written, lite ones included")
        self._keys = self.add_sensor(int, "keys-written", "Keys in the last file")
        self._when = self.add_sensor(float, "last-written", "Unix time of the last file", units="s")
        self._failures = self.add_sensor(
            int, "write-failures", "Files that could not be written", warn_above=0
        )
        self._ending: asyncio.Task[list[str]] | None = None
        self._owed: set[tuple[str, str]] = set()
        """Blocks that are over and streams whose files are not written."""
        self._owed_sensor = self.add_sensor(
            int, "files-owed", "Files of blocks that are over and not written yet", warn_above=0
        )

    async def start(self) -> None:
        """Write what an earlier run left undone, then listen."""
        await self._write_owed()
        await super().start()
        self.add_service_task(asyncio.create_task(self._keep_writing()))

    async def request_capture_init(self, ctx: aiokatcp.RequestContext, cbid: str) -> None:
        """Begin a capture block, with files that open what there is of it: capture-init CBID."""
        check_capture_block_id(cbid)
        if self._block.value:
            raise aiokatcp.FailReply(f"capture block {self._block.value} is on: capture-done first")
        for stream in self._streams:
            if rdb_path(self._root, cbid, stream).exists():
                raise aiokatcp.FailReply(f"capture block {cbid} is in {self._root} already")
        self._block.value = cbid
        self.set_device_status(aiokatcp.DeviceStatus.OK, f"capture block {cbid} starts")
        await self._write_lite(cbid)

    async def request_capture_done(self, ctx: aiokatcp.RequestContext) -> None:
        """End the capture block: write the files that open its data sets."""
        cbid = self._block.value
        if not cbid:
            raise aiokatcp.FailReply("no capture block is on")
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(cbid), name=f"end of {cbid}")
        # The files are written though the client that asked has gone; whoever asks again waits for them.
        _check(await asyncio.shield(self._ending))

    async def _end(self, cbid: str) -> list[str]:
        try:
            return await self._write_finals(cbid)
        finally:
            self._block.value = ""
            self._ending = None

    async def request_write_meta(self, ctx: aiokatcp.RequestContext, cbid: str) -> int:
        """Write the files of a block that is over, again if they are there: write-meta CBID.

        Returns
        -------
        keys
            Number of keys in the last of them.
        """
        check_capture_block_id(cbid)
        if cbid == self._block.value:
            raise aiokatcp.FailReply(f"capture block {cbid} is on: capture-done writes its files")
        _check(await self._write_finals(cbid))
        return int(self._keys.value)

    async def on_stop(self) -> None:
        """Leave files of the block that is on: its own if its data are complete, else lite ones."""
        if self._ending is not None:
            await asyncio.wait({self._ending})
        cbid, self._block.value = self._block.value, ""
        if cbid:
            logger.warning("stopped in capture block %s", cbid)
            await self._write_lite(cbid)
        await self._write_owed()

    async def _keep_writing(self) -> None:
        while going_on():
            await asyncio.sleep(self._period)
            if self._block.value and self._ending is None:
                await self._write_lite(self._block.value)
            await self._write_owed()

    async def _write_lite(self, cbid: str) -> None:
        """Write the lite files of a block; where they cannot be written that is told, and no more."""
        for stream in self._streams:
            try:
                await self._write(cbid, stream, lite_rdb_path(self._root, cbid, stream))
            except MetadataError as exc:
                self.set_device_status(aiokatcp.DeviceStatus.DEGRADED, str(exc))

    async def _write_finals(self, cbid: str) -> list[str]:
        """Write the files of a block that is over; return what could not be written, and why."""
        return [
            failure for stream in self._streams if (failure := await self._try_final(cbid, stream))
        ]

    async def _try_final(self, cbid: str, stream: str) -> str:
        """Write a data set's own file in the place of its lite one; return why not, if not."""
        try:
            await self._write(cbid, stream, rdb_path(self._root, cbid, stream))
        except MetadataError as exc:
            failure = str(exc)
            self._owed.add((cbid, stream))
            self.set_device_status(aiokatcp.DeviceStatus.FAIL, failure)
        else:
            failure = ""
            self._owed.discard((cbid, stream))
            lite_rdb_path(self._root, cbid, stream).unlink(missing_ok=True)
        self._owed_sensor.value = len(self._owed)
        return failure

    async def _write_owed(self) -> None:
        """Write what could not be written before, and what no run of this program was there for."""
        try:
            self._owed |= await self._complete_without_file()
        except (OSError, RedisError) as exc:
            logger.warning("telescope state does not answer: %s", exc)
            return
        for cbid, stream in sorted(self._owed):
            if not await self._try_final(cbid, stream):
                logger.info("capture block %s: telescope state written late", cbid)

    async def _complete_without_file(self) -> set[tuple[str, str]]:
        """Blocks and streams whose writer has said that the data are complete."""
        found = set()
        for stream in self._streams:
            ending = f"_{stream}_{OF_BLOCK}"
            for key in await self._telstate.backend.keys(f"*{ending}".encode()):
                cbid = key.decode(errors="replace").removesuffix(ending)
                known = cbid.isdigit() and cbid != self._block.value
                if known and not rdb_path(self._root, cbid, stream).exists():
                    found.add((cbid, stream))
        return found

    async def _write(self, cbid: str, stream: str, path: Path) -> None:
        """Write a file.

        Raises
        ------
        MetadataError
            It could not be written; what was there is as it was.
        """
        try:
            async with self._writing:
                extra: dict[str, Any] = {"capture_block_id": cbid, "stream_name": stream}
                extra |= await chunks_so_far(self._telstate, self._root, cbid)
                keys = await write_rdb(self._telstate, cbid, path, extra)
        except (OSError, RedisError) as exc:
            self._failures.value += 1
            raise MetadataError(f"{path} not written: {' '.join(str(exc).split())}") from exc
        self._files.value += 1
        self._keys.value = keys
        self._when.value = time.time()
        logger.info("%s: %d keys", path, keys)


def _check(failures: list[str]) -> None:
    if failures:
        raise aiokatcp.FailReply(f"{failures[0]}; it will be tried again")
