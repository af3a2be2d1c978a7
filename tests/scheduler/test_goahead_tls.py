"""The go-ahead over TLS, asked for by real programs."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from scheduler import tls
from scheduler.goahead import GoAhead, new_token, wrapper_environment
from scheduler.tls import GoAheadTls
from tests.certificates import Authority
from tests.conftest import PATIENCE
from tests.scheduler.waiting import (
    TASK,
    Image,
    answers,
    bin_with,
    busybox_only,
    run_wrapper,
)

CLIENTS = ("curl", "wget", "python3")
HERE = "127.0.0.1"
EXPIRED = ("expired",)
OTHER_NAME = ("does not match", "doesn't match", "not valid for", "no alternative certificate")
STRANGER = ("unable to get local issuer", "not trusted", "self-signed", "self signed")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    return authority.context(HERE)


@pytest.fixture
async def server(context: ssl.SSLContext) -> AsyncIterator[GoAhead]:
    server = GoAhead(poll_seconds=0.2, tls=context)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(params=CLIENTS)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """An image that has one client."""
    path = bin_with(tmp_path, request.param)
    shell = shutil.which("dash")
    if shell is None:
        pytest.skip("dash is not installed")
    return Image(path, (shell,))


def told(
    server: GoAhead, token: str, settings: GoAheadTls, limit: float = PATIENCE
) -> dict[str, str]:
    """What the wrapper is told; a proxy that does not exist must not be asked."""
    environment = wrapper_environment(TASK, token, [server.base_url], limit, settings)
    return {**environment, "https_proxy": "http://127.0.0.1:9"}


async def hear(process: asyncio.subprocess.Process, words: tuple[str, ...]) -> str:
    """Wait until the wrapper says one of these."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while True:
            line = (await process.stderr.readline()).decode()
            assert line, f"it has ended without any of {words}"
            if any(word in line for word in words):
                return line


async def test_a_task_asks_only_who_can_be_believed(
    server: GoAhead, context: ssl.SSLContext, authority: Authority, tmp_path: Path, image: Image
) -> None:
    """It asks again and again, says what is wrong, and goes as soon as the certificate is a good one."""
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK, {"x": "1"})
    context.load_cert_chain(authority.issue(HERE, days=-0.1, since=-3))
    process = await run_wrapper(
        tmp_path, told(server, token, GoAheadTls(trust=authority.pem)), image=image
    )
    said = await hear(process, EXPIRED)
    assert said.startswith(f"go-ahead: no answer yet: {server.base_url}: ")
    context.load_cert_chain(authority.issue("elsewhere.example"))
    said += await hear(process, OTHER_NAME)
    context.load_cert_chain(Authority(tmp_path).issue(HERE))
    said += await hear(process, STRANGER)
    assert token not in said
    context.load_cert_chain(authority.issue(HERE))
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out) | {"umask": 0} == {
        "values": {"x": "1"},
        "leaked": [],
        "umask": 0,
        "own": "kept",
    }
    assert not answers(tmp_path)


async def test_several_may_vouch(
    server: GoAhead, authority: Authority, tmp_path: Path, image: Image
) -> None:
    """While one authority takes the other's place, both are trusted."""
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK)
    both = GoAheadTls(trust=Authority(tmp_path).pem + authority.pem)
    process = await run_wrapper(tmp_path, told(server, token, both), image=image)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, err
    assert err == b""


async def test_without_trust_in_anybody_nobody_is_asked(
    server: GoAhead, tmp_path: Path, image: Image
) -> None:
    """Then an image's own authorities count, of which none knows ours."""
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK)
    process = await run_wrapper(tmp_path, told(server, token, GoAheadTls(), 2), image=image)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 124
    assert any(word in err.decode() for word in STRANGER), err


@pytest.mark.parametrize("unverified", [False, True])
async def test_a_client_that_cannot_check_asks_only_where_it_may(
    server: GoAhead, authority: Authority, tmp_path: Path, unverified: bool
) -> None:
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK, {"x": "1"})
    settings = GoAheadTls(trust=authority.pem, unverified=unverified)
    image = busybox_only(tmp_path)
    openssl = shutil.which("openssl")  # BusyBox' own TLS is too old for a server as ours
    if openssl is None:
        pytest.skip("openssl is not installed")
    (tmp_path / "bin/openssl").symlink_to(openssl)
    process = await run_wrapper(tmp_path, told(server, token, settings), image=image)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    if unverified:
        assert process.returncode == 0, err
        assert json.loads(out)["values"] == {"x": "1"}
    else:
        assert process.returncode == 125
        assert b"put curl, python3 or GNU wget into the image" in err
        assert out == b""
    assert not answers(tmp_path)


async def test_busybox_asks_over_plain_http_as_ever(authority: Authority, tmp_path: Path) -> None:
    server, token = GoAhead(poll_seconds=0.2), new_token()
    await server.start()
    try:
        server.open(TASK, token)
        server.let_through(TASK)
        environment = told(server, token, GoAheadTls(trust=authority.pem))
        process = await run_wrapper(tmp_path, environment, image=busybox_only(tmp_path))
        _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, err
    finally:
        await server.stop()


async def ask(server: GoAhead, token: str, trust: ssl.SSLContext) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{server.base_url}/tasks/{TASK}/go-ahead",
            headers={"Authorization": f"Bearer {token}"},
            ssl=trust,
        ) as response,
    ):
        return response.status


async def test_the_token_still_counts(server: GoAhead, authority: Authority) -> None:
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK)
    assert await ask(server, new_token(), authority.trust) == 403
    assert await ask(server, token, authority.trust) == 200


async def test_who_speaks_no_tls_gets_nothing_and_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext, authority: Authority
) -> None:
    """Plain HTTP, old TLS, half a handshake and silence: all are cut off, while others are answered."""
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 3.0)
    server, token = GoAhead(poll_seconds=0.2, tls=context), new_token()
    await server.start()
    try:
        server.open(TASK, token)
        server.let_through(TASK)
        port = int(server.base_url.rpartition(":")[2])
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # and no more of it
        openings = [
            b"GET /tasks/x/go-ahead HTTP/1.1\r\nHost: x\r\n\r\n",
            hello,
            *[b""] * 100,
        ]
        links = [await asyncio.open_connection(HERE, port) for _ in openings]
        for (_, writer), opening in zip(links, openings, strict=True):
            writer.write(opening)
        assert await ask(server, token, authority.trust) == 200
        async with asyncio.timeout(PATIENCE):
            got = await asyncio.gather(*(_all(reader) for reader, _ in links))
        assert not any(b"HTTP" in piece for piece in got)
        for _, writer in links:
            writer.close()
        assert await ask(server, token, authority.trust) == 200
    finally:
        await server.stop()


async def _all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_old_tls_is_refused(server: GoAhead, authority: Authority) -> None:
    old = authority.trust
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    port = int(server.base_url.rpartition(":")[2])

    def shake() -> None:
        with socket.create_connection((HERE, port), 5) as sock:
            old.wrap_socket(sock, server_hostname=HERE).close()

    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(shake)
