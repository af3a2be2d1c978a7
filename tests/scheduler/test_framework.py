"""Each mend of pymesos, against a master that misbehaves on the wire."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from scheduler import pymesos_driver
from scheduler.framework import (
    AskedToLeave,
    Disconnected,
    Framework,
    FrameworkSettings,
    LinkEvent,
    Lost,
    Offered,
    Rescinded,
    Subscribed,
    Updated,
)
from scheduler.pymesos_driver import CallRefused, CallUncertain
from scheduler.task import StatusUpdate
from tests.conftest import PATIENCE
from tests.scheduler.wire import Link, Master, leading


@pytest.fixture
async def master() -> AsyncIterator[Master]:
    async with leading() as master:
        yield master


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymesos_driver, "BACK_OFF_FIRST", 0.05)
    monkeypatch.setattr(pymesos_driver, "BACK_OFF_MAX", 0.4)


SECRET = "secret of the test"  # noqa: S105 - of no use elsewhere


HTTP_TIMEOUT = 20.0
"""Seconds that calls wait for answers: enough for a machine that others use, too."""


@contextlib.asynccontextmanager
async def linked(
    master: Master,
    http_timeout: float = HTTP_TIMEOUT,
    may_act: Callable[[], bool] | None = None,
) -> AsyncIterator[Link]:
    settings = FrameworkSettings(
        master=master.address,
        name="test",
        user="root",
        http_timeout=http_timeout,
        missed_heartbeats=3,
        may_act=may_act,
    )
    framework = Framework(settings)
    await framework.start()
    yield Link(framework)
    await framework.stop(teardown=False)


@pytest.fixture
async def link(master: Master) -> AsyncIterator[Link]:
    async with linked(master) as link:
        yield link


async def test_we_present_ourselves_as_promised(master: Master, link: Link) -> None:
    await link.up()
    info = master.subscriptions[0]["subscribe"]["framework_info"]
    assert info["failover_timeout"] == 28 * 86400
    assert info["checkpoint"] is True
    assert info["roles"] == ["sdp"]
    assert {c["type"] for c in info["capabilities"]} == {
        "MULTI_ROLE",
        "PARTITION_AWARE",
        "RESERVATION_REFINEMENT",
        "TASK_KILLING_STATE",
    }


@pytest.mark.parametrize("status", [404, 503, 500, 400])
async def test_a_starting_master_is_asked_again_after_a_growing_pause(
    master: Master, link: Link, status: int
) -> None:
    await link.up()
    master.subscribe_status = [status] * 3
    master.cut()
    await link.up()
    times = master.subscribed_at
    assert len(times) == 5
    assert times[-1] - times[-2] > 0.08


async def test_the_link_comes_back_under_the_same_id(master: Master, link: Link) -> None:
    await link.up()
    master.cut()
    assert isinstance(await link.next(Disconnected), Disconnected)
    await link.up()
    again = master.subscriptions[1]
    assert again["framework_id"] == again["subscribe"]["framework_info"]["id"] == {"value": "fw-0"}


async def test_a_silent_link_is_given_up(master: Master, link: Link) -> None:
    await link.up()
    await master.restart(link, heartbeat=0.1)
    event = await link.next(Disconnected)
    assert "nothing was heard" in event.reason
    await link.up()


async def test_heartbeats_keep_the_link(master: Master, link: Link) -> None:
    await link.up()
    await master.restart(link, heartbeat=1.0)
    count = len(master.subscriptions)
    for _ in range(12):  # for longer than three intervals
        await asyncio.sleep(0.3)  # this is what a master does
        master.send({"type": "HEARTBEAT"})
    assert len(master.subscriptions) == count


async def test_who_was_held_up_hears_what_came_meanwhile(
    master: Master, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link on which heartbeats wait is not silent, however late they are read."""
    await link.up()
    await master.restart(link, heartbeat=0.5)
    count = len(master.subscriptions)
    heard: list[str] = []
    event = link.framework.event

    def slow(kind: str, body: Any) -> None:
        heard.append(kind)
        if len(heard) == 1:
            time.sleep(2.0)
        event(kind, body)

    monkeypatch.setattr(link.framework, "event", slow)
    async with asyncio.timeout(PATIENCE):
        for number in (1, 2):
            master.send({"type": "HEARTBEAT"})
            while len(heard) < number:  # noqa: ASYNC110 - the driver's thread tells nobody
                await asyncio.sleep(0.01)
    assert len(master.subscriptions) == count


async def test_nonsense_ends_nothing(master: Master, link: Link) -> None:
    await link.up()
    for event in (
        [],
        None,
        {},
        {"type": "UPDATE"},
        {"type": "UPDATE", "update": {"status": {"state": 3}}},
        {"type": "RESCIND", "rescind": []},
        {"type": "TEAPOT", "teapot": {}},
    ):
        master.send(event)
    master.send({"type": "OFFERS", "offers": {"offers": [{"id": {"value": "o"}}]}})
    assert (await link.next(Offered)).offers == ({"id": {"value": "o"}},)
    assert len(master.subscriptions) == 1


async def test_an_event_may_come_in_pieces_and_several_at_a_time(
    master: Master, link: Link
) -> None:
    await link.up()
    offers = [{"id": {"value": f"o{n}"}, "note": "é" * 1000} for n in range(300)]
    records = b"".join(
        b"%d\n%s" % (len(record), record)
        for event in (
            {"type": "OFFERS", "offers": {"offers": offers}},
            {"type": "RESCIND", "rescind": {"offer_id": {"value": "o1"}}},
            {"type": "RESCIND", "rescind": {"offer_id": {"value": "o2"}}},
        )
        for record in [json.dumps(event, ensure_ascii=False).encode()]
    )
    for begin in range(0, len(records), 7001):
        piece = records[begin : begin + 7001]
        master.streams[-1].write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await master.streams[-1].drain()
    assert (await link.next(Offered)).offers == tuple(offers)
    assert (await link.next(Rescinded)).offer_id == "o1"
    assert (await link.next(Rescinded)).offer_id == "o2"


@pytest.mark.parametrize("sent", [b"these are no events, whatever else", b"999999999999999999\n{}"])
async def test_what_is_no_event_ends_the_connection(
    master: Master, link: Link, sent: bytes
) -> None:
    await link.up()
    master.streams[-1].write(b"%x\r\n%s\r\n" % (len(sent), sent))
    assert "event" in (await link.next(Disconnected)).reason
    await link.up()


async def test_a_fault_on_the_drivers_thread_costs_one_connection_and_no_task(
    master: Master, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    await link.up()

    def broken(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(link.framework, "event", broken)
    master.send({"type": "HEARTBEAT"})
    event = await link.next(Disconnected)
    assert "a fault of ours" in event.reason
    await link.up()
    assert not [call for call in master.calls if call["type"] == "TEARDOWN"]


async def test_stopping_never_tears_down_unless_told_to(master: Master) -> None:
    for teardown in (False, True):
        framework = Framework(FrameworkSettings(master=master.address, name="test", user="root"))
        await framework.start()
        await Link(framework).up()
        await framework.stop(teardown=teardown)
        assert bool([c for c in master.calls if c["type"] == "TEARDOWN"]) is teardown


async def test_a_removed_framework_does_not_come_back_by_itself(master: Master, link: Link) -> None:
    await link.up()
    master.first_event = {"type": "ERROR", "error": {"message": "Framework has been removed"}}
    master.cut()
    assert (await link.next(Lost)).reason == "Framework has been removed"
    count = len(master.subscriptions)
    await asyncio.sleep(0.5)  # longer than the longest back-off
    assert len(master.subscriptions) == count
    with pytest.raises(CallRefused):
        await link.framework.accept(["o"], [{}])


async def test_two_instances_do_not_fight(master: Master, link: Link) -> None:
    await link.up()
    master.send({"type": "ERROR", "error": {"message": "Framework failed over"}})
    assert (await link.next(Lost)).reason == "Framework failed over"
    master.cut()
    await asyncio.sleep(0.5)  # longer than the longest back-off
    assert len(master.subscriptions) == 1


async def test_who_holds_the_lease_takes_the_subscription_back(master: Master) -> None:
    """Another one that has slept subscribed in his place: it will see that the lease is not its own."""
    async with linked(master, may_act=lambda: True) as link:
        await link.up()
        master.send({"type": "ERROR", "error": {"message": "Framework failed over"}})
        master.cut()
        await link.next(Disconnected)
        await link.up()
        assert len(master.subscriptions) == 2


async def test_who_may_not_act_does_not_subscribe(master: Master) -> None:
    leads = False
    async with linked(master, may_act=lambda: leads) as link:
        assert (await link.next(Disconnected)).reason == "another controller may have taken over"
        assert master.subscriptions == []
        leads = True
        await link.up()


async def test_other_errors_are_retried_after_a_growing_pause(master: Master, link: Link) -> None:
    await link.up()
    master.errors = ["Role '/x' is invalid"] * 3
    master.cut()
    await link.next(Disconnected)
    for _ in range(3):
        assert "Role '/x'" in (await link.next(Disconnected)).reason
    await link.up()
    times = master.subscribed_at
    assert len(times) == 5
    assert times[-1] - times[-2] > 0.15


async def test_every_connection_that_ends_is_told_once(master: Master, link: Link) -> None:
    """Also those that were never made; and the link does not count as up at that moment."""
    await link.up()
    master.subscribe_status = [503] * 2
    master.cut()
    told: list[str] = []
    async with asyncio.timeout(PATIENCE):
        async for event in link.events:
            told.append(type(event).__name__)
            if isinstance(event, Disconnected):
                with pytest.raises(CallRefused):
                    await link.framework.accept(["o"], [{}])
            if isinstance(event, Subscribed):
                break
    assert told == ["Disconnected"] * 3 + ["Subscribed"]


async def test_whoever_reads_slowly_stops_neither_the_link_nor_the_order(
    master: Master, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[object] = []
    arrive = link.framework._arrive

    def watched(event: LinkEvent) -> None:
        threads.append(threading.current_thread())
        arrive(event)

    monkeypatch.setattr(link.framework, "_arrive", watched)
    await link.up()
    await master.restart(link, heartbeat=1.0)
    for number in range(30):
        master.send({"type": "RESCIND", "rescind": {"offer_id": {"value": str(number)}}})
        master.send({"type": "HEARTBEAT"})
        await asyncio.sleep(
            0.12
        )  # nobody reads the events meanwhile, for more than three intervals
    assert len(master.subscriptions) == 2
    rescinded = [(await link.next(Rescinded)).offer_id for _ in range(30)]
    assert rescinded == [str(number) for number in range(30)]
    assert set(threads) == {threading.main_thread()}


async def test_no_call_is_made_before_the_id_is_safe(master: Master, link: Link) -> None:
    link.framework.kill("t")
    await link.next(Subscribed)
    with pytest.raises(CallRefused):
        await link.framework.accept(["o"], [{}])
    assert master.calls == []
    link.framework.confirm()
    assert (await master.until_called("KILL"))["kill"] == {"task_id": {"value": "t"}}


async def test_calls_wait_until_we_may_act(master: Master) -> None:
    """A controller that does not lead at the moment says nothing, and forgets nothing of what it has to say."""
    leads = True
    settings = FrameworkSettings(master=master.address, name="test", may_act=lambda: leads)
    framework = Framework(settings)
    await framework.start()
    link = Link(framework)
    await link.up()
    leads = False
    framework.decline(["o"], refuse_seconds=0.0)
    accepting = asyncio.create_task(framework.accept(["p"], [{"task_id": {"value": "t"}}]))
    await asyncio.sleep(0.2)
    assert master.calls == [] and not accepting.done()
    leads = True
    await accepting
    assert [call["type"] for call in master.calls] == ["DECLINE", "ACCEPT"]
    await framework.stop(teardown=False)


async def test_kills_wait_for_the_link_and_are_not_piled_up(master: Master, link: Link) -> None:
    await link.up()
    master.cut()
    await link.next(Disconnected)
    for _ in range(100):
        link.framework.kill("t")
        link.framework.revive()
    link.framework.suppress()
    await link.up()
    await master.until_called("SUPPRESS")
    assert sorted(call["type"] for call in master.calls) == ["KILL", "SUPPRESS"]


async def test_a_kill_can_leave_no_time_of_grace(master: Master, link: Link) -> None:
    await link.up()
    link.framework.kill("t", at_once=True)
    call = await master.until_called("KILL")
    grace = {"grace_period": {"nanoseconds": 0}}
    assert call["kill"] == {"task_id": {"value": "t"}, "kill_policy": grace}


async def test_an_accept_of_an_old_subscription_is_refused(master: Master, link: Link) -> None:
    await link.up()
    master.cut()
    await link.next(Disconnected)
    with pytest.raises(CallRefused):
        await link.framework.accept(["o"], [{}])
    await link.up()
    assert master.calls == []


async def test_a_refused_call_is_told_to_the_caller(master: Master, link: Link) -> None:
    await link.up()
    master.call_status = 403
    with pytest.raises(CallRefused, match="403"):
        await link.framework.accept(["o"], [{}])
    master.call_status = 202
    await link.framework.accept(["o"], [{}])


async def test_a_call_without_answer_hangs_nothing(master: Master) -> None:
    async with linked(master, 2.0) as link:
        await link.up()
        master.call_status = None
        call = asyncio.create_task(link.framework.accept(["o"], [{}]))
        await master.until_called("ACCEPT")
        master.send({"type": "OFFERS", "offers": {"offers": [{}]}})
        await link.next(Offered)
        with pytest.raises(CallUncertain):
            await call
        assert len(master.calls) == 1, "an ACCEPT is never repeated"


async def test_reconciliation_names_the_agents(master: Master, link: Link) -> None:
    await link.up()
    link.framework.reconcile([("t1", "a1"), ("t2", "")])
    call = await master.until_called("RECONCILE")
    assert call["reconcile"]["tasks"] == [
        {"task_id": {"value": "t1"}, "agent_id": {"value": "a1"}},
        {"task_id": {"value": "t2"}},
    ]


async def test_inverse_offers_are_heard_and_answered(master: Master, link: Link) -> None:
    """pymesos wraps the ids twice."""
    await link.up()
    offer = {"id": {"value": "o1"}, "agent_id": {"value": "a"}}
    master.send({"type": "INVERSE_OFFERS", "inverse_offers": {"inverse_offers": [offer]}})
    assert (await link.next(AskedToLeave)).offers == (offer,)
    link.framework.answer("o1", accept=False, refuse_seconds=60)
    call = await master.until_called("DECLINE_INVERSE_OFFERS")
    expected = {"inverse_offer_ids": [{"value": "o1"}], "filters": {"refuse_seconds": 60}}
    assert call["decline_inverse_offers"] == expected
    link.framework.answer("o1", accept=True, refuse_seconds=60)
    call = await master.until_called("ACCEPT_INVERSE_OFFERS")
    assert call["accept_inverse_offers"] == expected


async def test_only_updates_with_a_uuid_are_acknowledged(master: Master, link: Link) -> None:
    await link.up()
    for uuid in (None, "abc="):
        body = {"task_id": {"value": "t"}, "agent_id": {"value": "a"}, "state": "TASK_RUNNING"}
        master.send(
            {"type": "UPDATE", "update": {"status": body | ({"uuid": uuid} if uuid else {})}}
        )
        event = await link.next(Updated)
        assert event.status == StatusUpdate("t", "TASK_RUNNING", "a", uuid)
        link.framework.acknowledge(event.status)
    call = await master.until_called("ACKNOWLEDGE")
    assert call["acknowledge"]["uuid"] == "abc="
    assert len(master.calls) == 1


@pytest.mark.parametrize("secret", [SECRET, "mööp€"])
async def test_credentials_are_sent_when_there_are_some(master: Master, secret: str) -> None:
    settings = FrameworkSettings(
        master=master.address, name="t", user="root", principal="sdp", secret=secret
    )
    framework = Framework(settings)
    await framework.start()
    await Link(framework).up()
    assert master.subscriptions[0]["subscribe"]["framework_info"]["principal"] == "sdp"
    framework.kill("t")
    await master.until_called("KILL")
    credentials = base64.b64encode(f"sdp:{secret}".encode()).decode()
    assert len(master.heads) == 2
    assert all(f"Authorization: Basic {credentials}\r\n" in head for head in master.heads)
    await framework.stop(teardown=False)


@pytest.mark.parametrize(
    "importing",
    [
        "import scheduler.framework",
        "import threading; t = threading.Thread(target=__import__, args=('scheduler.framework',));"
        "t.start(); t.join(); import sys; assert 'scheduler.framework' in sys.modules",
    ],
)
def test_importing_leaves_the_signal_handler_alone_in_any_thread(importing: str) -> None:
    code = (
        f"import signal; before = signal.getsignal(signal.SIGINT); {importing};"
        "raise SystemExit(signal.getsignal(signal.SIGINT) is not before)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert signal.getsignal(signal.SIGINT) is not None
