from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.agents import SETTLE_SECONDS, Agents
from scheduler.quantities import Resources


def slave(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"S{number}",
        "hostname": f"host{number}",
        "active": True,
        "attributes": {"sdp.schema": 1.0, "sdp.numa.0.cores": "[0-3, 8-11]", "rack": "r2"},
        "resources": {"cpus": 8.0, "mem": 1024.0, "cores": "[0-3, 8-11]", "ports": "[31000-31001]"},
        "used_resources": {"cpus": 2.0, "cores": "[0-1]", "ports": "[31000-31000]"},
        **changes,
    }


async def test_free_is_what_no_task_uses() -> None:
    agents = Agents()
    assert await agents.update({"slaves": [slave(1)]}, 0.0)
    (view,) = agents.views()
    assert view.free.scalars == {"cpus": 6000, "mem": 1024_000}
    assert str(view.free.ranges["cores"]) == "[2-3,8-11]"
    (snapshot,) = agents.free()
    assert snapshot.free == view.free
    assert [node.cores.intervals for node in snapshot.topology.numa] == [((0, 3), (8, 11))]


async def test_nothing_is_certain_before_the_agents_have_settled() -> None:
    agents = Agents()
    assert agents.totals() is None
    await agents.update({"slaves": [slave(1)]}, 0.0)
    assert agents.totals() is None
    await agents.update({"slaves": [slave(1)]}, SETTLE_SECONDS)
    totals = agents.totals()
    assert totals is not None
    assert totals[1][0].free.scalars["cpus"] == 8000
    await agents.update({"slaves": [slave(1), slave(2)]}, SETTLE_SECONDS + 1)
    assert agents.totals() is None
    agents.forget()
    assert agents.totals() is None


async def test_what_another_master_told_is_not_current_and_the_first_list_of_this_one_is_news() -> (
    None
):
    agents, document = Agents(), {"slaves": [slave(1)]}
    assert agents.awaited() is None
    assert await agents.update(document, 0.0) and agents.awaited() == frozenset()
    assert not await agents.update(document, 5.0)
    agents.forget()
    assert agents.awaited() is None and len(agents.views()) == 1
    again = {**document, "recovered_slaves": [slave(2), "?"]}
    assert await agents.update(again, 10.0) and agents.awaited() == {"host2"}


async def test_a_malformed_agent_is_quarantined_alone() -> None:
    agents = Agents()
    broken = slave(2, attributes={"sdp.schema": 1.0, "sdp.numa.0.cores": "[9-3]"})
    await agents.update({"slaves": [slave(1), broken, slave(3, resources={"cpus": -1})]}, 0.0)
    reasons = {view.host: view.quarantine for view in agents.views()}
    assert reasons["host1"] == ""
    assert "sdp.numa.0.cores" in reasons["host2"]
    assert reasons["host3"]
    assert [agent.host for agent in agents.free()] == ["host1"]


async def test_an_agent_that_is_away_has_nothing_free() -> None:
    agents = Agents()
    await agents.update({"slaves": [slave(1, active=False), slave(2, deactivated=True)]}, 0.0)
    assert agents.free() == []
    assert [view.active for view in agents.views()] == [False, False]


async def test_more_used_than_there_is_counts_as_nothing_free() -> None:
    agents = Agents()
    await agents.update({"slaves": [slave(1, used_resources={"cpus": 9.0})]}, 0.0)
    assert agents.views()[0].free == Resources()


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("slaves", "id", "hostname", "resources", "attributes", "cpus", "x")),
            inner,
        )
    ),
    max_leaves=12,
)


@given(json)
async def test_whatever_the_master_answers_nothing_breaks(document: object) -> None:
    agents = Agents()
    await agents.update(document, 0.0)
    await agents.update({"slaves": [document]}, 0.0)
    agents.views()
