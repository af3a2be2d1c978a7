"""What operators do: maintenance, draining, giving agents up; and operations that there are not here."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.embedded.maintenance import Machine, MaintenanceError
from scheduler.embedded.operations import Operations, UnknownAgentError

WINDOW = {"start": {"nanoseconds": 10**18}, "duration": {"nanoseconds": 3600 * 10**9}}


def schedule(*hostnames: str) -> dict[str, Any]:
    machines = [{"hostname": name, "ip": name} for name in hostnames]
    return {"windows": [{"machine_ids": machines, "unavailability": WINDOW}]}


async def running(bench: Any, task: Any, **info: Any) -> tuple[Any, str]:
    """Return a framework with one task, and the id of its agent."""
    scheduler = await bench.subscribe(checkpoint=True, **info)
    offer = next(iter(scheduler.offers.values()))
    await scheduler.accept([offer["id"]["value"]], task("t", offer, cpus=0.5))
    await scheduler.acknowledge_all()
    return scheduler, offer["agent_id"]["value"]


def kinds(scheduler: Any) -> list[str]:
    return [event["type"] for event in scheduler.read()]


async def test_offers_tell_of_maintenance_and_holders_are_asked_until_they_agree(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench(2)
    scheduler, agent_id = await running(bench, task)
    await bench.advance(1)
    scheduler.read()
    bench.master.maintenance.schedule(schedule("127.0.1.1"))
    await bench.settle()
    events = scheduler.read()
    assert [e["type"] for e in events if e["type"] == "RESCIND"], "all offers are made anew"
    unavailable = [o for o in scheduler.offers.values() if "unavailability" in o]
    assert {o["hostname"] for o in unavailable} == {"127.0.1.1"}
    (asked,) = (e["inverse_offers"] for e in events if e["type"] == "INVERSE_OFFERS")
    (offer,) = asked["inverse_offers"]
    assert offer["agent_id"] == {"value": agent_id}
    refuse = {"filters": {"refuse_seconds": 2.0}}
    await scheduler.call("DECLINE_INVERSE_OFFERS", inverse_offer_ids=[offer["id"]], **refuse)
    await bench.advance(1)
    assert "INVERSE_OFFERS" not in kinds(scheduler)
    await bench.advance(1.5)
    again = next(e for e in scheduler.read() + scheduler.events[-5:] if "inverse_offers" in e)
    ids = [again["inverse_offers"]["inverse_offers"][0]["id"]]
    await scheduler.call("ACCEPT_INVERSE_OFFERS", inverse_offer_ids=ids)
    (draining,) = bench.master.maintenance.describe_status()["draining_machines"]
    assert draining["statuses"][0]["status"] == "ACCEPT"


async def test_a_machine_that_goes_down_takes_its_agent_along(make_bench: Any, task: Any) -> None:
    bench = make_bench(2)
    scheduler, agent_id = await running(bench, task)
    machine = Machine("127.0.1.1", "127.0.1.1")
    operations = Operations(bench.master)
    with pytest.raises(MaintenanceError, match="not in DRAINING mode"):
        operations.machine_down([machine])
    bench.master.maintenance.schedule(schedule("127.0.1.1"))
    operations.machine_down([machine])
    await bench.settle()
    assert scheduler.states("t")[-1] == "TASK_LOST"
    assert "Machine DOWN" in scheduler.updates[-1]["message"]
    assert "FAILURE" in [e["type"] for e in scheduler.events]
    agent = bench.master.removed_agents[agent_id].agent
    assert not bench.membership.register(agent), "it may not come back before the machine is up"
    bench.master.maintenance.bring_up([machine])
    assert bench.membership.register(agent)
    assert bench.master.maintenance.describe_schedule() == {}


@pytest.mark.parametrize(
    "document",
    [
        {"windows": [{"machine_ids": [], "unavailability": WINDOW}]},
        {"windows": [{"machine_ids": [{}], "unavailability": WINDOW}]},
        {"windows": schedule("a")["windows"] * 2},
    ],
)
async def test_a_schedule_without_sense_is_refused(
    make_bench: Any, document: dict[str, Any]
) -> None:
    bench = make_bench(1)
    with pytest.raises(MaintenanceError):
        bench.master.maintenance.schedule(document)
    assert bench.master.maintenance.describe_schedule() == {}


async def test_a_drained_agent_is_emptied_and_not_offered_until_it_is_reactivated(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench(1)
    scheduler, agent_id = await running(bench, task)
    operations = Operations(bench.master)
    operations.drain(agent_id, 1.0, mark_gone=False)
    await bench.settle()
    assert bench.executor.containers["t"].kills == [1.0]
    await bench.end("t", succeeded=False, message="Command terminated with signal Terminated")
    await scheduler.acknowledge_all()
    last = scheduler.updates[-1]
    assert (last["state"], last["reason"]) == ("TASK_KILLED", "REASON_AGENT_DRAINING")
    scheduler.offers.clear()
    await scheduler.call("REVIVE")
    await bench.advance(2)
    assert not scheduler.offers
    operations.reactivate(agent_id)
    await bench.settle()
    scheduler.read()
    assert scheduler.offers


async def test_an_agent_that_is_drained_to_be_gone_is_gone_when_it_is_empty(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench(1)
    scheduler, agent_id = await running(bench, task)
    Operations(bench.master).drain(agent_id, None, mark_gone=True)
    await bench.settle()
    assert agent_id in bench.master.agents
    await bench.end("t", succeeded=False, message="Command terminated with signal Terminated")
    await scheduler.acknowledge_all()
    assert agent_id in bench.master.registry.gone


async def test_an_agent_that_is_gone_never_comes_back(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler, agent_id = await running(bench, task)
    operations = Operations(bench.master)
    operations.mark_gone(agent_id)
    await bench.settle()
    assert scheduler.states("t")[-1] == "TASK_GONE_BY_OPERATOR"
    assert not bench.membership.register(bench.master.removed_agents[agent_id].agent)
    operations.mark_gone(agent_id)  # said twice
    with pytest.raises(UnknownAgentError, match="not found"):
        operations.mark_gone("nope")


async def test_a_deactivated_agent_keeps_its_tasks(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler, agent_id = await running(bench, task)
    await bench.advance(1)
    scheduler.read()
    Operations(bench.master).deactivate(agent_id)
    assert kinds(scheduler) == ["RESCIND"]
    await bench.end("t")
    await scheduler.acknowledge_all()
    assert scheduler.states("t")[-1] == "TASK_FINISHED"


async def test_operations_that_there_are_not_are_answered_when_they_are_named(
    make_bench: Any,
) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = next(iter(scheduler.offers.values()))
    operations = [{"type": "RESERVE", "id": {"value": "op"}, "reserve": {}}, {"type": "CREATE"}]
    await scheduler.call("ACCEPT", offer_ids=[offer["id"]], operations=operations)
    (answer,) = (
        event["update_operation_status"]["status"]
        for event in scheduler.events
        if event["type"] == "UPDATE_OPERATION_STATUS"
    )
    assert (answer["operation_id"], answer["state"]) == ({"value": "op"}, "OPERATION_ERROR")
    await scheduler.call("RECONCILE_OPERATIONS", operations=[{"operation_id": {"value": "op"}}])
    assert scheduler.events[-1]["update_operation_status"]["status"]["state"] == "OPERATION_UNKNOWN"
