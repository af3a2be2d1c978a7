"""Handshakes in memory: what a client would say of a certificate."""

from __future__ import annotations

import ssl
from typing import Any, Final

_ROUNDS: Final = 10
"""A handshake takes three."""
_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME (x509_vfy.h), which Python has no name for."""


def meet(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "") -> dict[str, Any]:
    """Let a client ask a server, and return the server's certificate as ``ssl`` describes it.

    Parameters
    ----------
    name
        Host name or address by which the client asks.

    Raises
    ------
    ssl.SSLError
        If they do not come together; ``SSLCertVerificationError`` says what the client does not like.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name or None)
    asked = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_ROUNDS):
        waits = False
        for side in (asking, asked):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waits = True
        if not waits:
            break
    return asking.getpeercert() or {}


def facts(server: ssl.SSLContext, leaf: str) -> dict[str, Any]:
    """Return what is in a server's certificate, whoever has signed it and however old it is.

    Parameters
    ----------
    leaf
        The certificate itself (PEM).
    """
    client = ssl.create_default_context(cadata=leaf)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return meet(server, client)


def disbelief(server: ssl.SSLContext, name: str, trust: str, *, partial: bool = False) -> str:
    """Return why a client would not believe a server; empty if it would.

    Parameters
    ----------
    name
        Host name or address by which the client asks.
    trust
        Certificates (PEM) that the client believes.
    partial
        Whether these may be the server's own, or those of others who are themselves vouched for.
    """
    client = ssl.create_default_context(cadata=trust)
    if partial:
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    try:
        meet(server, client, name)
    except ssl.SSLCertVerificationError as exc:
        return str(exc.verify_message)
    except ssl.SSLError as exc:
        return str(exc)
    return ""
