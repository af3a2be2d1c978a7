"""Groups of tasks under a default executor."""

from __future__ import annotations

from typing import Any

CPU = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}}


async def launch_group(
    bench: Any, scheduler: Any, task: Any, *names: str, **executor: Any
) -> dict[str, Any]:
    offer: dict[str, Any] = next(iter(scheduler.offers.values()))
    info = {
        "type": "DEFAULT",
        "executor_id": {"value": "ex"},
        "framework_id": {"value": scheduler.id},
        "resources": [CPU],
        **executor,
    }
    tasks = [task(name, offer, cpus=0.5) for name in names]
    group = {"executor": info, "task_group": {"tasks": tasks}}
    scheduler.offers.pop(offer["id"]["value"])
    operation = {"type": "LAUNCH_GROUP", "launch_group": group}
    filters = {"refuse_seconds": 0.0}
    await scheduler.call("ACCEPT", offer_ids=[offer["id"]], operations=[operation], filters=filters)
    return offer


def used(bench: Any, offer: dict[str, Any]) -> int:
    record = bench.master.agents[offer["agent_id"]["value"]]
    return int(record.used.plain.scalars.get("cpus", 0))


async def test_a_group_runs_under_the_executors_id(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = await launch_group(bench, scheduler, task, "a", "b")
    await scheduler.acknowledge_all()
    assert scheduler.states("a")[-1] == scheduler.states("b")[-1] == "TASK_RUNNING"
    status = scheduler.updates[-1]
    assert status["executor_id"] == {"value": "ex"}
    assert set(status["container_status"]["container_id"]) == {"value", "parent"}
    assert used(bench, offer) == 1500
    await bench.advance(1)
    scheduler.read()
    assert scheduler.offers.popitem()[1]["executor_ids"] == [{"value": "ex"}]


async def test_one_that_fails_takes_the_others_along_and_then_the_executor(
    make_bench: Any, task: Any
) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = await launch_group(bench, scheduler, task, "a", "b")
    await scheduler.acknowledge_all()
    await bench.end("a", succeeded=False, message="Command exited with status 1")
    assert bench.executor.containers["b"].kills == [3.0]
    await bench.end("b", succeeded=False, message="Command terminated with signal Terminated")
    await scheduler.acknowledge_all()
    assert scheduler.states("b")[-1] == "TASK_KILLED"
    assert used(bench, offer) == 500, "the executor is still there"
    await bench.advance(1)
    assert used(bench, offer) == 0
    failure = next(e for e in scheduler.read() + scheduler.events if e["type"] == "FAILURE")
    assert failure["failure"]["executor_id"] == {"value": "ex"}


async def test_one_that_ends_well_leaves_the_others(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    await launch_group(bench, scheduler, task, "a", "b")
    await scheduler.acknowledge_all()
    await bench.end("a")
    assert bench.executor.containers["b"].kills == []


async def test_all_or_none_are_launched(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = await launch_group(bench, scheduler, task, "a", "a")
    assert scheduler.states("a") == ["TASK_ERROR", "TASK_ERROR"]
    assert scheduler.updates[-1]["reason"] == "REASON_TASK_GROUP_INVALID"
    assert "Task has duplicate ID: a" in scheduler.updates[-1]["message"]
    assert used(bench, offer) == 0


async def test_an_executor_that_mesos_would_refuse_is_refused(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    await launch_group(bench, scheduler, task, "a", command={"value": "mine"})
    assert "must not be set for 'DEFAULT' executor" in scheduler.updates[-1]["message"]


async def test_shutdown_ends_the_whole_executor(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = await launch_group(bench, scheduler, task, "a", "b")
    ids = {"executor_id": {"value": "ex"}, "agent_id": offer["agent_id"]}
    await scheduler.call("SHUTDOWN", **ids)
    assert [bench.executor.containers[name].kills for name in "ab"] == [[3.0], [3.0]]


async def test_an_executor_can_speak_to_its_framework(make_bench: Any, task: Any) -> None:
    bench = make_bench(1)
    scheduler = await bench.subscribe()
    offer = await launch_group(bench, scheduler, task, "a")
    agent = bench.master.agents[offer["agent_id"]["value"]].agent
    agent.send_message(scheduler.id, "ex", "aGk=")
    (message,) = (e["message"] for e in scheduler.read() if e["type"] == "MESSAGE")
    assert (message["executor_id"]["value"], message["data"]) == ("ex", "aGk=")
