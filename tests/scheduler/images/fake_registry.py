"""A registry at the protocol's edge: what real ones answer, and what hostile ones might."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@dataclass
class FakeRegistry:
    """One repository, ``sdp/cal``."""

    bearer: str = ""
    """Where not empty, whoever asks needs it."""
    basic: str = ""
    """``USER:PASSWORD`` that is asked for; for the token, if there is one."""
    head: bool = True
    """Whether it knows HEAD and tells digests."""
    realm: str = ""
    redirects: int = 0
    """How often a blob is somewhere else."""
    redirect_to: str = ""
    status: int = 0
    """Answered to everything, where not 0."""
    busy: list[int] = field(default_factory=list)
    """Answered to the next questions; 0: nothing is wrong."""
    retry_after: str = ""
    """``Retry-After`` of these."""
    blob_fault: str = ""
    """What is wrong with the blobs: they are where nobody is, or are never sent, or not now."""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Type and body by tag and by digest."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, ``Authorization`` of each request."""
    port: int = 0
    scheme: str = "http"

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def add(self, tag: str, *, oci: bool = True, index: bool = True, **labels: str) -> str:
        """Put an image there; return the digest of what the tag names."""
        config = json.dumps({"config": {"Labels": labels}}).encode()
        self.blobs[sha256(config)] = config
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST if oci else DOCKER_MANIFEST,
                "config": {"digest": sha256(config), "size": len(config)},
                "layers": [],
            }
        ).encode()
        self.put(sha256(manifest), OCI_MANIFEST if oci else DOCKER_MANIFEST, manifest)
        if not index:
            return self.put(tag, OCI_MANIFEST if oci else DOCKER_MANIFEST, manifest)
        kind = OCI_INDEX if oci else DOCKER_LIST
        entries = [
            {"digest": sha256(b"arm"), "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": sha256(manifest), "platform": {"os": "linux", "architecture": "amd64"}},
        ]
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
        return self.put(tag, kind, body)

    def put(self, tag: str, kind: str, body: bytes) -> str:
        self.manifests[tag] = self.manifests[sha256(body)] = kind, body
        return sha256(body)

    # ------------------------------------------------------------------ answers

    async def answer(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        self.requests.append((request.method, request.path, authorization))
        if status := (self.busy.pop(0) if self.busy else 0) or self.status:
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.Response(status=status, headers=headers)
        if request.path == "/token":
            return self._give_token(request, authorization)
        if refusal := self._refusal(authorization):
            return refusal
        parts = request.path.split("/")
        if request.path.startswith("/v2/sdp/cal/manifests/"):
            return self._manifest(request, parts[-1])
        if request.path.startswith("/v2/sdp/cal/blobs/"):
            if self.blob_fault == "silent":
                await asyncio.sleep(3600)
            return self._blob(request, parts[-1])
        return web.Response(status=404)

    def _refusal(self, authorization: str) -> web.Response | None:
        if self.bearer:
            if authorization == f"Bearer {self.bearer}":
                return None
            realm = self.realm or f"{self.scheme}://{self.host}/token"
            challenge = f'Bearer realm="{realm}",service="fake",scope="repository:sdp/cal:pull"'
        elif self.basic:
            if authorization == self._basic():
                return None
            challenge = 'Basic realm="fake"'
        else:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(self.basic.encode()).decode()

    def _give_token(self, request: web.Request, authorization: str) -> web.Response:
        if self.basic and authorization != self._basic():
            return web.Response(status=401)
        assert request.query["scope"] == "repository:sdp/cal:pull"
        assert request.query["service"] == "fake"
        return web.json_response({"token": self.bearer})

    def _manifest(self, request: web.Request, reference: str) -> web.Response:
        if reference not in self.manifests or (request.method == "HEAD" and not self.head):
            return web.Response(status=404)
        kind, body = self.manifests[reference]
        headers = {"Content-Type": kind}
        if self.head:
            headers["Docker-Content-Digest"] = sha256(body)
        return web.Response(body=body, headers=headers)

    def _blob(self, request: web.Request, digest: str) -> web.Response:
        if self.blob_fault == "busy":
            return web.Response(status=503)
        if self.redirects:
            self.redirects -= 1
            location = self.redirect_to or str(request.url)
            return web.Response(status=307, headers={"Location": location})
        return web.Response(body=self.blobs[digest])


@contextlib.asynccontextmanager
async def serving(
    registry: FakeRegistry, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FakeRegistry]:
    """Let it listen on a free port of this machine."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", registry.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0, ssl_context=tls)
    await site.start()
    registry.port = runner.addresses[0][1]
    registry.scheme = "http" if tls is None else "https"
    try:
        yield registry
    finally:
        await runner.cleanup()
