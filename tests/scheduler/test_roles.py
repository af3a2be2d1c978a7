"""Offers of several roles: a task draws from one of them, the most specific reservation first."""

from __future__ import annotations

from typing import Any

from scheduler.claims import Choice, claimed
from scheduler.embedded import Cluster
from scheduler.journal import MemoryJournal
from scheduler.offers import Ledger, OfferPool
from scheduler.packing import pack
from scheduler.placement import Placement
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.topology import merge_offers
from tests.conftest import PATIENCE
from tests.scheduler.programs import eventually, physical, scheduler_on, shell


def offer(number: int, role: str, cpus: int, *, reserved: str = "", agent: str = "S0") -> Any:
    entry: dict[str, Any] = Resources({"cpus": 1000 * cpus}).to_mesos()[0]
    entry["allocation_info"] = {"role": role}
    if reserved:
        entry["reservations"] = [
            {"type": "STATIC" if depth == 0 else "DYNAMIC", "role": "/".join(path)}
            for depth, path in enumerate(
                reserved.split("/")[: n + 1] for n in range(reserved.count("/") + 1)
            )
        ]
    return {
        "id": {"value": f"o{number}"},
        "agent_id": {"value": agent},
        "hostname": agent,
        "allocation_info": {"role": role},
        "resources": [entry],
    }


def test_one_role_is_one_place_whatever_is_reserved() -> None:
    merged = merge_offers([offer(1, "sdp", 2), offer(2, "sdp", 3, reserved="sdp")])
    (agent,) = merged.agents
    assert (agent.agent_id, agent.mesos_agent_id, agent.role) == ("S0", "S0", "sdp")
    assert agent.free == Resources({"cpus": 5000})


def test_several_roles_are_places_of_their_own_the_most_specific_first() -> None:
    offers = [offer(1, "*", 1), offer(2, "sdp", 2), offer(3, "sdp/batch", 4), offer(4, "sdp", 8)]
    agents = merge_offers(offers).agents
    assert [agent.role for agent in agents] == ["sdp/batch", "sdp", "*"]
    assert [agent.free.scalars["cpus"] for agent in agents] == [4000, 10000, 1000]
    assert {agent.mesos_agent_id for agent in agents} == {"S0"}
    assert len({agent.agent_id for agent in agents}) == 3


def test_an_agent_that_contradicts_itself_in_one_role_is_quarantined_in_all() -> None:
    strange = offer(2, "b", 1) | {"hostname": "another"}
    merged = merge_offers([offer(1, "a", 1), strange, offer(3, "a", 1, agent="S1")])
    assert [agent.agent_id for agent in merged.agents] == ["S1"]
    assert merged.quarantined[0].offer_ids == ("o1", "o2")


def test_a_task_is_never_spread_over_roles_and_a_claim_takes_what_it_uses() -> None:
    pool = OfferPool()
    pool.add([offer(1, "a", 2), offer(2, "b", 2)], 0.0)
    agents = pool.merged().agents
    assert not isinstance(pack(agents, {"t": TaskRequest.of(cpus=3)}), Placement)
    placement = pack(agents, {"t": TaskRequest.of(cpus=2)})
    assert isinstance(placement, Placement)
    claim = claimed(Choice.of(placement, agents, {"t": TaskRequest.of(cpus=2)}), pool)
    assert claim is not None
    ((place, offers),) = claim.offers.items()
    assignment = claim.placement.assignments["t"]
    assert place == (assignment.agent_id, assignment.role)
    assert assignment.agent_id == "S0"
    assert {o["allocation_info"]["role"] for o in offers} == {assignment.role}
    drawn = Ledger(offers).draw(Resources({"cpus": 2000}))
    assert [r["allocation_info"]["role"] for r in drawn] == [assignment.role]
    assert len(pool) == 1


def test_the_most_specific_reservation_is_drawn_first() -> None:
    ledger = Ledger(
        [
            offer(1, "sdp/batch", 1),
            offer(2, "sdp/batch", 1, reserved="sdp"),
            offer(3, "sdp/batch", 1, reserved="sdp/batch"),
        ]
    )
    depths = [
        len(ledger.draw(Resources({"cpus": 1000}))[0].get("reservations", ())) for _ in range(3)
    ]
    assert depths == [2, 1, 0]


async def test_a_graph_runs_on_offers_of_several_roles(
    cluster: Cluster, journal: MemoryJournal
) -> None:
    big = TaskRequest.of(cpus=1.5, mem_mib=16)
    graph = physical("g", *(shell(f"t{n}", "sleep 1000", request=big) for n in range(3)))
    async with scheduler_on(cluster, journal, teardown=True, roles=("a", "b")) as scheduler:
        await scheduler.launch(graph, timeout=PATIENCE)
        views = scheduler.tasks("g").values()
        roles = {v.assignment.role for v in views if v.assignment is not None}
        assert roles <= {"a", "b"}
        assert all(v.assignment and "/" not in v.assignment.agent_id for v in views)
        await scheduler.stop("g")
        await eventually(lambda: all(a.free == a.total for a in scheduler.agents()))
