from __future__ import annotations

from pathlib import Path
from typing import Any

import katsdptelstate
import numpy as np
import pytest
from katsdptelstate.aio.memory import MemoryBackend
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import telstate as ts
from pipelines.common.endpoints import parse_endpoint
from pipelines.metadata.rdb import write_rdb


async def test_all_kinds_of_values_come_back_from_the_file(
    redis_server: Any, tmp_path: Path
) -> None:
    """Redis 7's own encoding of small sets and hashes is one that the reader does not know."""
    path = tmp_path / "a" / "b.rdb"
    gains = np.full((2, 3), 1 + 2j, np.complex64)
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        await telstate.set("n_chans", 4096)
        await telstate.view("123").set("obs_params", {"observer": "x"})
        await telstate.view("99").set("obs_params", {"observer": "of another block"})
        await telstate.set_indexed("bandpass", (1, "h"), 0.5)
        for i in range(3):
            await telstate.add("obs_activity", f"track{i}", ts=float(i))
        for i in range(300):
            await telstate.add("123_cal_product_G", gains * i, ts=1e9 + i)
        assert await write_rdb(telstate, "123", path, {"capture_block_id": "123"}) == 6
    read = katsdptelstate.TelescopeState()
    read.load_from_file(str(path))
    assert read["n_chans"] == 4096
    assert read["capture_block_id"] == "123"
    assert read["123_obs_params"] == {"observer": "x"}
    assert "99_obs_params" not in read
    assert read["bandpass"] == {(1, "h"): 0.5}
    assert read.get_range("obs_activity", st=0) == [("track0", 0), ("track1", 1), ("track2", 2)]
    solutions = read.get_range("123_cal_product_G", st=0)
    assert [time for _, time in solutions] == [1e9 + i for i in range(300)]
    np.testing.assert_array_equal(solutions[7][0], gains * 7)


async def test_a_file_that_cannot_be_finished_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.metadata.rdb.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        telstate = TelescopeState(MemoryBackend())
        await write_rdb(telstate, "123", tmp_path / "a" / "b.rdb", {"x": 1})
    assert list((tmp_path / "a").iterdir()) == []
