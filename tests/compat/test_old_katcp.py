"""MeerKAT's older clients work: the resource client of the `katcp` package, in an environment of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from katcp_iface.hints import COMMANDS
from sdpcontroller.limits import limits
from sdpcontroller.products.services import Timeouts
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.interface_mode.test_interface_mode import controller

PYTHON = Path(__file__).parents[2] / ".venv-katcp/bin/python"
CLIENT = Path(__file__).with_name("old_katcp_client.py")


async def test_a_whole_observation_by_the_old_resource_client() -> None:
    if not PYTHON.exists():
        pytest.skip("there is no .venv-katcp: make environment-katcp")
    config = json.dumps(make_config().to_json())
    async with controller() as ours:
        process = await asyncio.create_subprocess_exec(
            str(PYTHON),
            str(CLIENT),
            f"{ours.host}:{ours.port}",
            config,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(400):
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    seen = json.loads(out)
    assert {"product_configure", "capture_init", "set_target_state"} <= set(seen["requests"])
    hints = {name: hint for name, hint in seen["hints"].items() if hint is not None}
    expected = {name: limits(Timeouts())[command] for name, command in COMMANDS.items()}
    assert hints == {name.replace("-", "_"): hint for name, hint in expected.items()}
    assert seen["configure"][:3] == [True, "ok", "array_1"]
    (ok, block) = seen["capture_init"]
    assert (ok, seen["capture_done"]) == ("ok", ["ok", block])
    assert seen["state"] == ["nominal", "capturing"]
    assert seen["blocks"] == {block: "capturing"}
    assert seen["refused"][0] is False and "not capturing" in seen["refused"][1]
    assert seen["products"] == [["array_1", "idle"]]
    assert seen["deconfigure"] is True
