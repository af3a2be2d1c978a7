"""Conversations with the master in virtual time. The facts are those of recorded ones with Mesos 1.12."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.embedded.calls import CallRefusedError


def first(scheduler: Any) -> dict[str, Any]:
    return next(iter(scheduler.offers.values()))


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


async def launch(bench: Any, scheduler: Any, task: Any, *names: str, **more: Any) -> dict[str, Any]:
    offer = first(scheduler)
    await scheduler.accept(
        [offer["id"]["value"]], *(task(name, offer, cpus=0.5, **more) for name in names)
    )
    return offer


async def test_a_subscriber_gets_subscribed_a_heartbeat_and_offers(make_bench: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    assert kinds(scheduler.events) == ["SUBSCRIBED", "HEARTBEAT", "OFFERS"]
    assert len(scheduler.offers) == 2
    await bench.advance(45)
    assert kinds(scheduler.read()).count("HEARTBEAT") == 3


async def test_offers_speak_the_dialect_of_the_framework(make_bench: Any) -> None:
    bench = make_bench(1)
    plain = await bench.subscribe(roles=(), capabilities=(), role="sdp")
    assert "allocation_info" not in first(plain)
    assert {r["role"] for r in first(plain)["resources"]} == {"*"}
    await plain.call("TEARDOWN")
    refined = await bench.subscribe(
        roles=["sdp"], capabilities=("MULTI_ROLE", "RESERVATION_REFINEMENT")
    )
    assert first(refined)["allocation_info"] == {"role": "sdp"}
    assert all("role" not in r for r in first(refined)["resources"])


async def test_an_offer_leads_to_the_agents_files(make_bench: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    urls = {o["hostname"]: o["url"] for o in scheduler.offers.values()}
    assert urls["127.0.1.2"]["path"] == "/slave(2)"
    assert urls["127.0.1.2"]["address"]["port"] == 5050


async def test_a_task_starts_runs_and_ends_one_acknowledgement_at_a_time(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    await launch(bench, scheduler, task, "t")
    assert scheduler.states("t") == ["TASK_STARTING"]
    await scheduler.acknowledge(scheduler.updates[-1])
    assert scheduler.states("t") == ["TASK_STARTING", "TASK_RUNNING"]
    await bench.end("t")
    assert scheduler.states("t")[-1] == "TASK_RUNNING"
    await scheduler.acknowledge(scheduler.updates[-1])
    last = scheduler.updates[-1]
    assert (last["state"], last["message"]) == ("TASK_FINISHED", "Command exited with status 0")
    assert "reason" not in last
    framework = bench.master.frameworks[scheduler.id]
    assert "t" in framework.tasks
    await scheduler.acknowledge(last)
    assert "t" not in framework.tasks
    await bench.close()


async def test_updates_come_again_until_they_are_acknowledged(make_bench: Any, task: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    await launch(bench, scheduler, task, "t")
    times = []
    for second in range(1, 80):
        await bench.advance(1)
        scheduler.read()
        if len(scheduler.updates) > len(times) + 1:
            times.append(second)
    assert times == [10, 30, 70]
    assert len({u["uuid"] for u in scheduler.updates}) == 1
    await scheduler.acknowledge_all()
    assert len(scheduler.updates) == 5  # the four, and TASK_RUNNING
    await bench.advance(100)
    assert len(scheduler.states("t")) == 5
    await bench.close()


async def test_a_wrong_acknowledgement_changes_nothing(make_bench: Any, task: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    await launch(bench, scheduler, task, "t")
    status = scheduler.updates[-1]
    await scheduler.acknowledge(status | {"uuid": "AAECAwQFRgeICQoLDA0ODw=="})
    await scheduler.acknowledge(status | {"agent_id": {"value": "nope"}})
    await scheduler.acknowledge(status | {"task_id": {"value": "nope"}})
    assert scheduler.states("t") == ["TASK_STARTING"]
    await scheduler.acknowledge(status)
    await scheduler.acknowledge(status)
    assert scheduler.states("t") == ["TASK_STARTING", "TASK_RUNNING"]
    await bench.close()


async def test_resources_are_free_when_the_master_hears_of_the_end_not_when_it_is_acknowledged(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = first(scheduler)
    await scheduler.accept([offer["id"]["value"]], task("t", offer, cpus=4.0, cores="[0-7]"))
    await bench.end("t")
    await scheduler.acknowledge(scheduler.updates[-1])
    assert scheduler.states("t")[-1] == "TASK_RUNNING"  # it comes with the newest state
    names = {r["name"] for o in scheduler.offers.values() for r in o["resources"]}
    assert "cores" in names
    await bench.close()


async def test_several_offers_of_an_agent_are_accepted_together(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = first(scheduler)
    await scheduler.accept([offer["id"]["value"]], task("a", offer, cpus=3.0))
    await scheduler.acknowledge_all()
    await bench.advance(1)  # the rest is offered
    await bench.end("a")  # and what was freed, beside it
    scheduler.read()
    assert len(scheduler.offers) == 2
    await scheduler.accept(list(scheduler.offers), task("b", offer, cpus=4.0))
    assert scheduler.states("b") == ["TASK_STARTING"]
    await bench.close()


async def test_invalid_offers_drop_every_task_of_the_call(make_bench: Any, task: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    one, two = scheduler.offers.values()
    await scheduler.accept([one["id"]["value"], two["id"]["value"]], task("t", one))
    last = scheduler.updates[-1]
    assert (last["state"], last["reason"]) == ("TASK_DROPPED", "REASON_INVALID_OFFERS")
    assert "Aggregated offers must belong to one single agent" in last["message"]
    assert "uuid" not in last
    await scheduler.accept(["nope"], task("t", one))
    assert scheduler.updates[-1]["message"] == (
        "Task launched with invalid offers: Offer nope is no longer valid"
    )
    await bench.advance(1)
    scheduler.read()
    assert len(scheduler.offers) == 2  # the valid ones came back


async def test_tasks_of_a_launch_are_judged_one_by_one(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = first(scheduler)
    await scheduler.accept(
        [offer["id"]["value"]],
        task("a", offer, cpus=3.0),
        task("b", offer, cpus=2.0),
        task("a", offer, cpus=0.5),
        task("c", offer, cpus=1.0),
    )
    errors = {u["task_id"]["value"]: u["message"] for u in scheduler.updates if "reason" in u}
    assert errors["b"].startswith("Total resources cpus(allocated: *):2 required by task")
    assert errors["a"] == "Task has duplicate ID: a"
    assert scheduler.states("c") == ["TASK_STARTING"]
    await bench.close()


@pytest.mark.parametrize(("refuse", "seconds"), [(None, 6), (3.0, 4), (-1.0, 6), (0.0, 1)])
async def test_declined_resources_come_back_at_the_run_after_the_filter(
    make_bench: Any, refuse: float | None, seconds: int
) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    await bench.advance(0.5)  # runs are at whole seconds
    await scheduler.decline(first(scheduler)["id"]["value"], refuse)
    await bench.advance(seconds - 1.01)
    assert not scheduler.offers
    await bench.advance(1)
    scheduler.read()
    assert len(scheduler.offers) == 1


async def test_more_than_was_refused_is_offered_in_spite_of_the_filter(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = first(scheduler)
    await scheduler.accept([offer["id"]["value"]], task("t", offer), refuse=3600.0)
    await scheduler.acknowledge_all()
    await bench.advance(10)
    assert not scheduler.offers
    await bench.end("t")
    scheduler.read()
    assert len(scheduler.offers) == 1
    await bench.close()


async def test_suppress_and_revive_by_role(make_bench: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe(roles=["a", "b"])
    assert first(scheduler)["allocation_info"]["role"] == "a"
    await scheduler.call("SUPPRESS", roles=["a"])
    await scheduler.decline(first(scheduler)["id"]["value"], 3600.0)
    await bench.advance(1)
    scheduler.read()
    assert first(scheduler)["allocation_info"]["role"] == "b"  # a filter is of one role
    await scheduler.decline(first(scheduler)["id"]["value"], 3600.0)
    await scheduler.call("REVIVE", roles=["a"])
    assert first(scheduler)["allocation_info"]["role"] == "a"


async def test_an_offer_that_is_not_answered_is_rescinded(make_bench: Any) -> None:
    bench = make_bench(1, offer_timeout=3.0)
    scheduler = await bench.subscribe()
    old = first(scheduler)["id"]["value"]
    await bench.advance(4)
    scheduler.read()
    assert "RESCIND" in kinds(scheduler.events)
    assert old not in scheduler.offers
    assert len(scheduler.offers) == 1


async def test_kill_honours_the_policy_of_the_task(make_bench: Any, task: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    policy = {"grace_period": {"nanoseconds": 7_000_000_000}}
    await launch(bench, scheduler, task, "t", kill_policy=policy)
    override = {"grace_period": {"nanoseconds": 1}}
    for _ in range(2):  # a second call changes nothing
        await scheduler.call("KILL", task_id={"value": "t"}, kill_policy=override)
    assert bench.executor.containers["t"].kills == [7.0]
    await bench.end("t", succeeded=False, message="Command terminated with signal Terminated")
    await scheduler.acknowledge_all()
    assert scheduler.states("t") == [
        "TASK_STARTING",
        "TASK_RUNNING",
        "TASK_KILLING",
        "TASK_KILLED",
    ]
    await bench.close()


async def test_a_task_that_runs_too_long_fails(make_bench: Any, task: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    limit = {"nanoseconds": 2_000_000_000}
    await launch(bench, scheduler, task, "t", max_completion_time=limit)
    await bench.advance(1.9)
    assert bench.executor.containers["t"].kills == []
    await bench.advance(0.1)
    assert bench.executor.containers["t"].kills == [0.0]
    await bench.end("t", succeeded=False, message="Command terminated with signal Terminated")
    await scheduler.acknowledge_all()
    last = scheduler.updates[-1]
    assert last["state"] == "TASK_FAILED"
    assert last["reason"] == "REASON_MAX_COMPLETION_TIME_REACHED"
    await bench.close()


@pytest.mark.parametrize(
    ("agent", "state", "message"),
    [
        (None, "TASK_UNKNOWN", "Reconciliation: Task is unknown"),
        ("nope", "TASK_UNKNOWN", "Reconciliation: Task is unknown"),
        ("known", "TASK_GONE", "Reconciliation: Task is unknown to the agent"),
    ],
)
@pytest.mark.parametrize("kind", ["KILL", "RECONCILE"])
async def test_what_is_said_of_a_task_that_is_not_known(
    make_bench: Any, agent: str | None, state: str, message: str, kind: str
) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    asked: dict[str, Any] = {"task_id": {"value": "t"}}
    if agent is not None:
        name = first(scheduler)["agent_id"]["value"] if agent == "known" else agent
        asked["agent_id"] = {"value": name}
    await scheduler.call(kind, **(asked if kind == "KILL" else {"tasks": [asked]}))
    last = scheduler.updates[-1]
    assert (last["state"], last["message"]) == (state, message)
    assert last["reason"] == "REASON_RECONCILIATION"
    assert "uuid" not in last


async def test_reconciliation_tells_what_has_been_forwarded(make_bench: Any, task: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    await launch(bench, scheduler, task, "t")
    await scheduler.call("RECONCILE", tasks=[])
    last = scheduler.updates[-1]
    assert last["state"] == "TASK_STARTING"  # although it runs
    assert last["message"] == "Reconciliation: Latest task state"
    assert "container_status" in last
    await bench.close()


async def test_a_kill_with_a_wrong_agent_does_nothing(make_bench: Any, task: Any) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe()
    await launch(bench, scheduler, task, "t")
    await scheduler.call("KILL", task_id={"value": "t"}, agent_id={"value": "nope"})
    assert bench.executor.containers["t"].kills == []
    await bench.close()


async def test_a_framework_comes_back_within_its_failover_timeout(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe(failover_timeout=60.0)
    await launch(bench, scheduler, task, "t")
    bench.master.disconnected(scheduler.stream)
    await bench.advance(59)
    again = await bench.subscribe(failover_timeout=60.0, framework_id=scheduler.id)
    assert again.id == scheduler.id
    assert again.states("t") == ["TASK_STARTING"]
    assert len(again.offers) == 2
    await bench.advance(60)
    assert scheduler.id in bench.master.frameworks
    await bench.close()


@pytest.mark.parametrize("timeout", [0.0, -1.0, 60.0])
async def test_a_framework_that_stays_away_is_removed_with_its_tasks(
    make_bench: Any, task: Any, timeout: float
) -> None:
    bench = make_bench()
    scheduler = await bench.subscribe(failover_timeout=timeout)
    await launch(bench, scheduler, task, "t")
    bench.master.disconnected(scheduler.stream)
    await bench.advance(max(0.0, timeout))
    assert bench.executor.containers["t"].kills == [3.0]
    again = await bench.subscribe(framework_id=scheduler.id)
    assert again.events == [{"type": "ERROR", "error": {"message": "Framework has been removed"}}]
    assert again.stream.closed
    await bench.close()


async def test_the_second_of_two_subscriptions_wins(make_bench: Any) -> None:
    bench = make_bench()
    old = await bench.subscribe(failover_timeout=60.0)
    await old.decline(first(old)["id"]["value"], 3600.0)
    new = await bench.subscribe(failover_timeout=60.0, framework_id=old.id)
    assert old.read()[-1] == {"type": "ERROR", "error": {"message": "Framework failed over"}}
    assert old.stream.closed
    bench.master.disconnected(old.stream)  # the late end of the old connection means nothing
    assert bench.master.frameworks[new.id].connected
    with pytest.raises(CallRefusedError, match="didn't match the stream ID"):
        await old.call("REVIVE")
    assert len(new.offers) == 1  # filters outlive this kind of subscription


async def test_an_agent_that_is_away_for_long_is_unreachable_and_its_tasks_come_back(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench(1, agent_ping_timeout=2.0, max_agent_ping_timeouts=3)
    aware = await bench.subscribe(checkpoint=True)
    offer = await launch(bench, aware, task, "t")
    await aware.acknowledge_all()
    await bench.advance(1)
    agent_id = offer["agent_id"]["value"]
    bench.membership.disconnect(agent_id)
    assert kinds(aware.read())[-1] == "RESCIND"
    await bench.advance(6)
    aware.read()
    assert kinds(aware.events)[-2:] == ["UPDATE", "FAILURE"]
    last = aware.updates[-1]
    assert (last["state"], last["message"]) == ("TASK_UNREACHABLE", "health check timed out")
    assert last["unreachable_time"]["nanoseconds"] > 0
    assert agent_id not in bench.master.agents
    assert not bench.master.removed_agents[agent_id].used
    bench.membership.reconnect(agent_id)
    await bench.settle()
    aware.read()
    last = aware.updates[-1]
    assert (last["state"], last["reason"]) == ("TASK_RUNNING", "REASON_AGENT_REREGISTERED")
    assert bench.master.agents[agent_id].used.plain.scalars["cpus"] == 500
    await bench.end("t")
    await aware.acknowledge_all()
    assert aware.states("t")[-1] == "TASK_FINISHED"
    await bench.close()


async def test_tasks_without_checkpoint_are_lost_with_the_connection(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = await launch(bench, scheduler, task, "t")
    bench.membership.disconnect(offer["agent_id"]["value"])
    last = scheduler.read()[-1]["update"]["status"]
    assert (last["state"], last["reason"]) == ("TASK_LOST", "REASON_AGENT_DISCONNECTED")
    bench.membership.reconnect(offer["agent_id"]["value"])
    assert bench.executor.containers["t"].kills  # nobody wants it any more
    await bench.close()


async def test_a_short_absence_of_an_agent_is_only_a_rescind(make_bench: Any, task: Any) -> None:
    bench = make_bench(1, agent_ping_timeout=2.0, max_agent_ping_timeouts=3)
    scheduler = await bench.subscribe(checkpoint=True)
    offer = await launch(bench, scheduler, task, "t")
    await scheduler.acknowledge_all()
    bench.membership.disconnect(offer["agent_id"]["value"])
    await bench.end("t")
    await bench.advance(5)
    assert scheduler.states("t")[-1] == "TASK_RUNNING"
    bench.membership.reconnect(offer["agent_id"]["value"])
    await bench.advance(20)
    assert scheduler.states("t")[-1] == "TASK_FINISHED"
    assert "FAILURE" not in kinds(scheduler.events)
    await bench.close()


async def test_a_subscriber_that_does_not_read_is_cut_off(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    scheduler.stream._max_backlog = 2000
    for number in range(100):
        await bench.advance(15 * number)
    assert scheduler.stream.overflowed
    assert scheduler.stream.take() == []
