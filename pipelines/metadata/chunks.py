"""What there is of a stream's chunks while nobody has said it finally.

A writer publishes at the beginning of a block how the chunks of one dump are, and at the end of all dumps. In
between, or where the writer died, the directory tells how many there are.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common.dataset_files import OF_BLOCK, OF_DUMP

_CHUNK: Final = re.compile(r"(\d{5,})_[\d_]+\.npy")

ChunkInfo = Mapping[str, Mapping[str, Any]]


def for_dumps(of_dump: ChunkInfo, n_dumps: int) -> dict[str, dict[str, Any]]:
    """Return the description of the chunks of so many dumps, from that of one."""
    return {
        array: {
            **info,
            "chunks": ((1,) * n_dumps, *info["chunks"][1:]),
            "shape": (n_dumps, *info["shape"][1:]),
        }
        for array, info in of_dump.items()
    }


def dumps_on_disk(root: Path, of_dump: ChunkInfo) -> int:
    """Return one more than the highest dump that has a chunk of every array; blocks.

    Raises
    ------
    OSError
        A directory cannot be read.
    """
    return min(
        (_dumps(root / info["prefix"] / array) for array, info in of_dump.items()), default=0
    )


def _dumps(folder: Path) -> int:
    with os.scandir(folder) as entries:
        found = (_CHUNK.fullmatch(entry.name) for entry in entries)
        return max((int(match[1]) + 1 for match in found if match), default=0)


async def chunks_so_far(
    telstate: TelescopeState, root: Path, cbid: str
) -> dict[str, dict[str, Any]]:
    """Describe the chunks that there are of streams whose writers have not said it.

    Returns
    -------
    dict
        `chunk_info` by its full key.

    Raises
    ------
    OSError
        A directory cannot be read.
    RedisError
        Telescope state does not answer.
    """
    found = {}
    for key in await telstate.keys(f"{cbid}_*_{OF_DUMP}"):
        complete = key.removesuffix(OF_DUMP) + OF_BLOCK
        if not await telstate.exists(complete):
            of_dump = await telstate[key]
            n_dumps = await asyncio.to_thread(dumps_on_disk, root, of_dump)
            if n_dumps:
                found[complete] = for_dumps(of_dump, n_dumps)
    return found
