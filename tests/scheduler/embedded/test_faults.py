"""Every fault of a Mesos that a framework has to live with, as a framework sees it. In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scheduler.embedded.faults import Delay, Drop, Duplicate, Hang, Refuse, Reorder
from scheduler.embedded.registry import RegistryKind
from scheduler.embedded.simulation import CallError, Simulation
from scheduler.errors import ClusterError
from scheduler.quantities import Resources
from tests.scheduler.embedded.frameworks import agents, virtual, watched


@virtual
async def test_an_update_that_is_lost_comes_again_after_ten_seconds() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        rule = cluster.faults.on_event(Drop(), state="TASK_RUNNING", times=1)
        await framework.running("t")
        assert framework.now == pytest.approx(10.0, abs=0.1)
        assert rule.met == 1
        assert cluster.faults.rules() == []


@virtual
async def test_an_update_may_be_late_and_overtaken_by_its_repetition() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        cluster.faults.on_event(Delay(13.0), state="TASK_RUNNING", task="t", times=1)
        await framework.running("t")
        assert framework.now == pytest.approx(10.0, abs=0.1)
        await asyncio.sleep(5.0)
        repeated = [s for s in framework.statuses("t") if s["state"] == "TASK_RUNNING"]
        assert len(repeated) == 2
        assert len({s["uuid"] for s in repeated}) == 1


@virtual
async def test_an_update_may_come_twice() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        cluster.faults.on_event(Duplicate(3), state="TASK_STARTING")
        await framework.running("t")
        assert framework.states("t") == ["STARTING", "STARTING", "STARTING", "RUNNING"]


@virtual
async def test_updates_of_two_tasks_may_change_their_order() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        cluster.faults.on_event(Reorder(), state="TASK_STARTING")
        await framework.launch("first", "a1")
        await framework.launch("second", "a2")
        await framework.until(lambda: framework.states("first"))
        order = [s["task_id"]["value"] for s in framework.updates if s["state"] == "TASK_STARTING"]
        assert order == ["second", "first"]


@virtual
async def test_offers_are_rescinded_in_mid_launch() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        offer = await framework.offer_of("a1")
        assert cluster.faults.rescind("a1") == 1
        framework.offers[offer["id"]["value"]] = offer  # it has not read the RESCIND yet
        await framework.launch("t")
        await framework.until(lambda: framework.states("t"))
        assert framework.statuses("t")[0]["reason"] == "REASON_INVALID_OFFERS"
        assert framework.seen("RESCIND")
        await framework.running("again")


@virtual
async def test_one_agent_is_never_offered() -> None:
    async with Simulation(agents()) as cluster:
        cluster.faults.withhold("a2")
        async with watched(cluster) as framework:
            await asyncio.sleep(60.0)
            assert {o["hostname"] for o in framework.offers.values()} == {"a1"}
            cluster.faults.offer_again("a2")
            await framework.offer_of("a2")
        with pytest.raises(ClusterError, match="no agent 'a3'"):
            cluster.faults.withhold("a3")


@virtual
async def test_an_agent_that_restarts_keeps_its_tasks() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        await framework.running("t")
        await framework.until(lambda: framework.held("a1"))
        await cluster.faults.restart_agent("a1")
        assert framework.seen("RESCIND")
        await asyncio.sleep(200.0)
        assert framework.states("t") == ["STARTING", "RUNNING"]
        assert cluster.agents["a1"].runs


@virtual
async def test_a_machine_that_goes_down_takes_its_tasks_along() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        await framework.running("t")
        begin = framework.now
        cluster.faults.lose_machine("a1")
        await framework.until(lambda: framework.states("t")[-1] == "UNREACHABLE")
        assert framework.now - begin == pytest.approx(75.0, abs=1.0)
        assert framework.seen("FAILURE")
        assert not cluster.agents["a1"].runs


@pytest.mark.parametrize("length", [30.0, 300.0])
@virtual
async def test_a_partition_ends_with_the_tasks_running(length: float) -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        await framework.running("t")
        cluster.faults.partition("a1")
        await asyncio.sleep(length)
        assert cluster.agents["a1"].runs  # its data flows on
        cluster.faults.heal("a1")
        await asyncio.sleep(1.0)
        told = framework.states("t")[2:]
        assert told == (["UNREACHABLE", "RUNNING"] if length > 75.0 else [])


@virtual
async def test_an_agent_returns_with_less() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        await framework.running("t")
        cluster.faults.kill_agent("a1")
        less, facts = Resources({"cpus": 100}), {"rack": "r1", "sdp.numa.0.cores": "nonsense"}
        with pytest.raises(ClusterError, match="Value of scalar resource 'cpus' decreased"):
            cluster.faults.start_agent("a1", resources=less)
        cluster.faults.start_agent("a1", resources=less, attributes=facts, fresh=True)
        offer = await framework.offer_of("a1")
        while offer["resources"][0]["scalar"]["value"] != 0.1:
            offer = await framework.offer_of("a1")
        assert {"sdp.numa.0.cores"} < {a["name"] for a in offer["attributes"]}


@pytest.mark.parametrize("kind", list(RegistryKind))
@virtual
async def test_another_master_leads(kind: RegistryKind) -> None:
    async with Simulation(agents(), registry=kind) as cluster, watched(cluster) as framework:
        await framework.running("t")
        before = cluster.master.id
        await cluster.faults.fail_over()
        assert cluster.master.id != before
        assert (
            len({e["subscribed"]["framework_id"]["value"] for e in framework.seen("SUBSCRIBED")})
            == 1
        )
        await framework.running("after")
        spontaneous = kind is RegistryKind.IN_MEMORY
        assert framework.states("t") == ["STARTING", "RUNNING"] + ["RUNNING"] * spontaneous


@virtual
async def test_a_master_fails_between_accept_and_agent() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        cluster.faults.partition("a1")  # so that the launch does not arrive
        await framework.launch("t")
        failing = asyncio.create_task(cluster.faults.fail_over())
        await asyncio.sleep(2.0)
        cluster.faults.heal("a1")
        await failing
        await asyncio.sleep(10.0)
        assert framework.states("t") == []
        await framework.link.call("RECONCILE", tasks=[{"task_id": {"value": "t"}}])
        await framework.until(lambda: framework.states("t"))
        assert framework.states("t") == ["UNKNOWN"]


@virtual
async def test_an_accept_is_lost() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        cluster.faults.on_call(Drop(), "ACCEPT", times=1)
        await framework.launch("t")
        await asyncio.sleep(60.0)
        assert framework.states("t") == []


@virtual
async def test_a_connection_is_half_open() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        await asyncio.sleep(20.0)
        assert cluster.faults.silence() == 1
        count = len(framework.events)
        await asyncio.sleep(600.0)
        assert len(framework.events) == count
        assert framework.subscriptions == 1
        framework.link.cut()  # as a framework that misses heartbeats does
        await framework.until(lambda: len(framework.seen("SUBSCRIBED")) == 2)


@virtual
async def test_the_framework_is_removed() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        cluster.faults.send_error("Framework has been removed")
        await framework.until(lambda: framework.seen("ERROR"))
        assert framework.seen("ERROR")[0]["error"]["message"] == "Framework has been removed"
        await framework.until(lambda: framework.subscriptions == 2)


@virtual
async def test_acknowledgements_are_slow() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        cluster.faults.on_call(Delay(4.0), "ACKNOWLEDGE")
        await framework.running("t")
        assert framework.now == pytest.approx(4.0, abs=0.1)
        assert framework.states("t") == ["STARTING", "RUNNING"]


@pytest.mark.parametrize("status", [404, 503])
@virtual
async def test_a_master_that_starts_refuses_for_a_while(status: int) -> None:
    async with Simulation(agents()) as cluster:
        cluster.faults.refuse_requests(status, 5.0)
        async with watched(cluster) as framework:
            assert framework.now == pytest.approx(5.0, abs=1.1)
            assert framework.subscriptions > 1


@virtual
async def test_calls_are_refused_or_hang() -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        cluster.faults.on_call(Refuse(403, "no"), "REVIVE", times=1)
        with pytest.raises(CallError, match="403: no"):
            await framework.link.call("REVIVE")
        await framework.link.call("REVIVE")
        cluster.faults.on_call(Hang(), "REVIVE")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600.0):
                await framework.link.call("REVIVE")
        cluster.faults.clear()
        await framework.link.call("REVIVE")


@pytest.mark.parametrize(
    ("whom", "met"),
    [({"task": "t*"}, 1), ({"task": "x"}, 0), ({"framework": "*-0000"}, 1), ({"agent": "*S9"}, 0)],
)
@virtual
async def test_a_rule_meets_whom_it_names(whom: dict[str, Any], met: int) -> None:
    async with Simulation(agents()) as cluster, watched(cluster) as framework:
        rule = cluster.faults.on_event(Duplicate(), state="TASK_RUNNING", **whom)
        await framework.running("t1")
        assert rule.met == met
