"""What is compiled again, and what is not."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.registry import CPUDispatcher

import scheduler.packing
from scheduler.packing.compiled import compiled_sources, drop_stale_cache
from tests.scheduler.packing.warmed import cut

PACKAGE = Path(scheduler.packing.__file__).parent
PROJECT = Path(__file__).parents[3]


def test_no_function_that_python_cannot_call_is_known_to_modules_that_are_not_compiled() -> None:
    """A call would end the process, and an observation with it."""
    compiled = {source.stem for source in compiled_sources(PACKAGE)}
    for module in pkgutil.iter_modules([str(PACKAGE)], "scheduler.packing."):
        if module.name.rpartition(".")[2] not in compiled:
            known = vars(importlib.import_module(module.name)).values()
            inner = [f.py_func.__name__ for f in known if isinstance(f, CPUDispatcher) and cut(f)]
            assert inner == [], module.name


def test_nothing_is_compiled_once_all_is_warm(compiled: None) -> None:
    """A function that is compiled for other arguments in the middle of an observation halts it for seconds."""
    command = [sys.executable, "-m", "tests.scheduler.packing.warmed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout == ""


def test_modules_without_compiled_functions_are_free_to_change() -> None:
    names = {source.name for source in compiled_sources(PACKAGE) if source.parent == PACKAGE}
    assert {"greedy.py", "placing.py", "relaxed.py", "ejection.py", "arrays.py"} <= names
    assert names.isdisjoint({"__init__.py", "solve.py", "answer.py", "rows.py", "explain.py"})


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of one compiled function, which calls another and uses a constant from elsewhere."""
    found = tmp_path / "project" / "scheduler" / "small"
    found.mkdir(parents=True)
    sources = {
        "compiled": "import numpy\n",
        "loops": "from scheduler.small.compiled import compiled\nfrom scheduler.small.sums import (\n",
        "sums": "from scheduler.units import WHOLE\n",
        "pure": "from scheduler.small.loops import total\n",
    }
    for name, text in sources.items():
        (found / f"{name}.py").write_text(text, encoding="ascii")
    (found.parent / "units.py").write_text("WHOLE = 1000\n", encoding="ascii")
    (found.parent / "other.py").write_text("", encoding="ascii")
    (found / "__pycache__").mkdir()
    _index(found).touch()
    return found


def _index(package: Path) -> Path:
    return package / "__pycache__" / "loops.total-3.nbi"


def test_what_was_compiled_of_unknown_sources_is_dropped(package: Path) -> None:
    drop_stale_cache(package)
    assert not _index(package).exists()


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ("small/compiled.py", False),
        ("small/loops.py", False),
        ("small/sums.py", False),
        ("units.py", False),
        ("small/pure.py", True),
        ("other.py", True),
    ],
)
def test_what_compiled_functions_do_not_know_of_costs_no_compilation(
    package: Path, changed: str, kept: bool
) -> None:
    drop_stale_cache(package)
    _index(package).touch()
    with (package.parent / changed).open("a", encoding="ascii") as source:
        source.write("# changed\n")
    drop_stale_cache(package)
    assert _index(package).exists() is kept
