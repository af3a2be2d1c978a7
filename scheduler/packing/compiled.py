"""How the loops of packing are compiled.

Compiled functions are kept on disk. Numba notices changes of the module that a function is in, not of those
whose functions it calls; so what is older than any module here is thrown away when this one is imported.

Named tuples are taken apart once at the top of a function that loops: handing one to a function costs more
than a small function does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])

compiled = cast("Callable[[F], F]", numba.njit(cache=True, nogil=True))
"""Decorator: compile at the first call, keep the result on disk, run without the GIL."""

Random = NDArray[np.uint64]
"""(1,) state of a generator of random numbers; not zero."""


def drop_stale_cache(package: Path) -> None:
    """Remove compiled functions that are older than any source of the package."""
    newest = max(source.stat().st_mtime for source in package.glob("*.py"))
    for index in (package / "__pycache__").glob("*.nbi"):
        try:
            if index.stat().st_mtime < newest:
                index.unlink()
        except OSError:  # another process was faster, or the folder is not ours to write
            continue


drop_stale_cache(Path(__file__).parent)


@compiled
def below(random: Random, n: int) -> int:
    """Return a random integer from 0 to n - 1 (xorshift64, Marsaglia 2003)."""
    x = random[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    random[0] = x
    return int((x >> np.uint64(11)) % np.uint64(n))
