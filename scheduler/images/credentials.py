"""Credentials for registries, from a file in the form of ``~/.docker/config.json``. They are never shown."""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scheduler.errors import ImageError
from scheduler.images.names import DOCKER_HUB

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 2**20
_HUB_KEYS: Final = frozenset(("https://index.docker.io/v1/", "index.docker.io", DOCKER_HUB))


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are at one registry."""

    user: str
    secret: str = field(repr=False)

    @property
    def basic(self) -> str:
        """Value of ``Authorization``."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


def read_credentials(path: Path) -> Mapping[str, Credentials]:
    """Read credentials by registry (``HOST[:PORT]``).

    Credential helpers are not run, which is logged; entries without credentials of their own are passed over.
    Where a registry has several entries, by path, that of the whole registry counts.

    Raises
    ------
    ImageError
        If the file cannot be read, or is malformed. Nothing of its content is in the message.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ImageError(f"{path}: more than {MAX_BYTES} bytes")
        document = json.loads(content)
    except (OSError, ValueError) as exc:
        # the text of a JSON error quotes the document
        reason = exc.strerror if isinstance(exc, OSError) else "it is no JSON"
        raise ImageError(
            f"credentials for registries cannot be read from {path}: {reason}"
        ) from None
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise ImageError(f"{path}: expected an object with 'auths' by registry")
    if helped := _helped(document):
        logger.warning(
            "%s: the credentials for %s are kept by helpers, which are not run here: put them into the file",
            path,
            ", ".join(helped),
        )
    found = {}
    for key, entry in sorted(auths.items(), key=lambda item: -item[0].count("/")):
        if (credentials := _read(path, key, entry)) is not None:
            found[_host(key)] = credentials
    return found


def _helped(document: Mapping[str, object]) -> list[str]:
    """Return for which registries others keep the credentials."""
    helpers = document.get("credHelpers")
    found = [str(key)[:100] for key in helpers] if isinstance(helpers, Mapping) else []
    return found + (["all others"] if document.get("credsStore") else [])


def _host(key: str) -> str:
    if key in _HUB_KEYS:
        return DOCKER_HUB
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _read(path: Path, key: str, entry: object) -> Credentials | None:
    wrong = ImageError(f"{path}: the entry of {key[:100]!r} is malformed")
    if not isinstance(entry, dict):
        raise wrong
    user, secret, auth = (entry.get(name) for name in ("username", "password", "auth"))
    if isinstance(user, str) and isinstance(secret, str):
        return Credentials(user, secret)
    if not auth:
        return None
    try:
        text = base64.b64decode(auth.strip(), validate=True).decode()
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise wrong from None
    user, colon, secret = text.partition(":")
    if not colon:
        raise wrong
    return Credentials(user, secret)
