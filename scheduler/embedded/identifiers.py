"""Random identifiers: the system's own, or of a seed, so that a simulation can be repeated."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Iterator
from contextvars import ContextVar

_SOURCE: ContextVar[random.Random | None] = ContextVar("source of identifiers", default=None)


def new_uuid() -> uuid.UUID:
    """Return a random UUID, from the seed of this context where it has one."""
    source = _SOURCE.get()
    if source is None:
        return uuid.uuid4()
    return uuid.UUID(int=source.getrandbits(128), version=4)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw identifiers from a seed, here and in tasks and timers that are made here."""
    token = _SOURCE.set(random.Random(seed))  # noqa: S311 - they are to be the same every time
    try:
        yield
    finally:
        _SOURCE.reset(token)
