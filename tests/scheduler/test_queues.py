"""Who is tried next."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import async_solipsism
import pytest

from scheduler import queues
from scheduler.cases import LEVELS
from scheduler.claims import Claim
from scheduler.errors import LaunchError, NeverFitsError, NoFitError
from scheduler.limits import Held
from scheduler.offers import OfferPool
from scheduler.packing import Idle, Verdict
from scheduler.placement import Assignment, Running
from scheduler.policy import BATCH, REALTIME, Limits, Queue
from scheduler.quantities import Resources
from scheduler.queues import LaunchQueue
from scheduler.requests import TaskRequest
from scheduler.reservations import Waiting
from scheduler.scene import Holder
from scheduler.topology import AgentSnapshot, Topology
from tests.conftest import PATIENCE
from tests.faults.virtual import in_virtual_time


@dataclass
class Everything:
    """A cluster of which everything or nothing is known."""

    agents: list[AgentSnapshot] | None = None

    roles: Sequence[str] = ()

    idle_agents: list[Idle] = field(default_factory=list)

    away_ids: set[str] = field(default_factory=set)

    def away(self) -> Collection[str]:
        return self.away_ids

    def totals(self) -> tuple[object, Sequence[AgentSnapshot]] | None:
        return None if self.agents is None else (len(self.agents), self.agents)

    def fenced(self) -> Mapping[str, Mapping[str, Resources]]:
        return {}

    def idle(self, offered: Collection[str], stay: float = 0.0) -> Sequence[Idle]:
        return self.idle_agents


def holder(name: str, resources: Resources, **fields: Any) -> Holder:
    """Return somebody who holds this on the first agent."""
    return Holder(name=name, drawn=[(Assignment(name, "a0", "host0"), resources)], **fields)


@dataclass
class Others:
    """What runs."""

    running_now: list[Holder] = field(default_factory=list)
    told_to_end: list[str] = field(default_factory=list)

    def holders(self) -> Sequence[Holder]:
        return self.running_now

    def limited(self) -> Sequence[tuple[str, Sequence[Resources]]]:
        return ()

    def running(self) -> Sequence[tuple[str, Running]]:
        return ()

    def preempt(self, names: Collection[str], by: Waiting) -> None:
        self.told_to_end += names


@dataclass
class Desk:
    pool: OfferPool = field(default_factory=OfferPool)
    cluster: Everything = field(default_factory=Everything)
    tenants: Others = field(default_factory=Others)
    wanted: list[bool] = field(default_factory=list)

    counted: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = LaunchQueue(
            self.pool, self.cluster, self.tenants, self.wanted.append, figures=self
        )

    def made_room(self, queue: str, count: int) -> None:
        self.counted.append(("made room", queue, str(count)))

    def offered(self, count: int, what: str) -> None: ...

    def packed(self, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.counted.append(("packed", outcome))

    def waited(self, queue: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.counted.append(("waited", queue, outcome))

    def reached(self, what: str) -> None: ...

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
        self,
        name: str,
        *cpus: int,
        priority: int = 0,
        seconds: float = 60.0,
        queue: Queue = REALTIME,
    ) -> asyncio.Task[Claim]:
        deadline = asyncio.get_running_loop().time() + seconds
        requests = {f"t{n or ''}": TaskRequest.of(cpus=each) for n, each in enumerate(cpus)}
        return asyncio.create_task(
            self.queue.place(name, requests, deadline=deadline, priority=priority, queue=queue)
        )


@contextlib.asynccontextmanager
async def at_work() -> AsyncIterator[Desk]:
    desk = Desk()
    worker = asyncio.create_task(desk.queue.work())
    yield desk
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


@pytest.fixture
async def desk(compiled: None) -> AsyncIterator[Desk]:
    async with at_work() as desk:
        yield desk


def test_what_has_its_place_counts_before_its_records_are_written() -> None:
    """Two small ones, one after the other, may not take what was left beside the large one to one of them."""

    async def story() -> None:
        async with at_work() as desk:
            desk.cluster.agents = [whole(0, 10)]
            desk.tenants.running_now = [holder("now", Resources({"cpus": 6000}), ends_by=1e9)]
            desk.offer(0, 4)
            large = desk.place("large", 8)
            await asyncio.sleep(1)
            claim = await desk.place("small.0", 2)
            desk.offer(0, 2)
            late = desk.place("small.1", 2)
            await asyncio.sleep(5)
            assert not late.done() and not large.done()
            claim.settled()
            desk.pool.add([], 0.0)
            desk.queue.poke()
            await late  # the first has ended at once: what was left to it is left again
            large.cancel()

    in_virtual_time(story)()


async def test_what_is_drawn_is_looked_up_and_added_up_beside_the_loop(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[str]] = {}
    for of, name in ((Holder, "occupant"), (Held, "by"), (Assignment, "resources")):
        plain = getattr(of, name)

        def noted(*args: Any, name: str = name, plain: Any = plain) -> Any:
            threads.setdefault(name, set()).add(threading.current_thread().name)
            return plain(*args)

        monkeypatch.setattr(of, name, noted)
    few = Queue(name="few", limits=Limits(cpus=3000))
    desk.tenants.running_now = [holder("now", Resources({"cpus": 6000}), ends_by=1e9)]
    desk.offer(0, 4)
    first = await desk.place("small.0", 2, queue=few)
    desk.offer(1, 4)
    await desk.place("small.1", 1, queue=few)  # beside the first, which is not settled
    assert first.drawn["t"] == Resources({"cpus": 2000})
    assert threads.keys() == {"occupant", "by", "resources"}
    assert threading.current_thread().name not in set().union(*threads.values())


def test_more_than_a_queue_may_ever_hold_is_refused_at_once() -> None:
    few = Queue(name="few", limits=Limits(cpus=3000))

    async def story() -> None:
        async with at_work() as desk:
            with pytest.raises(
                NeverFitsError, match="few may hold 3 CPUs: 0 are held, 4 asked for"
            ):
                await desk.place("g", 4, queue=few)
            desk.offer(0, 8)
            first = await desk.place("first", 2, queue=few)
            desk.offer(1, 8)
            second = desk.place("second", 2, queue=few)
            await asyncio.sleep(1)
            assert "few may hold 3 CPUs: 2 are held, 2 asked for" in desk.queue.explain("second")
            first.settled()
            desk.queue.poke()
            await second

    in_virtual_time(story)()


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


@in_virtual_time
async def test_at_the_deadline_it_is_told_what_is_short() -> None:
    async with at_work() as desk:
        desk.offer(0, 1)
        with pytest.raises(NoFitError, match=r"cpus: t asks for 4, .* is 1 \(agent host0\)"):
            await desk.place("g", 4, seconds=1.0)
        assert not desk.queue.busy


def test_while_the_packing_is_loaded_no_deadline_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fresh machine it takes half a minute: the first configure was refused as «not tried yet»."""

    async def to_thread(work: Callable[..., Any], *args: Any) -> Any:
        if work is queues.warm_up:
            await asyncio.sleep(30.0)
        return work(*args)

    async def story() -> list[float]:
        loop = asyncio.get_running_loop()
        async with at_work() as desk:
            placed, large = desk.place("g", 1, seconds=5.0), desk.place("h", 9, seconds=5.0)
            desk.offer(0, 1)
            desk.offer(1, 1)
            await placed
            times = [loop.time()]
            with pytest.raises(NoFitError, match="cpus"):
                await large
            return [*times, loop.time()]

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        placed, told = runner.run(story())
    assert 30.0 <= placed < 31.0 and 35.0 <= told < 36.0


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


def whole(number: int, cpus: int) -> AgentSnapshot:
    return AgentSnapshot(
        agent_id=f"a{number}",
        host=f"host{number}",
        topology=Topology(),
        free=Resources({"cpus": 1000 * cpus}),
        address="127.0.0.1",
    )


async def until_explained(desk: Desk, name: str) -> None:
    while desk.queue.explanation(name) is None:  # noqa: ASYNC110 - a worker thread does not tell us
        await asyncio.sleep(0.001)


async def test_who_waits_is_told_what_binds_and_what_would_help(desk: Desk) -> None:
    desk.cluster.agents = [whole(0, 8), whole(1, 8)]
    desk.tenants.running_now = [holder("image.7", Resources({"cpus": 4000}), preemptible=True)]
    desk.offer(0, 4)
    desk.offer(1, 4)
    placed = desk.place("g", 5)
    await until_explained(desk, "g")
    found = desk.queue.explanation("g")
    assert found is not None
    assert (found.verdict, found.fits_empty) == (Verdict.NOT_NOW, True)
    assert found.displaces == ("image.7",)
    assert "the end of image.7" in desk.queue.explain("g")
    placed.cancel()


async def test_who_is_refused_hears_of_agents_of_which_nobody_knows_what_they_have(
    desk: Desk,
) -> None:
    desk.cluster.agents = [whole(0, 5)]
    desk.cluster.idle_agents = [Idle(host="gpu1", reason="quarantined: sdp.numa.0.cores=[9-3]")]
    desk.offer(0, 5)
    with pytest.raises(NeverFitsError, match=r"Not counted: gpu1 \(quarantined: sdp.numa.0"):
        await desk.place("g", 6)


async def test_who_waits_behind_somebody_is_told_what_is_kept_for_whom(desk: Desk) -> None:
    """Else it looks as if nothing were free on an agent that has room."""
    desk.cluster.agents = [whole(0, 8)]
    desk.tenants.running_now = [holder("g0", Resources({"cpus": 4000}))]
    desk.offer(0, 4)
    first = desk.place("large", 6)
    await until_explained(desk, "large")
    second = desk.place("small", 3)
    await until_explained(desk, "small")
    told = "Not counted: host0 (a part is kept for large, which is ahead)"
    assert told in desk.queue.explain("small") and told not in desk.queue.explain("large")
    assert "back in service" not in desk.queue.explain("small"), "it is in service"
    first.cancel()
    second.cancel()


async def test_a_graph_as_a_whole_that_can_never_run_is_refused(desk: Desk) -> None:
    """Each task fits, and the sums suffice; all together they do not, whatever ends."""
    desk.cluster.agents = [whole(0, 5), whole(1, 5)]
    desk.offer(0, 5)
    desk.offer(1, 5)
    with pytest.raises(NeverFitsError, match="even with the cluster empty"):
        await desk.place("g", 3, 3, 3)


@in_virtual_time
async def test_at_the_deadline_the_whole_explanation_is_told() -> None:
    async with at_work() as desk:
        desk.offer(0, 5)
        desk.offer(1, 5)
        with pytest.raises(NoFitError, match="What binds: "):
            await desk.place("g", 3, 3, 3, seconds=1.0)


async def test_what_is_kept_for_one_is_free_for_others_when_it_goes(desk: Desk) -> None:
    desk.cluster.agents = [whole(0, 4), whole(1, 4)]
    desk.tenants.running_now = [holder("x", Resources({"cpus": 2000}), ends_by=1e9)]
    large, small = desk.place("large", 4, 4), desk.place("small", 1, queue=BATCH)
    desk.offer(0, 2)
    desk.offer(1, 4)
    await until_explained(desk, "small")
    assert not small.done()
    large.cancel()
    await small


async def test_batch_makes_room_where_a_queue_says_so(desk: Desk) -> None:
    urgent = Queue(name="urgent", priority=10, preempts=True)
    spare = {"preemptible": True, "ends_by": 1e9}
    desk.cluster.agents = [whole(0, 4)]
    desk.tenants.running_now = [
        holder(f"image.{n}", Resources({"cpus": 1000}), **spare)  # type: ignore[arg-type]
        for n in range(3)
    ]
    placed = desk.place("g", 2, queue=urgent)
    desk.offer(0, 1)
    while not desk.tenants.told_to_end:  # noqa: ASYNC110 - a worker thread does not tell us
        await asyncio.sleep(0.001)
    (victim,) = desk.tenants.told_to_end
    desk.tenants.running_now = [o for o in desk.tenants.running_now if o.name != victim]
    desk.offer(1, 2)
    await placed
    assert desk.tenants.told_to_end == [victim], "and nobody else"


async def test_a_graph_that_nothing_proves_impossible_is_searched_for_again(desk: Desk) -> None:
    """By effort that grows while nothing changes, and that comes to an end."""
    cpus = [6, 6, 5, 5, 4, 4, 3, 3, 2, 2]  # 40 of 40: some luck is needed
    for number in range(4):
        desk.offer(number, 10)
    assert (await desk.place("g", *cpus)).agents.keys()
    desk.pool.clear()
    for number in range(3):
        desk.offer(number, 10)
    waiting = desk.place("h", 7, 7, 4, 4, 4, 2, 2)  # 30 of 30, and no way
    await until_explained(desk, "h")
    (entry,) = desk.queue._cases.values()
    async with asyncio.timeout(PATIENCE):
        while entry.level < LEVELS:  # noqa: ASYNC110 - a worker thread does not tell us
            await asyncio.sleep(0.001)
    found = desk.queue.explanation("h")
    assert found is not None
    assert found.verdict is Verdict.NOT_FOUND
    assert not waiting.done()
    waiting.cancel()


@in_virtual_time
async def test_who_waits_and_what_is_tried_is_counted() -> None:
    async with at_work() as desk:
        big, small = desk.place("big", 9, seconds=1.0), desk.place("small", 1)
        desk.offer(0, cpus=2)
        await small
        assert (
            list(desk.queue.waiting()) == ["realtime"]
            and len(desk.queue.waiting()["realtime"]) == 1
        )
        with pytest.raises(NoFitError):
            await big
        assert desk.queue.waiting() == {}
        assert {("packed", "placed"), ("packed", "no_fit")} <= set(desk.counted)
        waits = [entry for entry in desk.counted if entry[0] == "waited"]
        assert waits == [("waited", "realtime", "placed"), ("waited", "realtime", "late")]
        gone = desk.place("gone", 9, queue=BATCH)
        await asyncio.sleep(0)
        desk.queue.withdraw("gone", LaunchError("told to end"))
        with pytest.raises(LaunchError):
            await gone
        assert desk.counted[-1] == ("waited", "batch", "withdrawn")
