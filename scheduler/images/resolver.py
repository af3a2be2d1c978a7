"""Who resolves names of images, and a cache in front of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from scheduler.errors import ImageError

logger = logging.getLogger(__name__)

FRESH: Final = 300.0
STALE: Final = 86400.0
REFUSED: Final = 10.0
MAX_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """What a name means now."""

    name: str
    """As it was asked for."""
    reference: str
    """What to run: the name with the digest."""
    digest: str
    labels: Mapping[str, str] = field(default_factory=dict)


class ImageResolver(Protocol):
    """Whoever turns names into digests."""

    async def resolve(self, name: str) -> ResolvedImage:
        """Resolve one name.

        Raises
        ------
        ImageError
            If there is no such image, or nobody answers.
        """


@dataclass(slots=True)
class _Kept:
    answer: ResolvedImage | ImageError
    at: float


class CachedImages:
    """Resolves names, and remembers the answers for a while.

    Who asks for what is being asked for already waits for the same answer. When the source does not answer any
    more, the last answer holds for longer: an observation goes before the newest image.

    Parameters
    ----------
    source
        Who is asked.
    overrides
        What to run instead, by name as it is asked for: another name or tag, or one with a digest.
    fresh, stale, refused
        Seconds for which an answer holds; for which it does when the source fails; for which a refusal holds.
    """

    def __init__(
        self,
        source: ImageResolver,
        *,
        overrides: Mapping[str, str] | None = None,
        fresh: float = FRESH,
        stale: float = STALE,
        refused: float = REFUSED,
    ) -> None:
        self._source = source
        self._overrides = dict(overrides or {})
        self._fresh, self._stale, self._refused = fresh, stale, refused
        self._kept: dict[str, _Kept] = {}
        self._asking: dict[str, asyncio.Task[ResolvedImage]] = {}

    async def resolve(self, name: str) -> ResolvedImage:
        """Resolve one name; see :class:`ImageResolver`."""
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(name)
        if kept is not None:
            failed = isinstance(kept.answer, ImageError)
            if now - kept.at < (self._refused if failed else self._fresh):
                return _given(kept.answer)
        if (task := self._asking.get(name)) is None:
            task = self._asking[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End whatever is being asked."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, name: str) -> ResolvedImage:
        clock = asyncio.get_running_loop().time
        before = self._kept.get(name)
        try:
            found = await self._source.resolve(self._overrides.get(name, name))
        except ImageError as exc:
            usable = before is not None and not isinstance(before.answer, ImageError)
            if before is not None and usable and clock() - before.at < self._stale:
                logger.warning("the last known digest of %s is used: %s", name, exc)
                return _given(before.answer)
            self._keep(name, exc)
            raise
        answer = ResolvedImage(name, found.reference, found.digest, found.labels)
        self._keep(name, answer)
        return answer

    def _keep(self, name: str, answer: ResolvedImage | ImageError) -> None:
        self._kept.pop(name, None)
        self._kept[name] = _Kept(answer, asyncio.get_running_loop().time())
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]


def _given(answer: ResolvedImage | ImageError) -> ResolvedImage:
    if isinstance(answer, ImageError):
        raise ImageError(str(answer))
    return answer
