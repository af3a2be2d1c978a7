"""The controller dies without a word while a product is up; its successor clears up and goes on."""

from __future__ import annotations

import pytest

from sdpcontroller.cli.cam import Cam, as_json
from tests.e2e.documents import document
from tests.e2e.system import Stack, eventually

pytestmark = pytest.mark.e2e


async def test_a_successor_takes_down_what_was_left(stack: Stack) -> None:
    configuration = as_json(document())
    async with Cam("127.0.0.1", stack.katcp_port) as cam:
        await cam.request("product-configure", "demo", configuration)
    before = stack.tasks_running()
    assert len(before) >= 6

    stack.kill_master()
    assert stack.tasks_running() == before  # they do not need it
    assert stack.in_use()

    stack.start_master()
    eventually("the tasks have ended", lambda: not stack.tasks_running(), timeout=30)
    stack.assert_all_free()
    async with Cam("127.0.0.1", stack.katcp_port) as cam:
        assert await cam.informs("product-list") == []
        await cam.request("product-configure", "demo", configuration)
        assert await cam.sensor("demo.state") == "idle"
        await cam.request("product-deconfigure", "demo")
    stack.assert_all_free()
