"""The controller dies in mid-capture; nothing of the observation is lost.

Prints what it sees: the transcript in ``docs/recovery.md`` comes from here (``pytest -s``).
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import katdal
import pytest

from sdpcontroller.cli.cam import Cam, as_json
from sdpcontroller.cli.demo_report import heaps
from tests.conftest import PATIENCE, free_port
from tests.e2e.documents import document
from tests.e2e.system import Stack, eventually, listens

pytestmark = pytest.mark.e2e


def say(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)


async def told(cam: Cam, began: float) -> None:
    """Print the counters of the receivers."""
    counts = await heaps(cam, "demo")
    names = ("correlator_sent", "ingest_received", "ingest_lost", "writer_received", "writer_lost")
    say(began, ", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in names))


async def answers(port: int, timeout: float) -> float:
    """Wait until a controller answers there; return the seconds that took."""
    began = time.monotonic()
    while not listens(port):
        assert time.monotonic() - began < timeout, f"nobody answers within {timeout:g} s"
        await asyncio.sleep(0.02)
    async with Cam("127.0.0.1", port) as cam:
        await cam.informs("product-list")
    return time.monotonic() - began


async def test_no_heap_is_lost_with_a_controller(stack: Stack) -> None:
    """kill -9 with nobody else, kill -9 with a standby, an end in order: all in one capture."""
    began = time.monotonic()
    async with Cam("127.0.0.1", stack.katcp_port) as cam:
        await cam.request("product-configure", "demo", as_json(document()))
        (cbid,) = await cam.request("capture-init", "demo")
        say(began, f"capture block {cbid} captures")
        await asyncio.sleep(4)
        await told(cam, began)
    tasks = stack.tasks_running()

    stack.kill_master()
    say(began, "kill -9 of the only controller")
    await asyncio.sleep(1)
    assert stack.tasks_running() == tasks  # they do not need it
    stack.start_master()
    async with Cam("127.0.0.1", stack.katcp_port) as cam:
        say(began, "the next one answers")
        assert await cam.capture_blocks("demo") == {cbid: "capturing"}
        await told(cam, began)

    port = free_port()
    stack.start_standby("standby", port)
    stack.kill_master()
    seconds = await answers(port, timeout=PATIENCE)
    say(began, f"kill -9 of the leader: the standby answers after {seconds:.1f} s")
    assert seconds < 15  # three of them are the lease; a busy machine may take some
    async with Cam("127.0.0.1", port) as cam:
        assert await cam.sensor("demo.state") == "capturing"
        await told(cam, began)

    stack.start_standby("master", stack.katcp_port)
    ending = stack.end_master("standby")
    seconds = await answers(stack.katcp_port, timeout=PATIENCE)
    say(began, f"SIGTERM to the leader: the other one answers after {seconds:.1f} s")
    assert ending.wait(PATIENCE) == 0
    async with Cam("127.0.0.1", stack.katcp_port) as cam:
        assert await cam.capture_blocks("demo") == {cbid: "capturing"}
        assert stack.tasks_running() == tasks
        assert await cam.request("capture-done", "demo") == [cbid]
        say(began, "capture-done")
        await told(cam, began)
        counts = await heaps(cam, "demo")
        check_whole(stack.folder / "data", cbid, counts)
        say(began, "the data set is whole")
        await cam.request("product-deconfigure", "demo")
        eventually("the tasks have ended", lambda: not stack.tasks_running(), timeout=PATIENCE)
    stack.assert_all_free()


def check_whole(data: Path, cbid: str, counts: dict[str, int]) -> None:
    """Every heap that was sent has arrived, and every dump of the block is in the data set."""
    assert counts["correlator_sent"] == counts["ingest_received"] > 0
    assert counts["l0_sent"] == counts["cal_received"] == counts["writer_received"]
    assert counts["ingest_lost"] == counts["cal_lost"] == counts["writer_lost"] == 0
    (rdb,) = data.glob(f"{cbid}*/*_sdp_l0.rdb")
    dataset = katdal.open(str(rdb))
    assert dataset.shape[0] * 2 == counts["writer_received"]  # two ingests, a heap of each
    steps = {round(float(t), 3) for t in dataset.timestamps[1:] - dataset.timestamps[:-1]}
    assert len(steps) == 1, steps  # no dump is missing
    assert not (dataset.flags[:].all(axis=(1, 2))).any()
