"""The controller dies without a word; its successor goes on with everything."""

from __future__ import annotations

import pytest

from sdpcontroller.cli.cam import Cam, as_json
from tests.e2e.documents import document
from tests.e2e.system import Stack, eventually

pytestmark = pytest.mark.e2e


async def test_a_capture_goes_on_without_its_controller(stack: Stack) -> None:
    configuration = as_json(document())
    async with Cam("127.0.0.1", stack.katcp_port) as cam:
        await cam.request("product-configure", "demo", configuration)
        (cbid,) = await cam.request("capture-init", "demo")
    before = stack.tasks_running()
    assert len(before) >= 6

    stack.kill_master()
    assert stack.tasks_running() == before  # they do not need it
    stack.start_master()
    async with Cam("127.0.0.1", stack.katcp_port) as cam:
        assert await cam.sensor("demo.state") == "capturing"
        assert await cam.capture_blocks("demo") == {cbid: "capturing"}
        assert (await cam.request("product-configure", "demo", configuration))[0] == "demo"
        assert await cam.request("capture-done", "demo") == [cbid]
        assert stack.tasks_running() == before
        await cam.request("product-deconfigure", "demo", "1")
        eventually("the tasks have ended", lambda: not stack.tasks_running(), timeout=30)
    stack.assert_all_free()
