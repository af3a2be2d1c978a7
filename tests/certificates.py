"""Certificates for tests, made as they run."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme

DAY = datetime.timedelta(days=1)


class Authority:
    """Somebody who vouches for servers.

    Parameters
    ----------
    folder
        Where files are written.
    """

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self._count = 0
        self.pem = self._ca.cert_pem.bytes().decode()
        """Its own certificate: for whoever shall believe it."""

    @property
    def file(self) -> Path:
        """A file with its own certificate."""
        path = self._folder / f"authority-{id(self)}.pem"
        path.write_text(self.pem)
        return path

    @property
    def trust(self) -> ssl.SSLContext:
        """For clients who believe it, and nobody else."""
        return ssl.create_default_context(cadata=self.pem)

    def issue(self, *names: str, days: float = 90, since: float = -1) -> Path:
        """Return a file with a new certificate for names or addresses, and its key.

        Parameters
        ----------
        days, since
            Until and from when it holds, from now.
        """
        now = datetime.datetime.now(datetime.UTC)
        leaf = self._ca.issue_cert(*names, not_before=now + since * DAY, not_after=now + days * DAY)
        self._count += 1
        path = self._folder / f"issued-{id(self)}-{self._count}.pem"
        path.touch(0o600)
        path.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
        return path

    def context(self, *names: str, days: float = 90) -> ssl.SSLContext:
        """For a server with a new certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.issue(*names, days=days))
        return context
