"""TLS of what the scheduler serves: how tasks are answered, and whom they believe.

Certificates are read, checked and renewed by whoever starts the scheduler; here is what it does with them.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

HANDSHAKE_SECONDS: Final = 10.0
"""How long somebody may take over a handshake; then his connection is cut, whoever he is."""
CLOSE_SECONDS: Final = 2.0
"""How long the other side may take to say good-bye."""
MAX_TRUST: Final = 16 * 1024
"""Bytes of the certificates that travel in the environment of each waiting task."""


@dataclass(frozen=True, slots=True)
class GoAheadTls:
    """How the go-ahead is served over TLS, and how tasks know that it is ours."""

    context: ssl.SSLContext | None = None
    """With certificate and key; None: it is served over plain HTTP (somebody before it may speak TLS)."""
    trust: str = ""
    """Certificates (PEM, `MAX_TRUST` at most) that may vouch for the controllers; empty: those that an image
    trusts by itself."""
    unverified: bool = False
    """Whether tasks whose image has no program that can check a certificate may ask all the same."""
