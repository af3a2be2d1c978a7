"""Agents that die, hang, leave and come back, and masters that follow one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.agents import AgentState
from scheduler.embedded.reconfiguration import ReconfigurationPolicy, incompatibility
from scheduler.embedded.registry import MAX_AGENTS, Registry, RegistryKind
from scheduler.errors import ClusterError
from scheduler.quantities import Ranges, Resources
from tests.scheduler.embedded.test_http import Client

SPEC = AgentSpec(
    "127.0.1.1", Resources({"cpus": 4000}, {"cores": Ranges.parse("[0-3]")}), {"rack": "r1"}
)
MORE = AgentSpec(
    "127.0.1.1",
    Resources({"cpus": 6000}, {"cores": Ranges.parse("[0-5]")}),
    {"rack": "r1", "zone": "a"},
)
OTHER = AgentSpec("127.0.1.1", SPEC.resources, {"rack": "r9"})
LESS = AgentSpec("127.0.1.1", Resources({"cpus": 1000}, SPEC.resources.ranges), {"rack": "r1"})


@pytest.mark.parametrize(
    ("new", "policy", "problem"),
    [
        (SPEC, "equal", None),
        (MORE, "equal", "Incompatible agent info detected"),
        (MORE, "additive", None),
        (OTHER, "additive", "Value of text attribute 'rack' changed from r1 to r9"),
        (LESS, "additive", "Value of scalar resource 'cpus' decreased from 4 to 1"),
        (AgentSpec("b", SPEC.resources, SPEC.attributes), "additive", "Hostname changed"),
        (AgentSpec("127.0.1.1", SPEC.resources), "additive", "Attribute 'rack' was removed"),
    ],
)
def test_an_agent_may_come_back_with_what_its_policy_allows(
    new: AgentSpec, policy: str, problem: str | None
) -> None:
    found = incompatibility(SPEC, new, ReconfigurationPolicy(policy))
    assert (found is None) == (problem is None)
    assert problem is None or problem in str(found)


@pytest.mark.parametrize("kind", RegistryKind)
def test_a_registry_outlives_its_master_if_it_is_replicated(kind: RegistryKind) -> None:
    registry = Registry(kind)
    registry.mark_gone("a", 1.0)
    registry.mark_unreachable("b", 2.0)
    kept = registry.inherited()
    assert (kept is registry) == (kind is RegistryKind.REPLICATED_LOG)
    assert bool(kept.gone) == bool(kept.unreachable) == (kept is registry)


def test_a_registry_does_not_grow_without_end() -> None:
    registry = Registry()
    for number in range(MAX_AGENTS + 5):
        registry.mark_unreachable(str(number), 0.0)
    assert len(registry.unreachable) == MAX_AGENTS
    assert "4" not in registry.unreachable


@pytest.fixture
async def cluster(tmp_path: Path) -> Any:
    async with Cluster(
        [SPEC],
        work_dir=tmp_path,
        port=0,
        allocation_interval=0.1,
        agent_ping_timeout=0.1,
        max_agent_ping_timeouts=2,
        registry=RegistryKind.REPLICATED_LOG,
    ) as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: Cluster) -> Any:
    async with aiohttp.ClientSession() as session:
        client = Client(session, cluster)
        await client.subscribe(checkpoint=True, failover_timeout=60.0)
        yield client
        client.close()


async def test_a_killed_agents_tasks_run_on_and_come_back(client: Client) -> None:
    agents = client.cluster.agents
    await client.run("t", "sleep 60")
    agents.kill(SPEC.hostname)
    assert agents.state(SPEC.hostname) is AgentState.DEAD
    lost = await client.state("TASK_UNREACHABLE")
    assert lost["reason"] == "REASON_AGENT_REMOVED"
    with pytest.raises(ClusterError, match="EXIT with status 1"):
        agents.start(OTHER)
    assert agents.start(SPEC)
    back = await client.state("TASK_RUNNING")
    assert back["reason"] == "REASON_AGENT_REREGISTERED"


async def test_a_rebooted_agent_does_not_know_its_tasks(client: Client) -> None:
    agents = client.cluster.agents
    await client.run("t", "sleep 60")
    agents.reboot(SPEC.hostname)
    assert agents.start(SPEC)
    dropped = await client.state("TASK_DROPPED")
    assert dropped["message"] == "Reconciliation: task unknown to the agent"


async def test_an_agent_that_unregisters_takes_its_tasks_along(client: Client) -> None:
    agents = client.cluster.agents
    await client.run("t", "sleep 60")
    agents.unregister(SPEC.hostname)
    lost = await client.state("TASK_LOST")
    assert lost["message"].endswith("removed: the agent unregistered")
    assert agents.start(OTHER), "it is a new member, so that it may be different"


async def test_a_frozen_agent_heeds_a_kill_when_it_goes_on(client: Client) -> None:
    agents = client.cluster.agents
    await client.run("t", "sleep 60")
    agents.freeze(SPEC.hostname)
    await client.call("KILL", task_id={"value": "t"})
    assert agents.state(SPEC.hostname) is AgentState.FROZEN
    agents.thaw(SPEC.hostname)
    await client.state("TASK_KILLED")


async def test_an_agent_with_an_empty_folder_is_another_one(client: Client) -> None:
    agents = client.cluster.agents
    before = agents[SPEC.hostname].info.id
    with pytest.raises(ClusterError, match="runs already"):
        agents.start(SPEC)
    agents.kill(SPEC.hostname)
    assert agents.start(OTHER, fresh=True)
    assert agents[SPEC.hostname].info.id != before


async def test_tasks_outlive_their_master(client: Client) -> None:
    cluster = client.cluster
    await client.run("t", "sleep 60")
    await cluster.stop_master()
    await cluster.start_master()
    assert cluster.master.frameworks[client.id].state.value == "recovered"
    await client.subscribe(framework_id=client.id, checkpoint=True, failover_timeout=60.0)
    await client.call("RECONCILE", tasks=[])
    known = await client.state("TASK_RUNNING")
    assert known["reason"] == "REASON_RECONCILIATION"


async def test_a_master_that_reads_its_registry_answers_503(client: Client) -> None:
    cluster = client.cluster
    await cluster.stop_master()
    await cluster.start_master(recovery=1000.0)
    assert await client.get("/state") == (503, "Master has not finished recovery")
