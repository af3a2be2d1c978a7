"""A product with a spectral image stream ends up with a cube, made on the cluster from what was observed."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from astropy.io import fits

from sdpcontroller.cli.cam import Cam, as_json
from sdpcontroller.cli.demo_config import CAL, FIELD, IMAGE, VIS
from tests.conftest import PATIENCE
from tests.e2e.documents import SIMULATOR, document
from tests.e2e.system import Stack, eventually

pytestmark = pytest.mark.e2e

CHANNELS = (500, 503)
CUBE = {
    "flags": {"type": "sdp.flags", "src_streams": [VIS, CAL], "archive": True},
    IMAGE: {"src_streams": ["flags"], "parameters": {"size": 1000, "major_cycles": 4}},
    "cube": {
        "type": "sdp.spectral_image",
        "src_streams": ["flags", IMAGE],
        "min_time": 4.0,
        "output_channels": list(CHANNELS),
    },
}


async def test_a_block_ends_as_a_cube_without_continuum(stack: Stack) -> None:
    async with Cam("127.0.0.1", stack.katcp_port) as cam:
        await cam.request("product-configure", "cube", as_json(document(outputs=CUBE)))
        (cbid,) = await cam.request("capture-init", "cube")
        await asyncio.sleep(4)
        await cam.point("cube", SIMULATOR, FIELD)
        await asyncio.sleep(8)
        await cam.request("capture-done", "cube")
        async with asyncio.timeout(600):
            blocks = await cam.capture_blocks("cube")
            while cbid in blocks:
                await asyncio.sleep(0.5)
                blocks = await cam.capture_blocks("cube")
        assert await cam.sensor("cube.reason") == ""
        await cam.request("product-deconfigure", "cube")
    eventually("the tasks have ended", lambda: not stack.tasks_running(), timeout=PATIENCE)
    stack.assert_all_free()

    (folder,) = (stack.folder / "data").glob("*/cube-Demo_field")
    assert {p.name for p in folder.iterdir()} == {"cube.fits", "cube.png", "quality.json"}
    quality = json.loads((folder / "quality.json").read_text())
    n_channels = CHANNELS[1] - CHANNELS[0]
    assert (quality["channels"], quality["channels_without_data"]) == (n_channels, 0)
    with fits.open(folder / "cube.fits") as hdus:
        assert hdus[0].data.shape[:2] == (1, n_channels)
        assert hdus["CHANNELS"].data["CHANNEL"].tolist() == list(range(*CHANNELS))
        assert np.isfinite(hdus[0].data).all()
    # Of sources of up to 1 Jy there is little left.
    (continuum,) = (stack.folder / "data").glob(f"*/{IMAGE}-Demo_field/quality.json")
    assert json.loads(continuum.read_text())["peak"] == pytest.approx(1.0, rel=0.1)
    assert quality["peak"] < 0.3
