"""Mesos over TLS: the stream of events, the calls, the list of agents."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler import agents, pymesos_connection, pymesos_driver, removal
from scheduler.embedded import Cluster
from scheduler.errors import FrameworkError
from scheduler.framework import Disconnected, Framework, FrameworkSettings, Offered
from scheduler.journal import MemoryJournal
from scheduler.pymesos_driver import CallUncertain
from scheduler.service import Scheduler
from scheduler.views import LinkState
from tests.certificates import Authority
from tests.conftest import PATIENCE
from tests.encrypted import encrypted
from tests.scheduler.programs import QUICK, agent, eventually, physical, shell
from tests.scheduler.wire import Link, Master

HERE = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymesos_driver, "BACK_OFF_FIRST", 0.05)
    monkeypatch.setattr(pymesos_driver, "BACK_OFF_MAX", 0.4)


@pytest.fixture
def certificate(authority: Authority) -> ssl.SSLContext:
    """What the master shows; a test may let it show another."""
    return authority.context(HERE)


@pytest.fixture
async def master(certificate: ssl.SSLContext) -> AsyncIterator[Master]:
    master = Master()
    server = await asyncio.start_server(master.serve, HERE, 0, ssl=certificate)
    master.address = f"{HERE}:{server.sockets[0].getsockname()[1]}"
    yield master
    server.close()
    for stream in master.streams:
        stream.transport.abort()


@pytest.fixture
async def link(master: Master, authority: Authority) -> AsyncIterator[Link]:
    settings = FrameworkSettings(
        master=master.address, name="test", user="root", http_timeout=20, tls=authority.trust
    )
    framework = Framework(settings)
    await framework.start()
    yield Link(framework)
    await framework.stop(teardown=False)


async def test_events_and_calls_of_any_size(master: Master, link: Link) -> None:
    """Records of TLS, chunks of HTTP and events have borders of their own."""
    await link.up()
    for size in (1, 1000, 20_000):
        offers = [{"id": {"value": f"o{n}"}, "note": "é" * size} for n in range(100)]
        master.send({"type": "OFFERS", "offers": {"offers": offers}})
        assert (await link.next(Offered)).offers == tuple(offers)
        await link.framework.accept([f"o{size}"], [{"name": "x" * size * 100}])
    assert [len(str(call)) > 100 for call in master.calls] == [True] * 3
    assert len(master.subscriptions) == 1


async def test_a_master_that_proves_nothing_is_told_nothing(
    master: Master, link: Link, certificate: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    """The reason is said; as soon as it has a good certificate, the link is made."""
    await link.up()
    for other, said in (
        (authority.issue("elsewhere.example"), "IP address mismatch"),
        (authority.issue(HERE, days=-1, since=-3), "certificate has expired"),
        (Authority(tmp_path).issue(HERE), "unable to get local issuer certificate"),
    ):
        certificate.load_cert_chain(other)
        count = len(master.subscriptions)
        master.cut()
        while said not in (reason := (await link.next(Disconnected)).reason):
            pass
        assert reason.startswith(f"no TLS with {master.address}: ")
        assert len(master.subscriptions) == count
        certificate.load_cert_chain(authority.issue(HERE))
        await link.up()


async def test_a_call_goes_to_nobody_else(
    master: Master, link: Link, certificate: ssl.SSLContext, tmp_path: Path
) -> None:
    """The stream stands; a call on a new connection meets somebody who pretends."""
    await link.up()
    certificate.load_cert_chain(Authority(tmp_path).issue(HERE))
    with pytest.raises(CallUncertain, match="CERTIFICATE_VERIFY_FAILED"):
        await link.framework.accept(["o"], [{}])
    assert not master.calls


async def test_a_master_that_speaks_no_tls_or_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pymesos_connection, "HANDSHAKE_TIMEOUT", 0.2)
    silent: list[asyncio.StreamWriter] = []

    async def nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    plain = Master()
    for serve, said in ((plain.serve, "no TLS with"), (nothing, "timed out")):
        server = await asyncio.start_server(serve, HERE, 0)
        settings = FrameworkSettings(
            master=f"{HERE}:{server.sockets[0].getsockname()[1]}",
            name="test",
            user="root",
            tls=authority.trust,
        )
        framework = Framework(settings)
        await framework.start()
        assert said in (await Link(framework).next(Disconnected)).reason
        await framework.stop(teardown=False)
        server.close()
    for writer in silent:
        writer.close()
    assert not plain.subscriptions


async def test_a_whole_scheduler_over_tls_with_credentials(
    tmp_path: Path, authority: Authority, certificate: ssl.SSLContext, compiled: None
) -> None:
    credentials = tmp_path / "credentials"
    credentials.touch(0o600)
    credentials.write_text("sdp planted-secret\n")
    cluster = Cluster(
        [agent(0)],
        work_dir=tmp_path / "cluster",
        port=0,
        allocation_interval=0.1,
        framework_credentials=credentials,
    )
    async with cluster, encrypted(cluster.address[1], certificate) as port:
        master = f"{HERE}:{port}"
        scheduler = Scheduler(
            master=master,
            journal=MemoryJournal(),
            framework_name="test",
            principal="sdp",
            secret="planted-secret",  # noqa: S106
            mesos_tls=authority.trust,
            timing=QUICK,
        )
        await scheduler.start()
        try:
            await eventually(lambda: scheduler.link().state is LinkState.CONNECTED)
            await scheduler.launch(physical("g", shell("a", "sleep 1000")), timeout=PATIENCE)
            await eventually(lambda: bool(scheduler.agents()))
            framework_id = scheduler.framework_id
            assert framework_id is not None
            stands = await removal.ask(master, framework_id, tls=authority.trust)
            assert stands is removal.Standing.CONNECTED
            stranger = Authority(tmp_path).trust
            assert await agents.fetch(master, "", 5, tls=stranger) is None
            with pytest.raises(FrameworkError, match=f"no answer .*https://{master}"):
                await removal.ask(master, framework_id, tls=stranger)
        finally:
            await scheduler.close(teardown=True)
