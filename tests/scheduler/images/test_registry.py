"""Tags become digests, whoever the registry is; what it says is bounded, and believed only if proven."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.errors import ImageError
from scheduler.images import Credentials, RegistryImages, exchange
from tests.scheduler.images.fake_registry import OCI_MANIFEST, FakeRegistry, serving, sha256


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serving(FakeRegistry()) as registry:
        yield registry


def client(registry: FakeRegistry, **settings: Any) -> RegistryImages:
    return RegistryImages(plain=[registry.host], **settings)


async def resolve(registry: FakeRegistry, tag: str = "v1", **settings: Any) -> Any:
    async with client(registry, **settings) as images:
        return await images.resolve(f"{registry.host}/sdp/cal:{tag}")


@pytest.mark.parametrize("oci", [True, False])
@pytest.mark.parametrize("index", [True, False])
async def test_a_tag_becomes_its_digest_and_labels_are_those_of_the_platform(
    registry: FakeRegistry, oci: bool, index: bool
) -> None:
    digest = registry.add("v1", oci=oci, index=index, version="1.2")
    found = await resolve(registry)
    assert found.digest == digest
    assert found.reference == f"{registry.host}/sdp/cal:v1@{digest}"
    assert found.labels == {"version": "1.2"}


async def test_a_head_is_enough_where_labels_are_not_wanted(registry: FakeRegistry) -> None:
    digest = registry.add("v1")
    assert (await resolve(registry, labels=False)).digest == digest
    assert [method for method, *_ in registry.requests] == ["HEAD"]


async def test_a_registry_that_does_not_know_head_is_asked_for_the_manifest(
    registry: FakeRegistry,
) -> None:
    registry.head = False
    digest = registry.add("v1", version="2")
    found = await resolve(registry)
    assert (found.digest, found.labels) == (digest, {"version": "2"})


async def test_a_name_with_a_digest_stays_as_it_is(registry: FakeRegistry) -> None:
    digest = registry.add("v1")
    async with client(registry, labels=False) as images:
        found = await images.resolve(f"{registry.host}/sdp/cal@{digest}")
    assert found.digest == digest
    assert registry.requests == []


@pytest.mark.parametrize("basic", ["", "sdp:pa:ss"])
async def test_a_token_is_fetched_once_for_all_questions(
    registry: FakeRegistry, basic: str
) -> None:
    registry.bearer, registry.basic = "t0ken", basic
    digest = registry.add("v1")
    credentials = {registry.host: Credentials("sdp", "pa:ss")} if basic else {}
    assert (await resolve(registry, credentials=credentials)).digest == digest
    assert [path for _, path, _ in registry.requests].count("/token") == 1


async def test_a_registry_can_want_a_password(registry: FakeRegistry) -> None:
    registry.basic = "sdp:secret"
    registry.add("v1")
    credentials = {registry.host: Credentials("sdp", "secret")}
    await resolve(registry, credentials=credentials)
    with pytest.raises(ImageError, match=r"wants credentials for .*sdp/cal"):
        await resolve(registry)
    wrong = {registry.host: Credentials("sdp", "guess")}
    with pytest.raises(ImageError, match=r"does not let us see .*with credentials") as told:
        await resolve(registry, credentials=wrong)
    assert "guess" not in str(told.value)
    assert "guess" not in repr(wrong)


async def test_what_is_not_there_and_what_fails_is_told(registry: FakeRegistry) -> None:
    registry.add("v1")
    with pytest.raises(ImageError, match=r"has no image .*sdp/cal:v2"):
        await resolve(registry, "v2")
    registry.status, registry.retry_after = 503, "60"
    with pytest.raises(ImageError, match=r"answers 503 .* in 60 s"):
        await resolve(registry)
    registry.port = 1
    with pytest.raises(ImageError, match="localhost:1 does not tell"):
        await resolve(registry)


# ---------------------------------------------------------------------- registries that are busy, or half there


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PAUSES", (0.01, 0.02))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", exchange.BUSY)
async def test_a_registry_that_is_busy_for_a_moment_is_asked_again(
    registry: FakeRegistry, status: int
) -> None:
    """Also where it is the place of tokens."""
    registry.bearer = "t0ken"
    digest = registry.add("v1")
    registry.busy = [status, status, 0, status]
    assert (await resolve(registry)).digest == digest


async def test_who_asks_us_to_wait_is_waited_for(registry: FakeRegistry) -> None:
    digest = registry.add("v1")
    registry.busy, registry.retry_after = [429], "1"
    began = asyncio.get_running_loop().time()
    assert (await resolve(registry)).digest == digest
    assert asyncio.get_running_loop().time() - began >= 1


@pytest.mark.parametrize("later", ["3600", "Fri, 31 Dec 2999 23:59:59 GMT", "-1"])
async def test_who_asks_us_to_wait_for_long_is_told(registry: FakeRegistry, later: str) -> None:
    registry.add("v1")
    registry.status, registry.retry_after = 429, later
    with pytest.raises(ImageError, match=r"answers 429 .*wants to be asked (in 3600 s|much later)"):
        await resolve(registry)
    assert len(registry.requests) == 2, "HEAD and GET, once each"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["nobody", "busy", "silent"])
async def test_where_labels_cannot_be_had_the_image_is_run_all_the_same(
    registry: FakeRegistry, how: str, unused_port: int
) -> None:
    """Blobs are often somewhere else, where a controller may have no way to."""
    digest = registry.add("v1", index=False, version="1")
    registry.blob_fault = how
    if how == "nobody":
        registry.redirects, registry.redirect_to = 1, f"http://localhost:{unused_port}/x"
    found = await resolve(registry, seconds=1.0)
    assert (found.digest, found.labels) == (digest, {})


# ---------------------------------------------------------------------- hostile registries


async def test_a_manifest_that_is_another_is_refused(registry: FakeRegistry) -> None:
    digest = registry.add("v1")
    registry.manifests[digest] = OCI_MANIFEST, b'{"config": {}}'
    async with client(registry) as images:
        with pytest.raises(ImageError, match=r"a manifest .* that is not sha256"):
            await images.resolve(f"{registry.host}/sdp/cal@{digest}")


async def test_a_configuration_that_is_another_is_refused(registry: FakeRegistry) -> None:
    registry.add("v1", version="1")
    (digest,) = registry.blobs
    registry.blobs[digest] = b"{}"
    with pytest.raises(ImageError, match=r"configuration .* is not sha256"):
        await resolve(registry)


async def test_answers_are_bounded(registry: FakeRegistry) -> None:
    registry.head = False
    registry.put("v1", OCI_MANIFEST, b"[" * (5 * 2**20))
    with pytest.raises(ImageError, match="answers more than"):
        await resolve(registry)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b"[" * 100_000, b'{"manifests": 5}', b'{"config": {"digest": "../../etc"}}'],
)
async def test_nonsense_is_refused(registry: FakeRegistry, body: bytes) -> None:
    registry.put("v1", OCI_MANIFEST, body)
    with pytest.raises(ImageError):
        await resolve(registry)


async def test_circles_come_to_an_end(registry: FakeRegistry) -> None:
    registry.add("v1")
    registry.redirects = 1000
    with pytest.raises(ImageError, match="redirects more than 3 times"):
        await resolve(registry)


async def test_who_we_are_is_not_told_where_a_registry_sends_us(registry: FakeRegistry) -> None:
    registry.basic = "sdp:secret"
    registry.add("v1")
    async with serving(FakeRegistry()) as other:
        other.blobs = registry.blobs
        (digest,) = registry.blobs
        registry.redirects = 1
        registry.redirect_to = f"http://{other.host}/v2/sdp/cal/blobs/{digest}"
        await resolve(registry, credentials={registry.host: Credentials("sdp", "secret")})
        assert [authorization for *_, authorization in other.requests] == [""]


async def test_a_realm_that_is_not_safe_gets_nothing(registry: FakeRegistry) -> None:
    registry.bearer = "t"
    registry.add("v1")
    for realm in ("ftp://x/", "/etc/passwd", "http://user@x/"):
        registry.realm = realm
        with pytest.raises(ImageError, match="no safe place"):
            await resolve(registry)


async def test_a_registry_that_does_not_answer_costs_only_so_long(registry: FakeRegistry) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "localhost", 0)
    async with server:
        registry.port = server.sockets[0].getsockname()[1]
        with pytest.raises(ImageError, match=r"within 0\.2 s"):
            await resolve(registry, seconds=0.2)


# ---------------------------------------------------------------------- TLS


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private authority, and a certificate for localhost by it."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("ca")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=observatory")  # fmt: skip
    openssl(folder, "req", "-x509", *key, "-keyout", "server.key", "-out", "server.pem", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-CA", "ca.pem", "-CAkey", "ca.key")  # fmt: skip
    return folder


async def test_a_private_authority_is_trusted_only_when_it_is_named(authority: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority / "server.pem", authority / "server.key")
    async with serving(FakeRegistry(bearer="t"), tls) as registry:
        digest = registry.add("v1")
        name = f"{registry.host}/sdp/cal:v1"
        async with RegistryImages(ca_file=str(authority / "ca.pem")) as images:
            assert (await images.resolve(name)).digest == digest
        async with RegistryImages() as images:
            with pytest.raises(ImageError, match="certificate is not trusted"):
                await images.resolve(name)


async def test_from_tls_nobody_is_sent_to_none(authority: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority / "server.pem", authority / "server.key")
    async with serving(FakeRegistry(), tls) as registry:
        registry.add("v1")
        registry.redirects, registry.redirect_to = 1, "http://localhost/x"
        async with RegistryImages(ca_file=str(authority / "ca.pem")) as images:
            with pytest.raises(ImageError, match="where nobody should go"):
                await images.resolve(f"{registry.host}/sdp/cal:v1")


async def test_certificates_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no certificates can be read from"):
        async with RegistryImages(ca_file=str(tmp_path / "none.pem")):
            pass


def test_digests_are_those_of_the_bodies() -> None:
    assert sha256(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
