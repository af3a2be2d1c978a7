"""HTTP basic authentication, as Mesos has it: principals and their secrets, read from a file.

The file is JSON as Mesos' ``--credentials`` has it, ``{"credentials": [{"principal": "p", "secret": "s"}]}``,
or has a principal and a secret on each line. A secret is never taken from a command line, and never logged.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.errors import ClusterError
from scheduler.secret_files import read_secret

SCHEDULER_REALM = "mesos-master-scheduler"
READONLY_REALM = "mesos-master-readonly"
READWRITE_REALM = "mesos-master-readwrite"
AGENT_REALM = "mesos-agent-readonly"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may speak."""

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By principal."""

    @classmethod
    def read(cls, path: Path) -> Credentials:
        """Read a file of credentials.

        Raises
        ------
        ClusterError
            If it cannot be read, others may read it, or it is none; the message holds no secret.
        """
        text = read_secret(path, "the credentials")
        secrets = _json(text) if text.lstrip().startswith("{") else _lines(text)
        if not secrets:
            raise ClusterError(
                f"{path} holds no credentials: expected lines 'principal secret', or "
                '{"credentials": [{"principal": "…", "secret": "…"}]}'
            )
        return cls(secrets)

    def principal(self, header: str | None) -> str | None:
        """Return who has sent an ``Authorization`` header; None for nobody whom we know."""
        kind, _, encoded = (header or "").partition(" ")
        if kind != "Basic":
            return None
        try:
            given = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        principal, colon, secret = given.partition(":")
        expected = self.secrets.get(principal)
        # As much work for a principal that is not known as for a wrong secret.
        same = hmac.compare_digest(secret.encode(), (expected or secret + "x").encode())
        return principal if colon and expected is not None and same else None


def _json(text: str) -> dict[str, str]:
    try:
        entries = json.loads(text)["credentials"]
        return {str(entry["principal"]): str(entry["secret"]) for entry in entries}
    except (ValueError, KeyError, TypeError):
        return {}


def _lines(text: str) -> dict[str, str]:
    pairs = [line.split() for line in text.splitlines() if line.strip()]
    return dict(pairs) if all(len(pair) == 2 for pair in pairs) else {}
