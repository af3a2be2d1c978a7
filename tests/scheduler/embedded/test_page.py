"""The page in a real browser."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from scheduler.embedded import AgentSpec, Cluster
from scheduler.quantities import Ranges, Resources
from tests.scheduler.embedded.test_http import Client

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--window-size=1000,900",
)
USED, OFFERED = (0x2F, 0x6F, 0xED), (0xF0, 0xA6, 0x3A)


async def browse(profile: Path, *arguments: str) -> tuple[str, str]:
    """Run the browser once; return what it writes to standard output and error."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={profile}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    return out.decode(), err.decode()


def colours(picture: Path) -> Counter[tuple[int, ...]]:
    """Count the pixels of each colour."""
    image = Image.open(picture).convert("RGB")
    return Counter({colour: count for count, colour in image.getcolors(1 << 24) or ()})


@pytest.fixture
async def client(tmp_path: Path) -> Any:
    resources = Resources({"cpus": 4000, "gpu.0.compute": 1000}, {"cores": Ranges.parse("[0-7]")})
    spec = AgentSpec("127.0.1.1", resources, {"rack": "r1"})
    cluster = Cluster([spec], work_dir=tmp_path / "work", port=0, allocation_interval=0.1)
    async with cluster, aiohttp.ClientSession() as session:
        client = Client(session, cluster)
        await client.subscribe()
        await client.run("t", "sleep 60")
        await client.event("OFFERS")  # the rest
        yield client
        client.close()


async def test_a_browser_draws_what_is_used_and_offered(client: Client, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    _, log = await browse(tmp_path / "profile", f"--screenshot={picture}", f"{client.base}/")
    assert "CONSOLE" not in log, "the page keeps to its own content security policy"
    seen = await asyncio.to_thread(colours, picture)
    assert seen[USED] > 80, "a core in use and a part of a bar"
    assert seen[OFFERED] > 2 * seen[USED], "most is on offer"


async def test_a_browser_shows_custom_resources_and_leads_to_sandboxes(
    client: Client, tmp_path: Path
) -> None:
    shown, _ = await browse(tmp_path / "profile", "--dump-dom", f"{client.base}/")
    for text in ("gpu.0.compute", "rack: r1", "127.0.1.1", "running", "&lt;script&gt;"):
        assert text in shown, text
    link = shown.split("/files/download?path=")[1].split('"')[0]
    assert link.endswith("%2Fstdout")
    async with client.session.get(f"{client.base}/slave(1)/files/download?path={link}") as response:
        assert response.status == 200
