"""Options of encryption, and where secrets come from."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
from pathlib import Path

import pytest

from sdpcontroller.cli.main import make_parser
from sdpcontroller.cli.secrets import Secrets, secret
from sdpcontroller.cli.tls import mesos_link, secured
from sdpcontroller.errors import ControllerError
from tests.certificates import Authority
from tests.conftest import PATIENCE

NAME = "SDP_REDIS_PASSWORD"


def given(*words: str) -> argparse.Namespace:
    return make_parser("master").parse_args(["master", *words])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_without_options_nothing_is_encrypted() -> None:
    with secured(given()) as tls:
        assert (tls.goahead.context, tls.metrics, tls.mesos_tls) == (None, None, None)
        assert tls.mesos == "127.0.0.1:5050"
        assert tls.alarms() == ()


async def test_one_certificate_is_for_both_servers_unless_figures_have_their_own(
    authority: Authority,
) -> None:
    one, other = str(authority.issue("127.0.0.1")), str(authority.issue("127.0.0.1"))
    with secured(given("--tls-certificate", one)) as tls:
        assert tls.goahead.context is tls.metrics is not None
    with secured(given("--tls-certificate", one, "--metrics-certificate", other)) as tls:
        assert tls.metrics is not tls.goahead.context
        assert [certificate.use for certificate in tls.certificates] == ["controller", "metrics"]


async def test_what_tasks_would_refuse_is_refused_at_the_start(
    authority: Authority, tmp_path: Path
) -> None:
    words = ["--tls-certificate", str(authority.issue("head1.example"))]
    with pytest.raises(ControllerError, match=r"as 127\.0\.0\.1"), secured(given(*words)):
        pass
    words += ["--goahead-url", "https://head1.example:5002", "--goahead-url", "https://head2:5002"]
    with secured(given(*words, "--goahead-ca", str(authority.file))) as tls:
        assert tls.goahead.trust == authority.pem
    with (
        pytest.raises(ControllerError, match="nobody would believe"),
        secured(given(*words, "--goahead-ca", str(Authority(tmp_path).file))),
    ):
        pass
    with (
        pytest.raises(ControllerError, match="all controllers by https"),
        secured(given(*words, "--goahead-url", "http://head3:5002")),
    ):
        pass


async def test_sighup_asks_for_new_certificates(authority: Authority) -> None:
    with secured(given("--tls-certificate", str(authority.issue("127.0.0.1")))) as tls:
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(PATIENCE):
            await tls.asked.wait()


@pytest.mark.parametrize(
    ("address", "with_authority", "expected", "encrypted"),
    [
        ("m:5050", False, "m:5050", False),
        ("http://m:5050", False, "m:5050", False),
        ("https://m:5050/", False, "m:5050", True),
        ("https://m:5050", True, "m:5050", True),
        ("m:5050", True, "m:5050", True),
        ("zk://a:2181,b:2181/mesos", True, "zk://a:2181,b:2181/mesos", True),
        ("zk://a:2181/mesos", False, "zk://a:2181/mesos", False),
    ],
)
def test_mesos_is_asked_as_its_address_says(
    authority: Authority, address: str, with_authority: bool, expected: str, encrypted: bool
) -> None:
    words = ["--mesos-ca", str(authority.file)] if with_authority else []
    link, context = mesos_link(given("--mesos", address, *words))
    assert link == expected
    assert (context is not None) is encrypted
    if context is not None:
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_an_authority_for_plain_http_is_a_mistake(authority: Authority) -> None:
    with pytest.raises(ControllerError, match="not over TLS"):
        mesos_link(given("--mesos", "http://m:5050", "--mesos-ca", str(authority.file)))


def test_secrets_come_from_files_that_only_we_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.touch(0o600)
    file.write_text("planted\n")
    assert secret(NAME) is None
    monkeypatch.setenv(NAME, "direct")
    assert secret(NAME) == "direct"
    monkeypatch.setenv(f"{NAME}_FILE", str(file))
    with pytest.raises(ControllerError, match="both set"):
        secret(NAME)
    monkeypatch.delenv(NAME)
    assert secret(NAME) == "planted"
    assert "planted" not in repr(Secrets.given())
    file.chmod(0o640)
    with pytest.raises(ControllerError, match="others may read") as caught:
        secret(NAME)
    assert "planted" not in str(caught.value)
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(ControllerError, match="is empty"):
        secret(NAME)
    file.unlink()
    with pytest.raises(ControllerError, match="cannot read"):
        secret(NAME)
