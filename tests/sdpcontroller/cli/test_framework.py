"""The way out after Mesos has removed the framework: a real database, a real (embedded) master."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from scheduler import removal
from scheduler.embedded import Cluster
from scheduler.errors import FrameworkError
from scheduler.removal import Standing
from scheduler.service import Scheduler
from scheduler.views import LinkState
from sdpcontroller.cli.main import main
from sdpcontroller.election import Election, ElectionTiming
from sdpcontroller.store import Store
from sdpcontroller.store.journal import StoreJournal
from tests.conftest import PATIENCE
from tests.scheduler.programs import agent, physical, scheduler_on, shell

Sdp = Callable[..., Awaitable[int]]
LEASE = 0.4


@pytest.fixture
async def cluster(tmp_path: Path, compiled: None) -> AsyncIterator[Cluster]:
    async with Cluster(
        [agent(0)], work_dir=tmp_path / "cluster", port=0, allocation_interval=0.1
    ) as running:
        yield running


@pytest.fixture
def sdp(redis_server: Any, cluster: Cluster) -> Sdp:
    """Run ``sdp framework`` on the database and the master of the test."""
    mesos = "{}:{}".format(*cluster.address)

    async def run(*words: str, mesos: str = mesos) -> int:
        options = ("--redis", redis_server.url, "--mesos", mesos, "--lease", str(LEASE))
        return await asyncio.to_thread(main, ("framework", *words, *options))

    return run


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.02)


@asynccontextmanager
async def leading(store: Store) -> AsyncIterator[None]:
    """Lead, as a controller does."""
    leadership = await Election(store, "head1:5001", ElectionTiming.of(LEASE)).win()
    keeping = asyncio.create_task(leadership.keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await leadership.resign()


async def tear_down(cluster: Cluster, framework_id: str) -> None:
    async with aiohttp.ClientSession() as session:
        url = "http://{}:{}/teardown".format(*cluster.address)
        async with session.post(url, data={"frameworkId": framework_id}) as response:
            assert response.status == 200


async def up(scheduler: Scheduler) -> str:
    await until(lambda: scheduler.link().state is LinkState.CONNECTED)
    await scheduler.launch(physical("g", shell("t", "sleep 1000")), timeout=PATIENCE)
    assert scheduler.framework_id is not None
    return scheduler.framework_id


async def test_from_the_removal_to_a_new_id(
    sdp: Sdp, cluster: Cluster, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = StoreJournal(store)
    async with leading(store), scheduler_on(cluster, journal, teardown=False) as scheduler:
        old = await up(scheduler)
        assert await sdp("forget", "--confirm", old) == 1
        assert "the controller at head1:5001 leads" in capsys.readouterr().err
    assert await sdp("forget", "--confirm", old) == 1
    assert "is waited for" in capsys.readouterr().err
    assert await sdp("status", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"framework_id": old, "mesos": "awaited", "running": ["g.t.0"]}

    await tear_down(cluster, old)
    assert await sdp("status") == 0
    shown = capsys.readouterr().out
    assert "is removed" in shown
    assert "g: 1 tasks" in shown
    assert await sdp("forget") == 1, "there is nobody to ask"
    assert f"--confirm {old}" in capsys.readouterr().err
    assert await sdp("forget", "--confirm", "another") == 1
    assert (await journal.load()).framework_id == old
    assert await sdp("forget", "--confirm", old, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"framework_id": old, "lost": ["g.t.0"]}
    assert await sdp("forget", "--confirm", old) == 1
    assert "nothing to give up" in capsys.readouterr().err
    assert await sdp("status") == 0

    async with leading(store), scheduler_on(cluster, journal, teardown=True) as successor:
        await until(lambda: successor.tasks("g")["t"].death is not None)
        assert await up_again(successor) != old


async def up_again(scheduler: Scheduler) -> str | None:
    await until(lambda: scheduler.link().state is LinkState.CONNECTED)
    await scheduler.launch(physical("h", shell("t", "sleep 1000")), timeout=PATIENCE)
    await scheduler.stop("h")
    return scheduler.framework_id


async def test_a_master_that_wants_to_know_who_asks_is_told(
    redis_server: Any,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the controller's principal and secret; a wrong one is said to be refused, and not shown."""
    credentials = tmp_path / "credentials"
    credentials.write_text("sdp quite-secret\n")
    credentials.chmod(0o600)
    await StoreJournal(store).record_framework_id("F")
    async with Cluster(
        [], work_dir=tmp_path / "cluster", port=0, operator_credentials=credentials
    ) as cluster:
        mesos = "{}:{}".format(*cluster.address)
        where = ("--redis", redis_server.url, "--mesos", mesos)

        async def status(*words: str) -> int:
            return await asyncio.to_thread(main, ("framework", "status", *where, *words))

        assert await status() == 1
        assert "wants credentials" in capsys.readouterr().err
        monkeypatch.setenv("SDP_MESOS_SECRET", "not-the-secret")
        assert await status("--mesos-principal", "sdp") == 1
        told = capsys.readouterr().err
        assert "refuses these credentials" in told and "not-the-secret" not in told
        monkeypatch.delenv("SDP_MESOS_SECRET")
        monkeypatch.setenv("SDP_MESOS_SECRET_FILE", str(tmp_path / "secret"))
        (tmp_path / "secret").write_text("quite-secret\n")
        (tmp_path / "secret").chmod(0o600)
        assert await status("--mesos-principal", "sdp", "--json") == 0
        assert json.loads(capsys.readouterr().out)["mesos"] == "unknown"


async def test_nothing_is_given_up_while_a_controller_leads_or_mesos_is_silent(
    sdp: Sdp, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    await StoreJournal(store).record_framework_id("F")
    async with leading(store):
        assert await sdp("forget", "--confirm", "F") == 1
        assert "the controller at head1:5001 leads" in capsys.readouterr().err
    assert await sdp("forget", "--confirm", "F", mesos="127.0.0.1:9") == 1
    assert "no answer from a Mesos master" in capsys.readouterr().err
    assert (await StoreJournal(store).load()).framework_id == "F"
    assert await sdp("forget", "--confirm", "F") == 0, "this master has never heard of it"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"frameworks": [{"id": "F", "connected": True}]}, Standing.CONNECTED),
        ({"frameworks": [{"id": "F", "recovered": True}]}, Standing.AWAITED),
        ({"frameworks": [3, {}], "completed_frameworks": [{"id": "F"}]}, Standing.REMOVED),
        ({"frameworks": [{"id": "G"}]}, Standing.UNKNOWN),
    ],
)
def test_a_masters_list_says_how_it_stands(answer: dict[str, Any], expected: Standing) -> None:
    assert removal.standing({"completed_frameworks": [], **answer}, "F") is expected


async def test_a_master_that_waits_for_agents_is_not_believed() -> None:
    """After a change of masters it knows a framework only when an agent with its tasks has come back."""

    async def answer(request: web.Request) -> web.Response:
        agents = [{"id": "S1", "hostname": "gpu7"}]
        empty = {"frameworks": [], "completed_frameworks": [], "recovered_slaves": agents}
        return web.json_response({} if "F" in request.query else empty)

    application = web.Application()
    application.router.add_get("/master/{_}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with pytest.raises(FrameworkError, match="gpu7"):
            await removal.ask("{}:{}".format(*runner.addresses[0][:2]), "F")
    finally:
        await runner.cleanup()
