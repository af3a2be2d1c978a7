"""How the loops of packing are compiled.

Compiled functions are kept on disk. Numba notices changes of the module that a function is in, not of those
whose functions it calls or whose constants it uses; so when any of these is not the one that was compiled, all
is compiled anew. Modules that no compiled function knows of are free to change.

Handing a named tuple of arrays to a function that is merely compiled costs more than a small function does; to
an inlined one it costs nothing.
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

compiled = cast("Callable[[F], F]", numba.njit(cache=True, nogil=True))
"""Decorator: compile at the first call, keep the result on disk, run without the GIL."""

_uncounted: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
inlined = cast("Callable[[F], F]", numba.njit(forceinline=True, **_uncounted))
"""Decorator for small functions in the innermost loops, which allocate nothing.

Without ``_nrt=False`` numba counts references to every array argument at every call, atomically: that made the
loops twenty times slower. The option is numba's own, though not documented; without it all works, slowly.
"""
outlined = cast("Callable[[F], F]", numba.njit(**_uncounted))
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
