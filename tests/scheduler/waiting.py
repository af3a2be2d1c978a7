"""Tasks that wait for their go-ahead, as processes in what different images have."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from scheduler.goahead import wrapped

TASK = "graph.ingest.0.0"
PROGRAM = (
    "import json, os; print(json.dumps({"
    "'values': json.loads(os.environ['SDP_GO_AHEAD'])['values'],"
    "'leaked': sorted(n for n in os.environ if n.startswith('SDP_GO_AHEAD_')),"
    "'umask': os.umask(0), 'own': os.environ.get('OWN')}))"
)


def bin_with(tmp_path: Path, client: str) -> str:
    """Make a PATH with what a bare image has, and one client."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("rm", "sleep", "date", client):
        # A launcher of several versions of Python would need more of the system.
        found = python() if tool == "python3" else shutil.which(tool)
        if found is None:
            pytest.skip(f"{tool} is not installed")
        (folder / tool).symlink_to(Path(found).resolve())
    return str(folder)


def answers(folder: Path) -> list[Path]:
    """Return the files that wrappers have left."""
    return [*folder.glob(".go-ahead*"), *folder.glob("tmp/.*")]


def python() -> str:
    return os.path.realpath("/proc/self/exe")


@dataclass(frozen=True)
class Image:
    """What a container image has: a PATH, and a shell to run the wrapper."""

    path: str
    shell: tuple[str, ...] = ()


def busybox_only(tmp_path: Path) -> Image:
    """Make an image that has BusyBox and nothing else, as many small images have."""
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("busybox-static is not installed")
    folder = tmp_path / "bin"
    folder.mkdir()
    for applet in ("wget", "timeout", "rm", "sleep", "date"):
        (folder / applet).symlink_to(found)
    return Image(str(folder), (found, "sh"))


async def run_wrapper(
    tmp_path: Path,
    environment: Mapping[str, str],
    *,
    image: Image | None = None,
    command: tuple[str, ...] = (),
    script: str = "",
) -> asyncio.subprocess.Process:
    image = image or Image(os.environ["PATH"])
    (tmp_path / "tmp").mkdir(exist_ok=True)
    words = wrapped(command or (python(), "-c", PROGRAM))
    words[2] = script or words[2]
    words = [*image.shell, *words[1:]] if image.shell else words
    return await asyncio.create_subprocess_exec(
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        start_new_session=True,
        env={
            "PATH": image.path,
            "TMPDIR": str(tmp_path / "tmp"),
            "OWN": "kept",
            "http_proxy": "http://127.0.0.1:9",
            "MESOS_SANDBOX": str(tmp_path),
            **environment,
        },
    )
