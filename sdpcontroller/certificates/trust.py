"""Whom somebody believes: files of certificates that may vouch for others."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

from scheduler.tls import MAX_TRUST
from sdpcontroller.errors import ControllerError

BLOCK: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+?-----END CERTIFICATE-----"
)
_MAX_FILE: Final = 1 << 20
"""Bytes; the certificates of all of the web's authorities have a fifth of it."""


def read_pem(path: Path, what: str) -> str:
    """Read a file of certificates or keys.

    Raises
    ------
    ControllerError
        If it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ControllerError(f"{what} {path} has more than {_MAX_FILE} bytes")
        return data.decode("utf-8", errors="replace")  # comments may be in any language
    except OSError as exc:
        raise ControllerError(f"cannot read {what} {path}: {exc.strerror}") from exc


def read_trust(path: Path) -> str:
    """Return the certificates in a file, without what else is in it, for the environment of tasks.

    Raises
    ------
    ControllerError
        If there are none, or too many.
    """
    what = "the authority's certificate"
    found = BLOCK.findall(read_pem(path, what))
    text = "".join("\n".join(block.split("\n")) + "\n" for block in found).replace("\r", "")
    try:
        ssl.create_default_context(cadata=text or "none")
    except (ssl.SSLError, ValueError) as exc:
        raise ControllerError(f"{path} holds no certificate (PEM): {exc}") from exc
    if len(text) > MAX_TRUST:
        raise ControllerError(
            f"{path} holds {len(text)} bytes of certificates, and every waiting task gets them: give it only "
            f"the authority that has signed the controllers' ({MAX_TRUST} bytes at most)"
        )
    return text


def client_context(trust: Path | None) -> ssl.SSLContext:
    """Return what checks the certificates of servers: by a file of authorities, or by the system's.

    Raises
    ------
    ControllerError
        If there is no certificate in the file.
    """
    try:
        return ssl.create_default_context(cafile=trust)
    except OSError as exc:  # of ssl, too
        raise ControllerError(f"{trust} holds no certificate to check others with: {exc}") from exc
