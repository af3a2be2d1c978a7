"""Fetching of ``CommandInfo.uris`` into a sandbox.

Local files only (``/path`` and ``file:///path``); the production agents' fetcher knows more schemes. What this
one does not know fails the launch, as a fetch that fails does with Mesos.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_ZIP = ".zip"


class FetchError(ValueError):
    """A URI cannot be fetched; the message is for the sandbox' stderr."""


def fetch(uri: Mapping[str, Any], sandbox: Path) -> Path:
    """Bring one URI into the sandbox. Blocks; for a worker thread.

    Returns
    -------
    Path
        Where the file is, or where an archive has been unpacked.

    Raises
    ------
    FetchError
        If it is not a local file, would land outside the sandbox, or cannot be read.
    """
    source = _local(uri["value"])
    target = _target(uri.get("output_file") or source.name, sandbox)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if uri.get("extract", True) and not uri.get("executable") and _is_archive(source):
            return _unpack(source, sandbox)
        shutil.copyfile(source, target)
        if uri.get("executable"):
            target.chmod(0o755)
    except (OSError, shutil.Error, tarfile.TarError, ValueError) as exc:
        raise FetchError(f"Failed to fetch '{uri['value']}': {exc}") from exc
    return target


def _local(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        raise FetchError(f"Failed to fetch '{uri}': this agent fetches local files only")
    path = Path(unquote(parts.path) if parts.scheme else uri)
    if not path.is_absolute():
        raise FetchError(f"Failed to fetch '{uri}': not an absolute path")
    return path


def _target(name: str, sandbox: Path) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise FetchError(f"Failed to fetch into '{name}': not a path inside the sandbox")
    return sandbox / path


def _is_archive(source: Path) -> bool:
    return source.name.endswith((*_ARCHIVES, _ZIP))


def _unpack(source: Path, sandbox: Path) -> Path:
    """Unpack without ever writing outside; ``zipfile`` sees to that by itself."""
    if source.name.endswith(_ZIP):
        shutil.unpack_archive(source, sandbox, "zip")
    else:
        with tarfile.open(source) as archive:
            archive.extractall(sandbox, filter="data")
    return sandbox
