"""Telescope state to a file that katdal reads.

The values are encoded here and not by the Redis server (``DUMP``): Redis 7 encodes small sorted sets and hashes
in forms that the reader of `katsdptelstate` does not know.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from katsdptelstate.aio.telescope_state import TelescopeState
from katsdptelstate.encoding import encode_value
from katsdptelstate.memory import MemoryBackend
from katsdptelstate.rdb_writer import RDBWriter
from katsdptelstate.utils import KeyType

_OF_A_BLOCK: Final = re.compile(rb"(\d+)_")


async def snapshot(telstate: TelescopeState, cbid: str) -> MemoryBackend:
    """Copy telescope state into memory, without what belongs to other capture blocks."""
    memory = MemoryBackend()
    for key in await telstate.backend.keys(b"*"):
        block = _OF_A_BLOCK.match(key)
        if block is None or block[1] == cbid.encode():
            await _copy(telstate.backend, key, memory)
    return memory


async def _copy(backend: Any, key: bytes, memory: MemoryBackend) -> None:
    kind = await backend.key_type(key)
    if kind is KeyType.MUTABLE:
        samples = await backend.get_range(key, 0.0, math.inf, False, True)
        for value, time in samples or ():
            memory.add_mutable(key, value, time)
    elif kind is KeyType.INDEXED:
        values, _ = await backend.get(key)
        for sub_key, value in values.items():
            memory.set_indexed(key, sub_key, value)
    elif kind is KeyType.IMMUTABLE:
        value, _ = await backend.get(key)
        memory.set_immutable(key, value)


def write_rdb(memory: MemoryBackend, path: Path, extra: Mapping[str, Any]) -> int:
    """Write a snapshot, with some more values at its root, and return the number of keys.

    The file appears whole or not at all. Blocks: for a worker thread.

    Raises
    ------
    OSError
        It could not be written.
    """
    for key, value in extra.items():
        memory.delete(key.encode())
        memory.set_immutable(key.encode(), encode_value(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".writing")
    try:
        with RDBWriter(temporary) as writer:
            writer.save(memory)
        if writer.keys_failed:
            raise OSError(f"{writer.keys_failed} keys of telescope state could not be encoded")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return writer.keys_written
