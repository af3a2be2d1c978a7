"""The display as a program: heaps in, frames and a page out."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipelines.display.conftest import STREAM, Display, model


async def test_what_comes_is_shown_and_what_is_lost_is_told(display: Display) -> None:
    await display.client.request("capture-init", "1000000001")
    await display.send("1000000001", range(3), announced=4)
    await display.client.request("capture-done")
    new = await display.get("/api/frame?product=m000h-m001h")
    shown = display.server.sensors["dumps-shown"].value
    skipped = display.server.sensors["dumps-skipped"].value
    assert shown + skipped == 3
    assert len(new["times"]) == shown
    assert (new["heaps"], new["lost"]) == (3, 1)
    last = int(new["times"][-1] - STREAM.sync_time - 5)
    product = STREAM.bls_ordering.index(("m000h", "m001h"))
    spectrum = np.frombuffer(base64.b64decode(new["spectrum"]), "<f4")
    np.testing.assert_allclose(spectrum, np.abs(model(last)[0][:, product]), rtol=1e-5)


async def test_dumps_are_left_out_rather_than_lost(display: Display) -> None:
    display.server._interval = 1e6
    await display.client.request("capture-init", "1000000002")
    await display.send("1000000002", range(30), announced=30)
    await display.client.request("capture-done")
    assert display.server.sensors["dumps-shown"].value == 1
    assert display.server.sensors["dumps-skipped"].value == 29
    assert display.server.sensors["input-heaps-lost"].value == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/frame?product=nothing", 404),
        ("/api/frame?product=m000h-m000h&since=-1", 400),
        ("/api/frame?product=m000h-m000h&since=9999999999999999999", 400),
        ("/../server.py", 404),
        ("/api/frame", 404),
    ],
)
async def test_nonsense_is_answered_with_a_reason(display: Display, path: str, status: int) -> None:
    async with display.http.get(display.url + path) as answer:
        assert answer.status == status


async def test_a_browser_draws_the_page(display: Display, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    await display.client.request("capture-init", "1000000003")
    await display.send("1000000003", range(12), announced=12)
    picture = tmp_path / "page.png"
    process = await asyncio.create_subprocess_exec(
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,1000"),
        *("--virtual-time-budget=4000", f"--screenshot={picture}", "--hide-scrollbars"),
        f"{display.url}/#m000h-m001h",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    async with asyncio.timeout(120):
        await process.wait()
    await display.client.request("capture-done")
    pixels = np.asarray(Image.open(picture).convert("RGB"), np.int64)
    # The waterfall's colours, the spectrum's line and the phases' dots are there, so the script has run.
    for colour in ([253, 231, 37], [0x6E, 0xC1, 0xFF], [0xFF, 0xD1, 0x66]):
        assert (np.abs(pixels - colour).sum(axis=-1) < 12).sum() > 50, colour
