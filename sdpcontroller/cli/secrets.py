"""Secrets that commands are given: in the environment, or in a file that the environment names."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from scheduler.errors import ClusterError
from scheduler.secret_files import read_secret
from sdpcontroller.errors import ControllerError

REDIS_PASSWORD: Final = "SDP_REDIS_PASSWORD"  # noqa: S105 - its name, not its value
MESOS_SECRET: Final = "SDP_MESOS_SECRET"  # noqa: S105
_METRICS_TOKEN: Final = "SDP_METRICS_TOKEN"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Secrets:
    """All that ``sdp master`` is given."""

    redis: str | None = field(default=None, repr=False)
    mesos: str | None = field(default=None, repr=False)
    metrics: str | None = field(default=None, repr=False)

    @classmethod
    def given(cls) -> Self:
        """Read them; raises as :func:`secret`."""
        return cls(secret(REDIS_PASSWORD), secret(MESOS_SECRET), secret(_METRICS_TOKEN))


def secret(name: str) -> str | None:
    """Return the value of a variable, or what is in the file that ``NAME_FILE`` names; None if neither is set.

    Raises
    ------
    ControllerError
        If both are set, or the file cannot be read, is empty, or can be read by others; the message holds
        no secret.
    """
    value, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if path is None:
        return value
    if value is not None:
        raise ControllerError(f"{name} and {name}_FILE are both set: give one")
    try:
        text = read_secret(Path(path), f"the secret of {name}_FILE").strip()
    except ClusterError as exc:
        raise ControllerError(str(exc)) from exc
    if not text:
        raise ControllerError(f"the file of {name}_FILE, {path}, is empty")
    return text
