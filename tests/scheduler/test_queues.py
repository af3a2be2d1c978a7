"""Who is tried next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from scheduler.errors import LaunchError, NeverFitsError, NoFitError
from scheduler.offers import OfferPool
from scheduler.quantities import Resources
from scheduler.queues import Claim, LaunchQueue
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot, Topology


@dataclass
class Everything:
    """A cluster of which everything or nothing is known."""

    agents: list[AgentSnapshot] | None = None

    def totals(self) -> tuple[object, Sequence[AgentSnapshot]] | None:
        return None if self.agents is None else (len(self.agents), self.agents)


@dataclass
class Desk:
    pool: OfferPool = field(default_factory=OfferPool)
    cluster: Everything = field(default_factory=Everything)
    wanted: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = LaunchQueue(self.pool, self.cluster, self.wanted.append)

    def offer(self, number: int, cpus: int) -> None:
        self.pool.add(
            [
                {
                    "id": {"value": f"o{number}"},
                    "agent_id": {"value": f"a{number}"},
                    "hostname": f"host{number}",
                    "resources": Resources({"cpus": 1000 * cpus}).to_mesos(),
                }
            ],
            0.0,
        )
        self.queue.poke()

    def place(
        self, name: str, cpus: int, *, priority: int = 0, seconds: float = 60.0
    ) -> asyncio.Task[Claim]:
        deadline = asyncio.get_running_loop().time() + seconds
        requests = {"t": TaskRequest.of(cpus=cpus)}
        return asyncio.create_task(
            self.queue.place(name, requests, deadline=deadline, priority=priority)
        )


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    worker = asyncio.create_task(desk.queue.work())
    yield desk
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def test_higher_priority_comes_first_then_who_came_first(desk: Desk) -> None:
    waiting = [
        desk.place("late", 1),
        desk.place("later", 1),
        desk.place("important", 1, priority=1),
    ]
    await asyncio.sleep(0)
    for number, first in enumerate((waiting[2], waiting[0], waiting[1])):
        desk.offer(number, 1)
        assert (await first).agents.keys() == {(f"a{number}", "")}
        rest = [task for task in waiting if not task.done()]
        assert len(rest) == 2 - number


async def test_no_two_graphs_get_the_same_offer(desk: Desk) -> None:
    waiting = [desk.place(f"g{number}", 1) for number in range(5)]
    for number in range(5):
        desk.offer(number, 1)
    claims = await asyncio.gather(*waiting)
    assert {tuple(claim.agents) for claim in claims} == {((f"a{n}", ""),) for n in range(5)}


async def test_a_small_graph_passes_one_that_does_not_fit(desk: Desk) -> None:
    large, small = desk.place("large", 8), desk.place("small", 1)
    desk.offer(0, 1)
    assert (await small).agents.keys() == {("a0", "")}
    assert not large.done()
    desk.offer(1, 8)
    await large


async def test_offers_are_wanted_while_somebody_waits(desk: Desk) -> None:
    placed = desk.place("g", 1)
    await asyncio.sleep(0)
    assert desk.wanted == [True]
    desk.offer(0, 1)
    await placed
    assert desk.wanted == [True, False]


async def test_at_the_deadline_it_is_told_what_is_short(desk: Desk) -> None:
    desk.offer(0, 1)
    with pytest.raises(NoFitError, match=r"cpus: t asks for 4, .* is 1 \(agent host0\)"):
        await desk.place("g", 4, seconds=1.0)
    assert not desk.queue.busy


async def test_what_no_agent_has_is_refused_as_soon_as_that_is_known(desk: Desk) -> None:
    placed = desk.place("g", 4)
    desk.offer(0, 1)
    while "cpus" not in desk.queue.explain("g").lower():  # noqa: ASYNC110 - a worker thread does not tell us
        await asyncio.sleep(0)
    total = AgentSnapshot(
        agent_id="a0",
        host="host0",
        topology=Topology(),
        free=Resources({"cpus": 2000}),
        address="127.0.0.1",
    )
    desk.cluster.agents = [total]
    desk.queue.poke()
    with pytest.raises(NeverFitsError):
        await placed


async def test_what_can_never_run_is_told_without_what_is_free_now(desk: Desk) -> None:
    """No offer is held: that nothing is free would be true, and beside the point."""
    desk.cluster.agents = [
        AgentSnapshot(
            agent_id="a0",
            host="host0",
            topology=Topology(),
            free=Resources({"cpus": 2000}),
            address="127.0.0.1",
        )
    ]
    with pytest.raises(
        NeverFitsError, match=r"cpus: t asks for 4, .* is 2 \(agent host0\)"
    ) as told:
        await desk.place("g", 4)
    assert "0 free" not in str(told.value)
    assert "there is none" not in str(told.value)


async def test_a_graph_can_be_withdrawn(desk: Desk) -> None:
    placed = desk.place("g", 4)
    await asyncio.sleep(0)
    desk.queue.withdraw("g", LaunchError("not wanted any more"))
    with pytest.raises(LaunchError, match="not wanted"):
        await placed
    assert desk.wanted == [True, False]
