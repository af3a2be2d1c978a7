"""A certificate with its key, as they were read from their files."""

from __future__ import annotations

import os
import ssl
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from sdpcontroller.certificates.handshake import disbelief, facts
from sdpcontroller.certificates.trust import BLOCK, read_pem
from sdpcontroller.errors import ControllerError

_CLOCKS_DIFFER: Final = 300.0
"""Seconds by which a certificate may begin later than our clock says."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What those who ask will want of a certificate."""

    hosts: Sequence[str] = ()
    """Names or addresses that they ask by; it must be for one of these: others are of other controllers."""
    trust: str = ""
    """Certificates (PEM) that they believe; empty: not known."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, which fit together."""

    begins: float
    """Unix time."""
    ends: float
    """Unix time."""
    chain: str = field(repr=False)
    """PEM; whatever else is in its file, too, the key perhaps."""
    key: str = field(repr=False)
    """PEM."""

    def show(self, context: ssl.SSLContext) -> None:
        """Let a server show it from its next handshake on."""
        with _in_memory(self.chain) as chain, _in_memory(self.key) as key:
            context.load_cert_chain(chain, key, password=_encrypted)


def read_pair(certificate: Path, key: Path | None, demands: Demands) -> Pair:
    """Read a certificate with its chain, and its key, and check them.

    Parameters
    ----------
    key
        None: it is in the same file.

    Raises
    ------
    ControllerError
        If they cannot be read, do not belong together, are too old, or not what is demanded; or if somebody
        else may read the key.
    """
    chain = read_pem(certificate, "the certificate")
    leaf = BLOCK.search(chain)
    if leaf is None:
        raise ControllerError(f"{certificate} holds no certificate (PEM)")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pair = Pair(0, 0, chain, _read_key(key or certificate))
    try:
        pair.show(context)
        told = facts(context, leaf[0])
    except ssl.SSLError as exc:
        raise ControllerError(_unfit(certificate, key or certificate, exc)) from exc
    pair = Pair(_time(told["notBefore"]), _time(told["notAfter"]), chain, pair.key)
    _check_time(certificate, pair)
    _check_demands(certificate, context, demands, leaf[0])
    return pair


def _read_key(path: Path) -> str:
    text = read_pem(path, "the key")
    if path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):  # a group may be who keeps keys
        raise ControllerError(
            f"others may read the key in {path}, or change it: chmod 600 it, and get a new one if that was so "
            "for long"
        )
    return text


def _unfit(certificate: Path, key: Path, exc: ssl.SSLError) -> str:
    if exc.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} does not belong to the certificate in {certificate}"
    return f"no TLS with the certificate in {certificate} and the key in {key}: {exc}"


def _check_time(path: Path, pair: Pair) -> None:
    now = time.time()
    if now >= pair.ends:
        raise ControllerError(f"the certificate in {path} has ended, {date(pair.ends)}: renew it")
    if now + _CLOCKS_DIFFER < pair.begins:
        raise ControllerError(
            f"the certificate in {path} begins only {date(pair.begins)}; is this machine's clock right "
            f"({date(now)})?"
        )


def _check_demands(path: Path, context: ssl.SSLContext, demands: Demands, leaf: str) -> None:
    """Ask as they will ask."""
    trust, partial = (demands.trust, False) if demands.trust else (leaf, True)
    reasons = {host: disbelief(context, host, trust, partial=partial) for host in demands.hosts}
    if reasons and all(reasons.values()):
        told = "; ".join(f"as {host}: {reason}" for host, reason in reasons.items())
        raise ControllerError(f"nobody would believe the certificate in {path} ({told})")


def date(at: float) -> str:
    """Write a Unix time for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _time(text: Any) -> float:
    return float(ssl.cert_time_to_seconds(text))


def _encrypted() -> NoReturn:
    """OpenSSL asks for a password; without this on the terminal."""
    raise ControllerError("the key is encrypted: nobody is there to tell a password; decrypt it")


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """Give the name of a file that has no place: what was read is not read again, and a key not written."""
    fd = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
