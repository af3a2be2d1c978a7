from __future__ import annotations

import asyncio
from pathlib import Path

import katdal
import numpy as np
import pytest
from katsdptelstate.aio.memory import MemoryBackend
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common.baselines import correlator_ordering
from pipelines.common.dataset import open_dataset
from pipelines.common.dataset_files import rdb_path
from pipelines.common.l0 import DumpPart, L0Layout
from pipelines.metadata.rdb import write_rdb
from pipelines.writer.store import BlockStore

CBID = "1234567890"
LAYOUT = L0Layout(n_chans=4, n_bls=12, n_senders=1, int_time=2.0)


def make(root: Path, sync_time: float) -> Path:
    """Three dumps of two antennas with everything katdal needs to know the correlator's dump length."""
    store = BlockStore(root, CBID, "sdp_l0", LAYOUT)
    shape = (4, 12)
    for dump in range(3):
        ones = np.ones(shape, np.uint8)
        part = DumpPart(
            range(4), np.full(shape, dump, np.complex64), 0 * ones, ones, np.ones(4, "f4")
        )
        store.write(dump, part)
    values = {
        "sub_product": "c856M4k",
        "sub_band": "l",
        "sub_pool_resources": "m000,m001",
        "m000_observer": "m000, -30:42:39.8, 21:26:38.0, 1035.0, 13.5, 0 0 0",
        "m001_observer": "m001, -30:42:39.8, 21:26:38.0, 1035.0, 13.5, 100 0 0",
        "sdp_l0_stream_type": "sdp.vis",
        "sdp_l0_n_chans": 4,
        "sdp_l0_bandwidth": 4e6,
        "sdp_l0_center_freq": 1.4e9,
        "sdp_l0_sync_time": sync_time,
        "sdp_l0_int_time": 2.0,
        "sdp_l0_bls_ordering": [list(pair) for pair in correlator_ordering(["m000", "m001"])],
        "sdp_l0_src_streams": ["bcp"],
        "bcp_int_time": 0.5,
        "bcp_n_accs": 100,
        "bcp_src_streams": ["acv"],
        "acv_instrument_dev_name": "cbf",
        "cbf_scale_factor_timestamp": 1e9,
        f"{CBID}_obs_params": {},
        f"{CBID}_sdp_l0_first_timestamp": 10.0,
        f"{CBID}_sdp_l0_chunk_info": store.chunk_info(3),
    }
    path = rdb_path(root, CBID, "sdp_l0")

    async def write() -> None:
        telstate = TelescopeState(MemoryBackend())
        for key, value in values.items():
            await telstate.set(key, value)
        await telstate.add("cbf_target", "x, radec, 1:00, 2:00", ts=sync_time)
        await telstate.add("obs_activity", "track", ts=sync_time)
        extra = {"capture_block_id": CBID, "stream_name": "sdp_l0"}
        await write_rdb(telstate, CBID, path, extra)

    asyncio.run(write())
    return path


@pytest.mark.parametrize("sync_time", [1.4e9, 1.6e9], ids=["2014", "2020"])
def test_times_are_those_that_were_written(tmp_path: Path, sync_time: float) -> None:
    data = open_dataset(make(tmp_path, sync_time))
    np.testing.assert_allclose(
        data.timestamps, sync_time + 10.0 + 2.0 * np.arange(3), rtol=0, atol=1e-6
    )
    assert data.time_offset == 0.0
    np.testing.assert_array_equal(data.vis[:][:, 0, 0], [0, 1, 2])


def test_katdal_alone_shifts_old_data(tmp_path: Path) -> None:
    """What the function is there for; when this fails, it is not needed any more."""
    path = make(tmp_path, 1.4e9)
    assert katdal.open(str(path)).timestamps[0] == pytest.approx(1.4e9 + 9.5, abs=1e-6)
    shifted = open_dataset(path, time_offset=3.0)
    assert shifted.timestamps[0] == pytest.approx(1.4e9 + 13.0, abs=1e-6)
