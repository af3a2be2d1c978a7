"""Simulators of other people, as referees: each in an environment of its own (``make referees``)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TIMEOUT: Final = 300.0
"""Seconds that a referee may take."""
MATVIS_PROGRAM: Final = Path(__file__).with_name("matvis_program.py")


class RefereeError(Exception):
    """A referee is not installed, or failed."""


def environment(kind: str) -> Path:
    """Return the folder of a referee's environment, ``dp3`` or ``matvis``.

    Raises
    ------
    RefereeError
        It is not there.
    """
    folder = ROOT / f".venv-{kind}"
    if not (folder / ".installed").exists():
        raise RefereeError(f"{kind} is not installed: make environment-{kind}")
    return folder


def run_dp3(arguments: Sequence[str], folder: Path) -> None:
    """Run DP3 in a folder with ``key=value`` arguments; it computes with one thread.

    Raises
    ------
    RefereeError
        It is not installed, or failed; the message has the end of what it said.
    """
    home = environment("dp3")
    settings = {"CASARCFILES": str(home / "casarc"), "OPENBLAS_NUM_THREADS": "1"}
    _run([str(home / "bin/DP3.py"), "numthreads=1", *arguments], folder, settings)


def run_matvis(question: Path, answer: Path) -> None:
    """Run ``matvis_program.py`` on a file of arrays; what it reads and writes is described there.

    Raises
    ------
    RefereeError
        It is not installed, or failed.
    """
    python = environment("matvis") / "bin/python"
    _run([str(python), str(MATVIS_PROGRAM), str(question), str(answer)], question.parent, {})


def _run(command: list[str], folder: Path, settings: dict[str, str]) -> None:
    # The caller's own interpreter settings are of another environment.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, "OMP_NUM_THREADS": "1", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RefereeError(f"{Path(command[0]).name} failed: {done.stdout[-2000:]}")
