"""Certificates of the controller's servers: what is refused, what is renewed, what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdpcontroller import certificates
from sdpcontroller.certificates import ServedCertificate, read_trust
from sdpcontroller.certificates.pair import Demands, read_pair
from sdpcontroller.control import Severity
from sdpcontroller.errors import ControllerError
from sdpcontroller.metrics import Metrics, serve
from tests.certificates import Authority
from tests.conftest import PATIENCE

HERE = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def put(path: Path, new: Path) -> None:
    """Put a new file into the place of another, as programs do that renew."""
    new.replace(path)


# ---------------------------------------------------------------------- what is refused


def test_a_good_one_is_read_with_its_times(authority: Authority) -> None:
    pair = read_pair(authority.issue(HERE, days=90), None, Demands((HERE,), authority.pem))
    assert abs(pair.ends - time.time() - 90 * 86400) < 60
    assert abs(pair.begins - time.time() + 86400) < 60
    assert "PRIVATE" not in repr(pair)


@pytest.mark.parametrize(
    ("days", "since", "said"),
    [(-1, -10, "has ended, .*: renew it"), (9, 1, "begins only .*clock right")],
)
def test_one_out_of_its_time_is_refused(
    authority: Authority, days: float, since: float, said: str
) -> None:
    with pytest.raises(ControllerError, match=said):
        read_pair(authority.issue(HERE, days=days, since=since), None, Demands())


def test_one_that_tasks_would_not_believe_is_refused(tmp_path: Path, authority: Authority) -> None:
    """Whoever asks is named, with what would be said there."""
    path = authority.issue("head1.example")
    for demands, said in (
        (Demands(("head2.example",)), "as head2.example: Hostname mismatch"),
        (Demands((HERE,)), "as 127.0.0.1: IP address mismatch"),
        (Demands(("head1.example",), Authority(tmp_path).pem), "unable to get local issuer"),
    ):
        with pytest.raises(ControllerError, match=f"nobody would believe .*{said}"):
            read_pair(path, None, demands)
    # One of several controllers has one of the names.
    read_pair(path, None, Demands(("head1.example", "head2.example"), authority.pem))


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o666])
def test_a_key_that_others_may_read_is_refused(authority: Authority, mode: int) -> None:
    path = authority.issue(HERE)
    path.chmod(mode)
    with pytest.raises(ControllerError, match="others may read the key"):
        read_pair(path, None, Demands())
    path.chmod(0o640)  # of a group that keeps keys
    read_pair(path, None, Demands())


def test_nonsense_is_refused(tmp_path: Path, authority: Authority) -> None:
    path, other = authority.issue(HERE), authority.issue(HERE)
    key_only = tmp_path / "key.pem"
    key_only.touch(0o600)
    key_only.write_text(path.read_text().partition("-----BEGIN CERT")[0])
    chain_only = tmp_path / "chain.pem"
    chain_only.touch(0o600)
    chain_only.write_text(
        "# of ours\n-----BEGIN CERT" + path.read_text().partition("-----BEGIN CERT")[2]
    )
    read_pair(chain_only, key_only, Demands((HERE,), authority.pem))
    damaged = tmp_path / "damaged.pem"
    damaged.touch(0o600)
    damaged.write_text(path.read_text().replace("MII", "MIX"))
    for certificate, key, said in (
        (chain_only, other, "does not belong to the certificate"),
        (key_only, key_only, "holds no certificate"),
        (chain_only, None, "no TLS with the certificate"),
        (damaged, None, "no TLS with the certificate|no certificate"),
        (tmp_path / "absent", None, "cannot read the certificate .*No such file"),
        (chain_only, tmp_path / "absent", "cannot read the key .*No such file"),
    ):
        with pytest.raises(ControllerError, match=said):
            read_pair(certificate, key, Demands())


def test_an_encrypted_key_asks_nobody(tmp_path: Path, authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization as forms

    path = authority.issue(HERE)
    key = forms.load_pem_private_key(path.read_bytes(), None)
    encrypted = key.private_bytes(
        forms.Encoding.PEM,
        forms.PrivateFormat.PKCS8,
        forms.BestAvailableEncryption(b"word"),
    )
    hidden = tmp_path / "hidden.pem"
    hidden.touch(0o600)
    hidden.write_bytes(encrypted)
    with pytest.raises(ControllerError, match="the key is encrypted"):
        read_pair(path, hidden, Demands())


def test_tasks_get_certificates_and_nothing_else(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "ca.pem"
    other = Authority(tmp_path)
    file.write_text(
        f"Größe: 1\r\n{authority.pem}\nSubject: x\n{other.pem.replace(chr(10), chr(13) + chr(10))}"
    )
    assert read_trust(file) == authority.pem + other.pem
    file.write_text("-----BEGIN CERTIFICATE-----\nMIIx\n-----END CERTIFICATE-----\n")
    with pytest.raises(ControllerError, match="holds no certificate"):
        read_trust(file)
    file.write_text(authority.pem * 40)
    with pytest.raises(ControllerError, match="bytes at most"):
        read_trust(file)


# ---------------------------------------------------------------------- what is renewed


@contextlib.asynccontextmanager
async def watched(
    served: ServedCertificate, asked: asyncio.Event
) -> AsyncIterator[list[tuple[float, int]]]:
    """Watch its files, and note whenever it is told that something has changed."""
    told: list[tuple[float, int]] = []
    watching = asyncio.create_task(
        certificates.watch(
            [served], asked, lambda: told.append((served.ends, len(served.alarms())))
        )
    )
    try:
        yield told
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def looked(asked: asyncio.Event) -> None:
    """Let the files be looked at, as SIGHUP does, and wait until that is done."""
    asked.set()
    async with asyncio.timeout(PATIENCE):
        while asked.is_set():  # noqa: ASYNC110 - the watch clears it
            await asyncio.sleep(0)


async def test_a_new_one_is_shown_and_no_connection_is_cut(authority: Authority) -> None:
    path = authority.issue(HERE, days=20)
    served, asked = ServedCertificate("controller", path, None), asyncio.Event()
    old_end = served.ends
    async with (
        watched(served, asked) as told,
        serve(Metrics(), HERE, 0, tls=served.context) as port,
    ):
        reader, writer = await asyncio.open_connection(HERE, port, ssl=authority.trust)

        async def end_shown() -> float:
            """What a client sees who comes anew."""
            _, newcomer = await asyncio.open_connection(HERE, port, ssl=authority.trust)
            shown = newcomer.get_extra_info("peercert")["notAfter"]
            newcomer.close()
            with contextlib.suppress(ConnectionError):
                await newcomer.wait_closed()
            return float(ssl.cert_time_to_seconds(shown))

        async def answered() -> bool:
            """Ask on the connection that was there before."""
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            return b"200 OK" in await reader.readuntil(b"ok\n")

        assert await answered()
        assert await end_shown() == old_end
        put(path, authority.issue(HERE, days=90))
        await looked(asked)
        assert served.ends > old_end + 60 * 86400
        assert await end_shown() == served.ends
        assert await answered()
        assert told[-1] == (served.ends, 0)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_bad_one_is_not_taken_and_complained_of(authority: Authority) -> None:
    """Not at the first look: a key is written after its certificate."""
    path = authority.issue(HERE, days=80)
    served = ServedCertificate("controller", path, None, Demands((HERE,), authority.pem))
    end = served.ends
    put(path, authority.issue("elsewhere.example"))
    await served.look()
    assert (served.ends, served.alarms()) == (end, ())
    await served.look()
    (alarm,) = served.alarms()
    assert (alarm.name, alarm.severity) == ("certificate.controller", Severity.WARNING)
    assert "the new one is not taken: nobody would believe" in alarm.text
    path.unlink()
    await served.look()
    await served.look()
    assert "No such file" in served.alarms()[0].text
    put(path, authority.issue(HERE, days=70))
    await served.look()
    assert served.alarms() == ()
    assert served.ends < end


@pytest.mark.parametrize(
    ("left", "severity", "said"),
    [(15, None, ""), (13, Severity.WARNING, "it ends "), (-1, Severity.ALARM, "it has ended")],
)
def test_an_end_that_comes_near_is_an_alarm(
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    left: float,
    severity: Severity | None,
    said: str,
) -> None:
    served = ServedCertificate("metrics", authority.issue(HERE), None)
    monkeypatch.setattr(time, "time", lambda: served.ends - left * 86400)
    found = [(alarm.severity, alarm.text[: len(said)]) for alarm in served.alarms()]
    assert found == ([] if severity is None else [(severity, said)])


async def test_what_may_be_looked_at_is_also_looked_at_unasked(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates.served, "LOOK_SECONDS", 0.01)
    path = authority.issue(HERE, days=20)
    served = ServedCertificate("controller", path, None)
    async with watched(served, asyncio.Event()) as told, asyncio.timeout(PATIENCE):
        while not told:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        put(path, authority.issue(HERE, days=90))
        while len(told) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert told[1][0] > told[0][0] + 60 * 86400
