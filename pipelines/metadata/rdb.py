"""Telescope state to a file that katdal reads.

The values are encoded here and not by the Redis server (``DUMP``): Redis 7 encodes small sorted sets and hashes
in forms that the reader of `katsdptelstate` does not know. One key at a time is in memory.
"""

from __future__ import annotations

import asyncio
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


async def write_rdb(
    telstate: TelescopeState, cbid: str, path: Path, extra: Mapping[str, Any]
) -> int:
    """Write telescope state, without what belongs to other capture blocks; return the number of keys.

    The file appears whole or not at all.

    Parameters
    ----------
    extra
        Values that the file has at its root instead of what telescope state has, or beside it.

    Raises
    ------
    OSError
        It could not be written.
    RedisError
        Telescope state does not answer.
    """
    temporary = path.with_name(path.name + ".writing")
    try:
        with await asyncio.to_thread(_open, temporary) as writer:
            await _write_keys(telstate, cbid, writer, extra)
        if writer.keys_failed:
            raise OSError(f"{writer.keys_failed} keys of telescope state could not be encoded")
        await asyncio.to_thread(_put_in_place, temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return int(writer.keys_written)


def _open(path: Path) -> RDBWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    return RDBWriter(path)


def _put_in_place(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


async def _write_keys(
    telstate: TelescopeState, cbid: str, writer: RDBWriter, extra: Mapping[str, Any]
) -> None:
    added = MemoryBackend()
    for name, value in extra.items():
        added.set_immutable(name.encode(), encode_value(value))
    await asyncio.to_thread(writer.save, added)
    for key in await telstate.backend.keys(b"*"):
        block = _OF_A_BLOCK.match(key)
        if key.decode() not in extra and (block is None or block[1] == cbid.encode()):
            one = MemoryBackend()
            await _copy(telstate.backend, key, one)
            await asyncio.to_thread(writer.save, one)


async def _copy(backend: Any, key: bytes, memory: MemoryBackend) -> None:
    kind = await backend.key_type(key)
    if kind is KeyType.MUTABLE:
        samples = await backend.get_range(key, 0.0, math.inf, False, True) or []
        while samples:  # given up one by one: a sensor may be most of the telescope state
            memory.add_mutable(key, *samples.pop())
    elif kind is KeyType.INDEXED:
        values, _ = await backend.get(key)
        for sub_key, value in values.items():
            memory.set_indexed(key, sub_key, value)
    elif kind is KeyType.IMMUTABLE:
        value, _ = await backend.get(key)
        memory.set_immutable(key, value)
