"""Names of container images, as Docker reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from scheduler.errors import ImageError

DOCKER_HUB: Final = "docker.io"
_HUB_NAMES: Final = (DOCKER_HUB, "index.docker.io")
_HUB_HOST: Final = "registry-1.docker.io"
"""Where Docker Hub's registry answers."""
MAX_NAME: Final = 1000

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageName:
    """``[HOST[:PORT]/]PATH[:TAG][@DIGEST]``."""

    host: str
    """The registry; :data:`DOCKER_HUB` where the name has none."""
    path: str
    tag: str = "latest"
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name.

        Raises
        ------
        ImageError
            If it is none.
        """
        match = _NAME.fullmatch(text) if len(text) <= MAX_NAME else None
        if match is None:
            raise ImageError(
                f"{text[:100]!r} is no name of an image: expected [HOST[:PORT]/]PATH[:TAG][@sha256:…]"
            )
        host, path = match["host"], match["path"]
        if host is not None and not _is_host(host):  # the first part of a path on Docker Hub
            host, path = None, f"{host}/{path}"
        if host is None or host in _HUB_NAMES:
            host, path = DOCKER_HUB, path if "/" in path else f"library/{path}"
        return cls(host, path, match["tag"] or "latest", match["digest"] or "")

    @property
    def api_host(self) -> str:
        """Where the registry's API answers."""
        return _HUB_HOST if self.host == DOCKER_HUB else self.host

    @property
    def reference(self) -> str:
        """What manifests are asked for by: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def at(self, digest: str) -> Self:
        """Return the same name with a digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        """Write it so that Docker reads the same; the tag is for people where there is a digest."""
        text = f"{self.host}/{self.path}:{self.tag}"
        return f"{text}@{self.digest}" if self.digest else text


def _is_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost" or part != part.lower()
