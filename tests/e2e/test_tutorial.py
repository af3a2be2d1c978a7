"""docs/tutorial.md, pasted into a shell block by block: every command in it works as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from secrets import randbelow
from typing import Final

import pytest

from scheduler.packing.solve import warm_up
from tests.conftest import free_port
from tests.e2e.system import BIN, Run, Terminal

pytestmark = pytest.mark.e2e

TUTORIAL: Final = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHORTER: Final = {"sleep 8\n": "sleep 4\n", "sleep 20\n": "sleep 8\n"}


def script() -> str:
    """The tutorial's commands, with ports and multicast groups that nobody else uses, and shorter waits."""
    text = "\n".join(_BLOCK.findall(TUTORIAL.read_text()))
    for port in ("6390", "5050", "5001", "5002"):
        assert port in text
        text = text.replace(port, str(free_port()))
    for long, short in _SHORTER.items():
        assert long in text
        text = text.replace(long, short)
    first = 20_000 + 600 * randbelow(20)
    groups = f"239.{192 + randbelow(4)}.{randbelow(256)}.0/24"
    text = text.replace("sdp cluster ", f"sdp cluster --ports {first}-{first + 599} ")
    return text.replace("sdp master ", f"sdp master --multicast {groups} ")


def test_every_command_works(run: Run) -> None:
    warm_up()  # as `make demo` has, before
    pasted = run.folder / "pasted.sh"
    pasted.write_text(f"set -eo pipefail\ncd {run.folder}\n{script()}")
    run.environment["PATH"] = f"{BIN}:{run.environment['PATH']}"
    with Terminal(run, ["bash", str(pasted)]) as terminal:
        status = terminal.wait(timeout=600)
        text = terminal.text
    assert status == 0, text[-4000:]
    for request in (
        "agent-list",
        "help",
        "product-plan",
        "product-configure",
        "capture-init",
        "capture-done",
        "product-deconfigure",
    ):
        assert f"!{request}[1] ok" in text, text[-4000:]
    assert "!product-list[1] ok 0" in text
    (folder,) = (run.folder / "tutorial" / "data").glob("*/continuum_image-*")
    assert (folder / "image.png").exists()
    sources = json.loads((folder / "sources.json").read_text())
    assert sum(source["snr"] > 50 for source in sources) == 3
    assert run.left() == []
