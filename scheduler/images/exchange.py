"""One question to a registry: who we are, where it sends us, and how much it may say."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from scheduler.errors import ImageError
from scheduler.images.credentials import Credentials
from scheduler.images.names import ImageName

MANIFEST_TYPES: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
MAX_REDIRECTS: Final = 3
MAX_TOKEN: Final = 64 * 1024
MAX_TOKENS: Final = 1000
CONNECT_SECONDS: Final = 5.0
BUSY: Final = (429, 500, 502, 503, 504)
"""Statuses that may be others a moment later."""
PAUSES: Final = (0.5, 1.5)
"""Seconds before a question that met one of them is asked again."""
MAX_PAUSE: Final = 10.0
"""Seconds for which a registry may ask us to wait; who asks for more is asked by somebody else later."""
_CHALLENGE: Final = re.compile(r'([A-Za-z_]{1,40})="([^"\\]{0,1000})"')


@dataclass(frozen=True, slots=True)
class Answer:
    """What a registry answered."""

    status: int
    body: bytes
    digest: str
    """``Docker-Content-Digest``, unchecked; empty if it does not say."""
    challenge: str = ""
    """``WWW-Authenticate``."""
    retry_after: float = 0.0
    """Seconds after which it wants to be asked again; 0 if it does not say."""


class Exchange:
    """Speaks to registries.

    Parameters
    ----------
    plain
        Registries that are asked without TLS.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        credentials: Mapping[str, Credentials],
        plain: Collection[str],
    ) -> None:
        timeout = aiohttp.ClientTimeout(connect=CONNECT_SECONDS)
        connector = aiohttp.TCPConnector(ssl=context)
        # what is not unpacked cannot be a small answer that becomes a large one
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            connector=connector,
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )
        self._credentials = credentials
        self._plain = plain
        self._tokens: dict[tuple[str, str], str] = {}
        """Values of ``Authorization`` by registry and path."""

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ask(
        self, method: str, image: ImageName, path: str, most: int, *, accept: str = "*/*"
    ) -> Answer:
        """Ask for something of an image, as whoever we are there.

        Parameters
        ----------
        path
            Below ``/v2/PATH/``.
        most
            Bytes that are read at most.

        Raises
        ------
        ImageError
            If it answers too much, sends us round in circles, or does not let us in.
        aiohttp.ClientError
            If it does not answer.
        """
        scheme = "http" if image.host in self._plain else "https"
        url = f"{scheme}://{image.api_host}/v2/{image.path}/{path}"
        key = image.host, image.path
        answer = await _patiently(
            lambda: self._send(method, url, most, accept, self._tokens.get(key))
        )
        if answer.status == 401:
            self._tokens.pop(key, None)
            authorization = await self._authorize(image, answer.challenge, scheme)
            if len(self._tokens) >= MAX_TOKENS:
                self._tokens.clear()
            self._tokens[key] = authorization
            answer = await _patiently(lambda: self._send(method, url, most, accept, authorization))
        if answer.status in (401, 403):
            who = "with" if image.host in self._credentials else "without"
            raise ImageError(f"{image.host} does not let us see {image}, {who} credentials")
        return answer

    async def _send(
        self, method: str, url: str, most: int, accept: str, authorization: str | None
    ) -> Answer:
        """Send one request, wherever that leads; who we are is told to the first only."""
        headers = {"Accept": accept}
        first = urlsplit(url)
        for _ in range(MAX_REDIRECTS + 1):
            here = urlsplit(url)
            at_home = (here.scheme, here.netloc) == (first.scheme, first.netloc)
            sent = (
                {**headers, "Authorization": authorization}
                if authorization and at_home
                else headers
            )
            async with self._session.request(
                method, url, headers=sent, allow_redirects=False
            ) as response:
                if response.status not in (301, 302, 303, 307, 308):
                    return await _read(response, most)
                url = _next_url(url, response.headers.get("Location", ""))
        raise ImageError(f"{first.netloc} redirects more than {MAX_REDIRECTS} times")

    async def _authorize(self, image: ImageName, challenge: str, scheme: str) -> str:
        """Do what a registry asks for to let us in; return the value of ``Authorization``."""
        credentials = self._credentials.get(image.host)
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic" and credentials is not None:
            return credentials.basic
        if kind.lower() != "bearer":
            raise ImageError(
                f"{image.host} wants credentials for {image}, and there are none (helpers are not run)"
            )
        asked = {key.lower(): value for key, value in _CHALLENGE.findall(rest)}
        realm = urlsplit(asked.get("realm", ""))
        if not realm.netloc or realm.scheme not in ("https", scheme) or realm.username is not None:
            raise ImageError(f"{image.host} names no safe place to get a token from")
        return await self._fetch_token(image, asked, credentials)

    async def _fetch_token(
        self, image: ImageName, asked: Mapping[str, str], credentials: Credentials | None
    ) -> str:
        query = {"scope": asked.get("scope") or f"repository:{image.path}:pull"}
        if service := asked.get("service"):
            query["service"] = service
        headers = {} if credentials is None else {"Authorization": credentials.basic}

        async def fetch() -> Answer:
            async with self._session.get(
                asked["realm"], params=query, headers=headers, allow_redirects=False
            ) as response:
                return await _read(response, MAX_TOKEN)

        answer = await _patiently(fetch)
        where = urlsplit(asked["realm"]).netloc
        if answer.status != 200:
            raise ImageError(f"{where} gives no token for {image}: it answers {answer.status}")
        try:
            document = json.loads(answer.body)
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ImageError(f"{where} gives something that is no token for {image}")
        return f"Bearer {token}"


async def _patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask again where a registry is busy, after as long as it says; the answer is the last one."""
    for pause in PAUSES:
        answer = await ask()
        if answer.status not in BUSY or answer.retry_after > MAX_PAUSE:
            return answer
        await asyncio.sleep(max(pause, answer.retry_after))
    return await ask()


def _next_url(url: str, location: str) -> str:
    """Return where a redirect leads; never from TLS to none."""
    following = urljoin(url, location)
    before, after = urlsplit(url), urlsplit(following)
    if not location or after.scheme not in ("https", before.scheme) or after.username is not None:
        raise ImageError(f"{before.netloc} redirects to where nobody should go")
    return following


async def _read(response: aiohttp.ClientResponse, most: int) -> Answer:
    body = bytearray()
    if response.status == 200 and response.method != "HEAD":
        async for chunk in response.content.iter_chunked(64 * 1024):
            body += chunk
            if len(body) > most:
                raise ImageError(f"{response.host} answers more than {most} bytes")
    headers = response.headers
    return Answer(
        response.status,
        bytes(body),
        headers.get("Docker-Content-Digest", ""),
        headers.get("WWW-Authenticate", "")[:4000],
        _seconds(headers.get("Retry-After", "")),
    )


def _seconds(text: str) -> float:
    """Return how long ``Retry-After`` says; a date, which some send, is longer than anybody waits."""
    if not text.strip():
        return 0.0
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else inf
