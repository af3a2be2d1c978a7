"""From a document to queues: everything that is wrong with it is told at once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sdpcontroller.config import document as documents
from sdpcontroller.config.problems import from_pydantic, refuse
from sdpcontroller.errors import ConfigError
from sdpcontroller.queues.model import QueuesConfig


def read(path: Path) -> QueuesConfig:
    """Read a file: TOML where its name ends so, else JSON.

    Raises
    ------
    ConfigError
        If it cannot be read, or is no such document; the message names the file, and for each problem path,
        value and rule.
    """
    try:
        with path.open("rb") as file:
            text = file.read(documents.MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"the queues cannot be read: {path}: {exc.strerror or exc}") from exc
    try:
        return parse(text, toml=path.suffix == ".toml")
    except ConfigError as exc:
        lines = str(exc).splitlines()
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from exc


def parse(text: str | bytes, *, toml: bool = False) -> QueuesConfig:
    """Read a document; raises as :func:`read`."""
    document = documents.checked(_from_toml(text)) if toml else documents.load(text)
    try:
        config = QueuesConfig.model_validate(document)
    except ValidationError as exc:
        raise refuse(from_pydantic(exc, QueuesConfig, document)) from None
    if problems := config.problems():
        raise refuse(problems)
    return config


def _from_toml(text: str | bytes) -> dict[str, Any]:
    size = len(text)
    if size > documents.MAX_BYTES:
        raise ConfigError(f"the document has {size} bytes: at most {documents.MAX_BYTES} are read")
    try:
        return tomllib.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"the document is not TOML: {exc}") from None
