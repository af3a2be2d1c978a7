"""How the loops of packing are compiled.

Compiled functions are kept on disk. Numba notices changes of the module that a function is in, not of those
whose functions it calls or whose constants it uses; so when any of these is not the one that was compiled, all
is compiled anew. Modules that no compiled function knows of are free to change.

Handing a named tuple of arrays to a function that is merely compiled costs more than a small function does; to
an inlined one it costs nothing. Whatever a function calls is optimized once more with it, so that each step of
a chain of calls is paid for when compiling; and to assign a slice to a slice compiles a message about shapes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])

_njit: Any = numba.njit  # its types do not know all of its options
compiled = cast("Callable[[F], F]", _njit(cache=True, nogil=True, no_cfunc_wrapper=True))
"""Decorator of what Python calls: compile at the first call, keep the result on disk, run without the GIL."""

_inner: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
within = cast("Callable[[F], F]", _njit(_nrt=True, **_inner))
"""Decorator of what only compiled functions call, and allocates arrays.

What takes a named tuple of arrays apart for a call from Python is most of what a small function compiles to. So
it is left out here and below: **a call of such a function from Python ends the process.**
"""

_uncounted: dict[str, Any] = {**_inner, "_nrt": False}
inlined = cast("Callable[[F], F]", _njit(forceinline=True, **_uncounted))
"""Decorator for small functions in the innermost loops, which allocate nothing.

Without ``_nrt=False`` numba counts references to every array argument at every call, atomically: that made the
loops twenty times slower. The option is numba's own, though not documented; without it all works, slowly.
"""
written_out = cast("Callable[[F], F]", _njit(inline="always", **_uncounted))
"""Decorator for such functions that are called in one place, of a function that counts no references either.

They are not compiled by themselves, but as lines of their caller, which costs less time to compile.
"""
outlined = cast("Callable[[F], F]", _njit(**_uncounted))
"""Decorator for such functions that are too large to be everywhere that they are called."""

Random = NDArray[np.uint64]
"""(1,) state of a generator of random numbers; not zero."""


_IMPORT = re.compile(r"^(?:from|import) ([\w.]+)", re.MULTILINE)


def compiled_sources(package: Path) -> list[Path]:
    """Return the modules of a package with compiled functions, and all of the project that these import.

    Parameters
    ----------
    package
        Directory two below that of the project, which has a module ``compiled``.
    """
    project, here = package.parent.parent, package / "compiled.py"
    found = {here}
    ahead = [here, *(m for m in package.glob("*.py") if here in _imported(m, project))]
    while ahead:
        module = ahead.pop()
        found.add(module)
        ahead += _imported(module, project) - found
    return sorted(found)


def _imported(module: Path, project: Path) -> set[Path]:
    """Return the modules of the project that one imports at its top."""
    names = _IMPORT.findall(module.read_text(encoding="utf-8"))
    paths = {project.joinpath(*name.split(".")) for name in names}
    sources = {p / "__init__.py" if p.is_dir() else p.with_suffix(".py") for p in paths}
    return {source for source in sources if source.is_file()}


def drop_stale_cache(package: Path) -> None:
    """Remove compiled functions that were made from other sources than the present ones."""
    cache = package / "__pycache__"
    sources = b"".join(source.read_bytes() for source in compiled_sources(package))
    digest, stamp = hashlib.sha256(sources).hexdigest(), cache / "compiled.sha256"
    try:
        if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
            return
        for index in cache.glob("*.nbi"):
            index.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(digest, encoding="ascii")
    except OSError:  # not ours to write: numba keeps its files elsewhere then, for this user
        return


drop_stale_cache(Path(__file__).parent)


@inlined
def below(random: Random, n: int) -> int:
    """Return a random integer from 0 to n - 1 (xorshift64, Marsaglia 2003)."""
    x = random[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    random[0] = x
    return int(
        np.int64((x >> np.uint64(11)) % np.uint64(n))
    )  # unsigned and signed mixed are floats


@inlined
def copy_to(there: NDArray[np.int64], row: NDArray[np.int64]) -> None:
    """Copy a row to another."""
    for i in range(len(row)):
        there[i] = row[i]
