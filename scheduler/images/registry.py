"""Images as a registry has them: the registry's HTTP API, version 2.

Sources: the OCI distribution specification 1.1 (manifests, HEAD, ``Docker-Content-Digest``), Docker's *token
authentication* (the Bearer challenge). Whatever a registry sends is bounded, and what has a digest is only
believed if it has that digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
from collections.abc import Collection, Mapping
from math import isfinite
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from scheduler.errors import ImageError
from scheduler.images.credentials import Credentials
from scheduler.images.engine import read_labels
from scheduler.images.exchange import BUSY, MANIFEST_TYPES, Answer, Exchange
from scheduler.images.names import DIGEST, ImageName
from scheduler.images.resolver import ResolvedImage

logger = logging.getLogger(__name__)

SECONDS: Final = 20.0
MAX_MANIFEST: Final = 4 * 2**20
"""The specification asks registries to take manifests up to this."""
MAX_CONFIG: Final = 8 * 2**20
MAX_PLATFORMS: Final = 1000
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


class _NotNowError(ImageError):
    """A registry cannot answer at the moment."""


class RegistryImages:
    """Asks registries what their names mean.

    An asynchronous context manager.

    Parameters
    ----------
    credentials
        By registry, ``HOST[:PORT]``.
    ca_file
        Certificates of authorities that registries are trusted by, in PEM, beside the system's.
    plain
        Registries (``HOST:PORT``) that are asked without TLS; nobody else is.
    platform
        Operating system and architecture whose labels are read, where an image has several.
    labels
        Whether labels are read at all; they cost two or three more requests.
    seconds
        How long one name may take.
    """

    def __init__(
        self,
        *,
        credentials: Mapping[str, Credentials] | None = None,
        ca_file: str | None = None,
        plain: Collection[str] = (),
        platform: tuple[str, str] = ("linux", "amd64"),
        labels: bool = True,
        seconds: float = SECONDS,
    ) -> None:
        self._credentials = dict(credentials or {})
        self._ca_file = ca_file
        self._plain = frozenset(plain)
        self._platform = platform
        self._labels = labels
        self._seconds = seconds
        self._exchange: Exchange | None = None

    async def __aenter__(self) -> Self:
        context = await asyncio.to_thread(_trust, self._ca_file)
        self._exchange = Exchange(context, self._credentials, self._plain)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._exchange is not None:
            await self._exchange.close()
            self._exchange = None

    async def resolve(self, name: str) -> ResolvedImage:
        """Resolve one name; see :class:`~scheduler.images.ImageResolver`."""
        image = ImageName.parse(name)
        if self._exchange is None:
            raise ImageError(f"{name} cannot be resolved: the client of registries is closed")
        try:
            async with asyncio.timeout(self._seconds):
                return await self._resolve(self._exchange, name, image)
        except TimeoutError:
            raise ImageError(
                f"{image.host} did not tell of {name} within {self._seconds:g} s"
            ) from None
        except aiohttp.ClientError as exc:
            raise ImageError(f"{image.host} does not tell of {name}: {_reason(exc)}") from exc

    async def _resolve(self, exchange: Exchange, name: str, image: ImageName) -> ResolvedImage:
        digest = image.digest or await self._digest(exchange, image)
        labels = await self._known_labels(exchange, image, digest) if self._labels else {}
        return ResolvedImage(name, str(image.at(digest)), digest, labels)

    async def _known_labels(
        self, exchange: Exchange, image: ImageName, digest: str
    ) -> dict[str, str]:
        """Return the labels; none where nobody answers: what is to be run is known without them."""
        try:
            async with asyncio.timeout(self._seconds / 2):
                return await self._read_labels(exchange, image, digest)
        except (TimeoutError, aiohttp.ClientError, _NotNowError) as exc:
            why = str(exc) or type(exc).__name__
            logger.warning("the labels of %s cannot be read: %.300s", image.at(digest), why)
            return {}

    async def _digest(self, exchange: Exchange, image: ImageName) -> str:
        """Ask for the digest alone; read the manifest where the registry does not tell it so."""
        head = await exchange.ask("HEAD", image, f"manifests/{image.tag}", 0, accept=MANIFEST_TYPES)
        if head.status == 200 and DIGEST.fullmatch(head.digest):
            return head.digest
        answer = await self._manifest(exchange, image, image.tag)
        return _sha256(answer.body)

    async def _manifest(self, exchange: Exchange, image: ImageName, reference: str) -> Answer:
        path = f"manifests/{reference}"
        answer = await exchange.ask("GET", image, path, MAX_MANIFEST, accept=MANIFEST_TYPES)
        _require_found(answer, image)
        told = reference if DIGEST.fullmatch(reference) else answer.digest
        if told and told != _sha256(answer.body):
            raise ImageError(f"{image.host} sent a manifest of {image} that is not {told[:100]}")
        return answer

    async def _read_labels(
        self, exchange: Exchange, image: ImageName, digest: str
    ) -> dict[str, str]:
        manifest = _document(await self._manifest(exchange, image, digest), image)
        if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            digest = _of_platform(manifest, self._platform, image)
            manifest = _document(await self._manifest(exchange, image, digest), image)
        config = manifest.get("config")
        blob = config.get("digest") if isinstance(config, Mapping) else None
        if not isinstance(blob, str) or DIGEST.fullmatch(blob) is None:
            raise ImageError(f"{image.host} sent a manifest of {image} without a configuration")
        answer = await exchange.ask("GET", image, f"blobs/{blob}", MAX_CONFIG)
        _require_found(answer, image)
        if _sha256(answer.body) != blob:
            raise ImageError(f"{image.host} sent a configuration of {image} that is not {blob}")
        return read_labels(_document(answer, image).get("config"))


def _trust(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise ImageError(f"no certificates can be read from {ca_file}: {exc}") from exc
    return context


def _require_found(answer: Answer, image: ImageName) -> None:
    if answer.status == 404:
        raise ImageError(f"{image.host} has no image {image}")
    if answer.status in BUSY:
        when = f"in {answer.retry_after:g} s" if isfinite(answer.retry_after) else "much later"
        later = f", and wants to be asked {when}" if answer.retry_after else ""
        raise _NotNowError(f"{image.host} answers {answer.status} when asked for {image}{later}")
    if answer.status != 200:
        raise ImageError(f"{image.host} answers {answer.status} when asked for {image}")


def _sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _document(answer: Answer, image: ImageName) -> Mapping[str, Any]:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, Mapping):
        raise ImageError(f"{image.host} sent something of {image} that is no JSON object")
    return document


def _of_platform(index: Mapping[str, Any], platform: tuple[str, str], image: ImageName) -> str:
    """Return the digest of the manifest for a platform."""
    entries = index.get("manifests")
    for entry in entries[:MAX_PLATFORMS] if isinstance(entries, list) else ():
        found = entry.get("platform") if isinstance(entry, Mapping) else None
        if not isinstance(found, Mapping):
            continue
        digest = entry.get("digest")
        fits = (found.get("os"), found.get("architecture")) == platform
        if fits and isinstance(digest, str) and DIGEST.fullmatch(digest):
            return digest
    raise ImageError(f"{image} is not made for {'/'.join(platform)}")


def _reason(error: aiohttp.ClientError) -> str:
    """Say what went wrong, without anything that a server may have put into it at length."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error})"[:300]
    return (str(error) or type(error).__name__)[:300]
