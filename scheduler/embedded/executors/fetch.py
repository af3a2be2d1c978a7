"""Fetching of ``CommandInfo.uris`` into a sandbox: local files, and HTTP.

The production agents' fetcher knows more schemes. What this one does not know fails the launch, as a fetch that
fails does with Mesos. Everything here blocks; it is for worker threads.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

MAX_BYTES: Final = 16 << 30
"""Of one file."""
MAX_CACHE: Final = 2 << 30
"""Bytes that the cache holds; what was used longest ago goes first (Mesos: ``--fetcher_cache_size``)."""
STALL: Final = 60.0
"""Seconds for which a server may be silent."""
LONGEST: Final = 3600.0
"""Seconds that one file may take."""
_CHUNK: Final = 1 << 20
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_ZIP = ".zip"


class FetchError(ValueError):
    """A URI cannot be fetched; the message is for the sandbox' stderr."""


def fetch(uri: Mapping[str, Any], sandbox: Path, cache: Path | None = None) -> Path:
    """Bring one URI into the sandbox.

    Parameters
    ----------
    uri
        ``CommandInfo.URI``.
    sandbox
        Where to.
    cache
        Folder for what is to be fetched once (``cache: true``); None: everything is fetched each time.

    Returns
    -------
    Path
        Where the file is, or where an archive has been unpacked.

    Raises
    ------
    FetchError
        If it is neither a local file nor at an HTTP address, would land outside the sandbox, or cannot be read.
    """
    text = uri["value"]
    remote = urlsplit(text).scheme in ("http", "https")
    name = PurePosixPath(unquote(urlsplit(text).path) if remote else text).name
    target = _target(uri.get("output_file") or name, sandbox)
    unpack = uri.get("extract", True) and not uri.get("executable") and _is_archive(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=sandbox.parent, prefix=".fetch-") as folder:
            source = _source(text, Path(folder) / (name or "file"), uri, cache)
            if unpack:
                return _unpack(source, sandbox)
            shutil.copyfile(source, target)
        if uri.get("executable"):
            target.chmod(0o755)
    except (OSError, shutil.Error, tarfile.TarError, http.client.HTTPException, ValueError) as exc:
        raise FetchError(f"Failed to fetch '{text}': {exc}") from exc
    return target


def _source(text: str, scratch: Path, uri: Mapping[str, Any], cache: Path | None) -> Path:
    """Return a local file with what the URI names."""
    if urlsplit(text).scheme not in ("http", "https"):
        return _local(text)
    if cache is None or not uri.get("cache"):
        _download(text, scratch)
        return scratch
    kept = cache / hashlib.sha256(text.encode()).hexdigest() / scratch.name
    if kept.exists():
        os.utime(kept)
        return kept
    _download(text, scratch)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(scratch, kept.with_name(f".{kept.name}"))
    kept.with_name(f".{kept.name}").replace(kept)
    _evict(cache)
    return scratch


def _local(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        raise ValueError("this agent fetches local files and http only")
    path = Path(unquote(parts.path) if parts.scheme else uri)
    if not path.is_absolute():
        raise ValueError("not an absolute path")
    return path


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens HTTP and nothing else, also after a redirection."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _download(url: str, target: Path) -> None:
    deadline = time.monotonic() + LONGEST
    with _opener().open(url, timeout=STALL) as answer, target.open("wb") as file:
        _copy(answer, file, deadline)


def _copy(answer: IO[bytes], file: IO[bytes], deadline: float) -> None:
    size = 0
    while chunk := answer.read(_CHUNK):
        size += len(chunk)
        if size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise ValueError(f"not done after {LONGEST:.0f} s")
        file.write(chunk)


def _evict(cache: Path) -> None:
    """Remove what was used longest ago until the rest fits."""
    files = sorted(cache.glob("*/*"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > MAX_CACHE:
            path.unlink(missing_ok=True)


def _target(name: str, sandbox: Path) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise FetchError(f"Failed to fetch into '{name}': not a path inside the sandbox")
    return sandbox / path


def _is_archive(name: str) -> bool:
    return name.endswith((*_ARCHIVES, _ZIP))


def _unpack(source: Path, sandbox: Path) -> Path:
    """Unpack without ever writing outside; ``zipfile`` sees to that by itself."""
    if source.name.endswith(_ZIP):
        shutil.unpack_archive(source, sandbox, "zip")
    else:
        with tarfile.open(source) as archive:
            archive.extractall(sandbox, filter="data")
    return sandbox
