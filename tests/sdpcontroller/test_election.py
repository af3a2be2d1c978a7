"""Two controllers, one lease: never two that act, never for long none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdpcontroller import election
from sdpcontroller.election import Election, ElectionTiming, LeadershipLostError
from sdpcontroller.errors import FencedError, StoreError
from sdpcontroller.store import Store
from sdpcontroller.store import lease as leases
from sdpcontroller.store.lease import Candidate, Lease, Refused, Taken
from tests.conftest import PATIENCE

Connect = Callable[..., Awaitable[Store]]
TIMING = ElectionTiming(lease=0.3, margin=0.1, renewal=0.02, poll=0.02)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(leases, "time", made)
    monkeypatch.setattr(election, "_now", made.monotonic)
    yield made


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - a clock, no event
            await asyncio.sleep(0.01)


async def test_one_leads_and_the_other_is_told_who(connect: Connect) -> None:
    first, second = await connect("e"), await connect("e")
    a, b = Lease(first, "a:1", seconds=9), Lease(second, "b:1", seconds=9)
    taken = await a.take()
    assert isinstance(taken, Taken) and taken.fence.startswith("1 a:1 ")
    assert await b.take() == Refused("a:1")
    assert await a.renew() == [Candidate("b:1")]
    await first.put("t", "k", {}, event="by a")
    with pytest.raises(FencedError):
        await second.put("t", "k", {}, event="by b")
    await b.resign()  # what is not its own stays
    assert await b.take() == Refused("a:1")
    await a.resign()
    assert isinstance(await b.take(), Taken)
    assert await b.renew() == []
    await second.put("t", "k", {}, event="by b")
    with pytest.raises(FencedError):
        await first.put("t", "k", {}, event="by a")
    assert await a.renew() is None


async def test_a_silent_leader_is_succeeded_after_the_lease_and_not_before(
    connect: Connect, clock: Clock
) -> None:
    a = Lease(await connect("e"), "a:1", seconds=3.0)
    b = Lease(await connect("e"), "b:1", seconds=3.0)
    await a.take()
    assert isinstance(await b.take(), Refused)
    for _ in range(10):  # as long as it renews, however much time passes
        clock.now += 2.9
        await a.renew()
        assert isinstance(await b.take(), Refused)
    clock.now += 2.9
    assert isinstance(await b.take(), Refused)
    clock.now += 0.2
    assert isinstance(await b.take(), Taken)
    assert await a.renew() is None


async def test_a_leaders_silence_counts_from_the_first_look(connect: Connect, clock: Clock) -> None:
    a = Lease(await connect("e"), "a:1", seconds=3.0)
    b = Lease(await connect("e"), "b:1", seconds=3.0)
    await b.look()  # there is no leader
    await a.take()
    await b.look()
    clock.now += 3.1
    await a.renew()  # it lives
    assert isinstance(await b.take(), Refused)
    await b.look()
    clock.now += 3.1
    assert isinstance(await b.take(), Taken)


async def test_no_wall_clock_decides(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 29: neither ours nor that of Redis: no key of the lease ever expires."""
    store = await connect("e")
    a = Lease(store, "a:1", seconds=3.0)
    await a.take()
    await a.renew()
    assert [await store.client.pttl(store.key(key)) for key in ("leader", "fence")] == [-1, -1]


async def test_a_lease_that_ran_out_alone_is_taken_up_again(connect: Connect, clock: Clock) -> None:
    """Row 20: the database was away for longer than the lease, for everybody."""
    store = await connect("e")
    leadership = await Election(store, "a:1", ElectionTiming(lease=3.0, margin=0.5)).win()
    fence = store.fence
    assert leadership.held
    clock.now += 2.6
    assert not leadership.held
    keeping = asyncio.create_task(leadership.keep())
    await until(lambda: leadership.held)
    assert store.fence == fence
    await store.put("t", "k", {}, event="goes on")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_the_database_may_be_away_for_a_while(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await connect("e")
    leadership = await Election(store, "a:1", TIMING).win()
    renew, away = Lease.renew, True

    async def faulty(self: Lease) -> Any:
        if away:
            raise StoreError("Redis does not answer")
        return await renew(self)

    monkeypatch.setattr(Lease, "renew", faulty)
    keeping = asyncio.create_task(leadership.keep())
    await until(lambda: not leadership.held)
    away = False
    await until(lambda: leadership.held)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_whoever_was_succeeded_ends(connect: Connect) -> None:
    """Row 19: stopped past its lease, and continued."""
    first, second = await connect("e"), await connect("e")
    old = await Election(first, "a:1", TIMING).win()
    new = await Election(second, "b:1", TIMING).win()  # it never renews, as a stopped process
    assert new.held and not old.held
    with pytest.raises(LeadershipLostError):
        await old.keep()
    assert not old.held
    await old.resign()  # takes nothing from the other
    assert await new._lease.renew() == []


async def test_an_end_in_order_is_succeeded_at_once(connect: Connect) -> None:
    first = await Election(await connect("e"), "a:1", ElectionTiming(lease=60, poll=0.01)).win()
    candidate = Election(await connect("e"), "b:1", ElectionTiming(lease=60, poll=0.01))
    winning = asyncio.create_task(candidate.win())
    await asyncio.sleep(0.05)
    assert not winning.done()
    await first.resign()
    async with asyncio.timeout(PATIENCE):
        assert (await winning).held


async def test_what_can_be_read_is_read_while_it_is_not_certain_that_the_leader_is_dead(
    connect: Connect,
) -> None:
    """Once for each silence; and the one that was there at the start is not read for again."""
    timing = ElectionTiming(lease=60, poll=0.01, doubt=0.05)
    leader = await Election(await connect("e"), "a:1", timing).win()
    candidate = Election(await connect("e"), "b:1", timing)
    read: list[None] = []

    async def prepare() -> None:
        read.append(None)
        if len(read) < 3:
            await leader._lease.renew()
        raise StoreError("the database is away")  # harms nothing: whoever leads meets it

    await candidate.look()
    await until(lambda: candidate._lease.silence > timing.doubt)  # everything is read meanwhile
    winning = asyncio.create_task(candidate.win(prepare))
    await until(lambda: candidate._lease.silence > 0.2)
    assert not read, "all was read after the first look"
    await leader._lease.renew()
    await until(
        lambda: len(read) == 3
    )  # it spoke again after the first two: other silences followed
    await until(lambda: candidate._lease.silence > 0.2)
    assert len(read) == 3
    await leader.resign()
    async with asyncio.timeout(PATIENCE):
        assert (await winning).held


async def test_now_and_then_a_candidate_reads_also_while_the_leader_is_well(
    connect: Connect, clock: Clock
) -> None:
    leader = await Election(await connect("e"), "a:1").win()
    candidate = Election(await connect("e"), "b:1", ElectionTiming(lease=600, poll=0.01, doubt=500))
    read: list[float] = []

    async def prepare() -> None:
        read.append(clock.now)

    winning = asyncio.create_task(candidate.win(prepare))
    await until(lambda: candidate.leader == "a:1")
    for n in range(1, 8):
        clock.now += 10
        await leader._lease.renew()
        await until(lambda n=n: candidate._lease.silence == 0 and len(read) == n // 3)  # type: ignore[misc]
    assert read == [1030.0, 1060.0]
    await leader.resign()
    async with asyncio.timeout(PATIENCE):
        await winning


async def test_a_candidate_looks_when_the_lease_may_be_taken(
    connect: Connect, clock: Clock
) -> None:
    candidate = Election(await connect("e"), "b:1", ElectionTiming(lease=2.5, poll=0.2))
    await Election(await connect("e"), "a:1").win()
    await candidate.look()
    pauses = []
    for _ in range(14):
        pauses.append(candidate._pause())
        clock.now += pauses[-1]
    assert pauses == pytest.approx([0.2] * 12 + [0.1, 0.01])


steps = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["take", "renew", "resign", "write", "wait"])
    ),
    max_size=40,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
async def test_of_many_only_one_writes_and_who_acts_is_never_two(
    connect: Connect, clock: Clock, steps: list[tuple[str, str]]
) -> None:
    """A model: the newest to have taken the lease, and nobody else, can write."""
    prefix = f"m{clock.now}"
    clock.now += 1e6
    leases_ = {n: Lease(await connect(prefix), f"{n}:1", seconds=3.0) for n in "abc"}
    newest: str | None = None
    acts_until = dict.fromkeys("abc", 0.0)
    for name, act in steps:
        mine = leases_[name]
        match act:
            case "wait":
                clock.now += 1.1
            case "take":
                if isinstance(await mine.take(), Taken):
                    newest, acts_until[name] = name, clock.now + 2.5
            case "renew" if mine._store.fence:
                kept = await mine.renew()
                assert (kept is not None) == (name == newest)
                acts_until[name] = clock.now + 2.5 if kept is not None else 0.0
            case "resign" if mine._store.fence:
                await mine.resign()
                acts_until[name] = 0.0
            case "write":
                if name == newest:
                    await mine._store.put("t", "k", {}, event=name)
                elif newest is not None:
                    with pytest.raises(FencedError):
                        await mine._store.put("t", "k", {}, event=name)
        acting = [n for n in "abc" if acts_until[n] > clock.now]
        assert len(acting) <= 1
