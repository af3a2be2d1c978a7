"""Images as the local Docker engine has them, by its HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import aiodocker
import aiohttp

from scheduler.errors import ImageError
from scheduler.images.names import DIGEST, ImageName
from scheduler.images.resolver import ResolvedImage

SECONDS: Final = 10.0
MAX_LABELS: Final = 1000


class EngineImages:
    """Asks the engine on this machine what it would run under a name.

    Parameters
    ----------
    url
        Where it listens; None: as the ``docker`` command finds it.
    """

    def __init__(self, url: str | None = None, *, seconds: float = SECONDS) -> None:
        self._url = url
        self._seconds = seconds

    async def resolve(self, name: str) -> ResolvedImage:
        """Resolve one name; see :class:`~scheduler.images.ImageResolver`.

        An image that came from a registry is named by the digest that it has there; one that was made here
        has none, and is named by its id.
        """
        asked = ImageName.parse(name)
        try:
            async with asyncio.timeout(self._seconds), aiodocker.Docker(self._url) as engine:
                found: Mapping[str, Any] = await engine.images.inspect(name)
        except aiodocker.DockerError as exc:
            if exc.status == 404:
                raise ImageError(f"the Docker engine has no image {name}") from exc
            raise ImageError(f"the Docker engine does not tell of {name}: {exc.message}") from exc
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as exc:
            raise ImageError(f"the Docker engine does not tell of {name}: {exc!r}") from exc
        if not isinstance(found, Mapping):
            raise ImageError(f"the Docker engine tells something else of {name}")
        return _read(name, asked, found)


def _read(name: str, asked: ImageName, found: Mapping[str, Any]) -> ResolvedImage:
    labels = read_labels(found.get("Config"))
    digests = found.get("RepoDigests")
    for text in digests if isinstance(digests, list) else ():
        with contextlib.suppress(ImageError, TypeError):  # «<none>@<none>», from old engines
            known = ImageName.parse(text)
            if (known.host, known.path) == (asked.host, asked.path) and known.digest:
                return ResolvedImage(name, str(asked.at(known.digest)), known.digest, labels)
    image_id = found.get("Id")
    if not isinstance(image_id, str) or DIGEST.fullmatch(image_id) is None:
        raise ImageError(f"the Docker engine tells no id of {name}")
    return ResolvedImage(name, image_id, image_id, labels)


def read_labels(config: object) -> dict[str, str]:
    """Return the labels in an image's configuration; those that are no texts are passed over."""
    labels = config.get("Labels") if isinstance(config, Mapping) else None
    if not isinstance(labels, Mapping):
        return {}
    texts = {k: v for k, v in labels.items() if isinstance(k, str) and isinstance(v, str)}
    return dict(list(texts.items())[:MAX_LABELS])
