"""The controller is installed without the packages of the programs: they are in images."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from sdpcontroller.cli.main import main
import sdpcontroller.workflows.realtime, sdpcontroller.workflows.imaging
main(["master", "--list-crash-points"])
"""
ABSENT = ("astropy", "casacore", "ducc0", "katdal", "matplotlib", "spead2")


def test_commands_need_none_of_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(absent=ABSENT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
