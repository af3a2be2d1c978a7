"""The configuration database over TLS, with a user of an ACL: a real Redis."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdpcontroller.children import with_parent
from sdpcontroller.errors import StoreError
from sdpcontroller.store import Store
from tests.certificates import Authority
from tests.conftest import free_port, wait_for_port

HERE = "127.0.0.1"
PASSWORD = "planted-password"  # noqa: S105 - of no use elsewhere


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@contextlib.contextmanager
def redis_over_tls(folder: Path, authority: Authority, *, knows_clients: bool) -> Iterator[int]:
    """A Redis that speaks nothing but TLS, and knows one user; yields its port.

    Parameters
    ----------
    knows_clients
        Whether clients must have a certificate, too.
    """
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port, pem = free_port(), authority.issue(HERE)
    settings = folder / f"redis-{port}.conf"
    settings.touch(0o600)
    settings.write_text(
        f"port 0\ntls-port {port}\nbind {HERE}\nsave ''\n"
        f"tls-cert-file {pem}\ntls-key-file {pem}\ntls-ca-cert-file {authority.file}\n"
        f"tls-auth-clients {'yes' if knows_clients else 'no'}\n"
        f"user default off\nuser sdp on >{PASSWORD} ~sdp:* +@all -@admin\n"
    )
    log = folder / f"redis-{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            with_parent(["redis-server", settings]), cwd=folder, stdout=output, stderr=output
        )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            if "tls-port" in log.read_text():
                pytest.skip("this redis-server was built without TLS")
        wait_for_port(HERE, port, process)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="module")
def port(folder: Path, authority: Authority) -> Iterator[int]:
    with redis_over_tls(folder, authority, knows_clients=False) as port:
        yield port


async def test_who_is_believed_and_admitted_reads_and_writes(
    port: int, authority: Authority
) -> None:
    url = f"rediss://sdp@{HERE}:{port}/0"
    store = await Store.connect(url, password=PASSWORD, authority=authority.file)
    try:
        await store.put("t", "a", {"x": 1}, event="made")
        found = await store.get("t", "a")
        assert found is not None
        assert found.value == {"x": 1}
    finally:
        await store.close()


async def test_a_redis_that_wants_to_know_its_clients(tmp_path: Path, authority: Authority) -> None:
    with redis_over_tls(tmp_path, authority, knows_clients=True) as port:
        url, own = f"rediss://sdp@{HERE}:{port}/0", authority.issue("controller")
        # What it says of certificates is lost where it closes the connection before the password was read.
        with pytest.raises(StoreError, match=r"certificate required|Connection reset by peer"):
            await Store.connect(url, password=PASSWORD, authority=authority.file)
        url += f"?ssl_certfile={own}&ssl_keyfile={own}"
        store = await Store.connect(url, password=PASSWORD, authority=authority.file)
        await store.close()


@pytest.mark.parametrize(
    ("address", "password", "believes", "said"),
    [
        ("rediss://sdp@127.0.0.1:{port}/0", PASSWORD, "another", "self-signed certificate"),
        ("rediss://sdp@127.0.0.1:{port}/0", PASSWORD, "system", "self-signed certificate"),
        ("rediss://sdp@localhost:{port}/0", PASSWORD, "it", "not valid for 'localhost'"),
        ("rediss://sdp@127.0.0.1:{port}/0", PASSWORD + "x", "it", "invalid username-password"),
        ("rediss://127.0.0.1:{port}/0", None, "it", "already authenticated"),
        ("redis://sdp@127.0.0.1:{port}/0", PASSWORD, "system", "Connection closed by server|reset"),
        ("redis://sdp@127.0.0.1:{port}/0", PASSWORD, "it", "is not over TLS"),
    ],
)
async def test_else_it_is_said_why_not(
    port: int,
    authority: Authority,
    tmp_path: Path,
    address: str,
    password: str | None,
    believes: str,
    said: str,
) -> None:
    file = {"it": authority.file, "another": Authority(tmp_path).file, "system": None}[believes]
    with pytest.raises(StoreError, match=said) as caught:
        await Store.connect(address.format(port=port), password=password, authority=file)
    assert PASSWORD not in str(caught.value)
