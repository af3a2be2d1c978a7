"""After the warm-up no program has anything left to compile that others have compiled before."""

from __future__ import annotations

import ast
from pathlib import Path

from pipelines import warm_up

PACKAGE = Path(warm_up.__file__).parent


def compiling_modules() -> set[str]:
    """Packages of programs in which numba compiles something."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        names = {
            node.name
            for statement in ast.walk(ast.parse(path.read_text()))
            if isinstance(statement, ast.ImportFrom) and statement.module == "numba"
            for node in statement.names
        } | {
            alias.name
            for statement in ast.walk(ast.parse(path.read_text()))
            if isinstance(statement, ast.Import)
            for alias in statement.names
        }
        if names & {"njit", "cfunc", "numba"}:
            found.add(path.relative_to(PACKAGE).parts[0])
    return found


def test_every_program_that_compiles_is_warmed_up() -> None:
    named = {program.__name__ for program in warm_up.PROGRAMS}
    assert compiling_modules() == (named - {"receivers"}) | {"common"}


def test_it_compiles() -> None:
    assert warm_up.main() == 0
