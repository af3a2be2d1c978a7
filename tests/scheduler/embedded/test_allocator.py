"""Who is offered what: properties of one run, and of random histories of a whole master."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from scheduler.embedded.allocator import Claimant, Refusal, allocate, is_allocatable, is_refused
from scheduler.embedded.operations import Operations, UnknownAgentError
from scheduler.embedded.pool import Pool
from scheduler.quantities import Ranges, Resources

AMOUNTS = st.builds(
    lambda cpus, mem, cores, reserved: Pool(
        {
            "*": Resources({"cpus": cpus, "mem": mem}, {"cores": Ranges.of_values(cores)}),
            "r": Resources({"cpus": reserved}, {"cores": Ranges.of_values({8} - cores)}),
        }
    ),
    st.integers(0, 4000),
    st.integers(0, 4_000_000),
    st.sets(st.integers(0, 7)),
    st.sampled_from([0, 0, 500]),
)
CLAIMANTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["*", "r"])), unique=True, max_size=4
)


@given(
    free=st.dictionaries(st.sampled_from(["S0", "S1", "S2"]), AMOUNTS),
    claimants=CLAIMANTS,
    refused=st.dictionaries(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["*", "r"]), st.sampled_from(["S0", "S1"])
        ),
        st.lists(st.builds(Refusal, AMOUNTS, st.sampled_from([5.0, 15.0])), max_size=2),
    ),
)
@settings(deadline=None, max_examples=200)
def test_all_that_is_free_goes_to_one_who_wants_it(
    free: dict[str, Pool],
    claimants: list[tuple[str, str]],
    refused: dict[tuple[str, str, str], list[Refusal]],
) -> None:
    now = 10.0

    def is_refused_by(framework: str, role: str, agent_id: str, pool: Pool) -> bool:
        return is_refused(pool, refused.get((framework, role, agent_id), []), now)

    asking = [Claimant(framework, role, {}) for framework, role in claimants]
    grants = allocate(free, asking, refused, {"cpus": 12_000, "mem": 12_000_000}, now)
    for agent_id, pool in free.items():
        left = pool
        for grant in (g for g in grants if g.agent_id == agent_id):
            assert grant.resources == left.usable_by(grant.role)
            assert not is_refused_by(grant.framework_id, grant.role, agent_id, grant.resources)
            left -= grant.resources  # raises when something is granted twice
        for framework, role in claimants:
            rest = left.usable_by(role)
            assert not is_allocatable(rest) or is_refused_by(framework, role, agent_id, rest)


def test_agents_are_shared_between_frameworks_that_want_the_same() -> None:
    free = {f"S{number}": Pool.unreserved(Resources({"cpus": 4000})) for number in range(10)}
    asking = [Claimant(name, "*", {}) for name in "ab"]
    grants = allocate(free, asking, {}, {"cpus": 40_000}, 0.0)
    assert Counter(grant.framework_id for grant in grants) == {"a": 5, "b": 5}


def test_who_has_less_comes_first() -> None:
    asking = [Claimant("a", "*", {"cpus": 8000}), Claimant("b", "*", {"mem": 1000})]
    free = {"S0": Pool.unreserved(Resources({"cpus": 4000}))}
    grants = allocate(free, asking, {}, {"cpus": 40_000, "mem": 40_000_000}, 0.0)
    assert [grant.framework_id for grant in grants] == ["b"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "accept",
                "accept",
                "group",
                "decline",
                "end",
                "kill",
                "ack",
                "time",
                "revive",
                "suppress",
                "leave",
                "cut",
                "freeze",
                "return",
                "maintain",
                "deactivate",
                "reactivate",
                "drain",
            ]
        ),
        st.integers(0, 7),
        st.integers(0, 100),
    ),
    max_size=40,
)


class History:
    """Applies random steps to a master and checks its books after each."""

    def __init__(self, bench: Any, task: Any) -> None:
        self.bench = bench
        self.task = task
        self.schedulers: list[Any] = []
        self.count = 0
        self.everyone = list(bench.master.agents)

    async def run(self, steps: list[tuple[str, int, int]]) -> None:
        for roles in (["*"], ["*", "r"]):
            self.schedulers.append(await self._subscribe(roles))
        for step, which, number in steps:
            await getattr(self, f"_{step}")(self.schedulers[which % 2], which, number)
            for scheduler in self.schedulers:
                scheduler.read()
            self.check()
        await self.everything_comes_back()

    async def _accept(self, scheduler: Any, which: int, number: int) -> None:
        if not scheduler.offers:
            return
        offer_id = sorted(scheduler.offers)[which % len(scheduler.offers)]
        offer = scheduler.offers[offer_id]
        self.count += 1
        cores = "" if number % 3 else f"[{number % 8}]"
        task = self._shape(self.task(f"t{self.count}", offer, number / 40, cores), offer)
        await scheduler.accept([offer_id], task, refuse=float(number % 4))

    async def _subscribe(self, roles: list[str], framework_id: str | None = None) -> Any:
        capabilities = ("MULTI_ROLE", "PARTITION_AWARE", "RESERVATION_REFINEMENT")
        return await self.bench.subscribe(
            roles=roles,
            capabilities=capabilities,
            failover_timeout=1e6,
            framework_id=framework_id,
            checkpoint=True,
        )

    async def _group(self, scheduler: Any, which: int, number: int) -> None:
        if not scheduler.offers:
            return
        offer_id = sorted(scheduler.offers)[which % len(scheduler.offers)]
        offer = scheduler.offers.pop(offer_id)
        self.count += 2
        names = [f"t{self.count - 1}", f"t{self.count}"]
        tasks = [self._shape(self.task(name, offer, cpus=number / 80), offer) for name in names]
        cpu = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.25}}
        executor = {
            "type": "DEFAULT",
            "executor_id": {"value": f"ex{number % 2}"},
            "framework_id": {"value": scheduler.id},
            "resources": self._shape({"resources": [cpu]}, offer)["resources"],
        }
        group = {"executor": executor, "task_group": {"tasks": tasks}}
        operation = {"type": "LAUNCH_GROUP", "launch_group": group}
        filters = {"refuse_seconds": float(number % 4)}
        ids = [{"value": offer_id}]
        await scheduler.call("ACCEPT", offer_ids=ids, operations=[operation], filters=filters)

    def _shape(self, task: dict[str, Any], offer: dict[str, Any]) -> dict[str, Any]:
        """Ask for reserved resources where an offer has them."""
        reserved = offer["resources"][0].get("reservations")
        if reserved:
            task["resources"] = [entry | {"reservations": reserved} for entry in task["resources"]]
        return task

    def _agent_id(self, number: int) -> str:
        return sorted(self.everyone)[number % len(self.everyone)]

    async def _cut(self, scheduler: Any, which: int, number: int) -> None:
        if (agent_id := self._agent_id(number)) in self.bench.master.agents:
            self.bench.membership.disconnect(agent_id)

    async def _freeze(self, scheduler: Any, which: int, number: int) -> None:
        if (agent_id := self._agent_id(number)) in self.bench.master.agents:
            self.bench.membership.freeze(agent_id)

    async def _return(self, scheduler: Any, which: int, number: int) -> None:
        agent_id = self._agent_id(number)
        record = self.bench.master.agents.get(agent_id)
        if record is not None and record.frozen:
            self.bench.membership.thaw(agent_id)
        else:
            self.bench.membership.reconnect(agent_id)
        await self.bench.settle()

    async def _maintain(self, scheduler: Any, which: int, number: int) -> None:
        name = f"127.0.1.{number % 3 + 1}"
        machine = {"hostname": name, "ip": name}
        window = {"machine_ids": [machine], "unavailability": {"start": {"nanoseconds": 1}}}
        self.bench.master.maintenance.schedule({"windows": [window] if number % 4 else []})
        await self.bench.settle()

    async def _operate(self, what: str, number: int) -> None:
        with contextlib.suppress(UnknownAgentError):
            getattr(Operations(self.bench.master), what)(self._agent_id(number))
        await self.bench.settle()

    async def _deactivate(self, scheduler: Any, which: int, number: int) -> None:
        await self._operate("deactivate", number)

    async def _reactivate(self, scheduler: Any, which: int, number: int) -> None:
        await self._operate("reactivate", number)

    async def _drain(self, scheduler: Any, which: int, number: int) -> None:
        with contextlib.suppress(UnknownAgentError):
            Operations(self.bench.master).drain(self._agent_id(number), 1.0, mark_gone=False)
        await self.bench.settle()

    async def _suppress(self, scheduler: Any, which: int, number: int) -> None:
        await scheduler.call("SUPPRESS", roles=["*"] if number % 2 else [])

    async def _decline(self, scheduler: Any, which: int, number: int) -> None:
        if scheduler.offers:
            await scheduler.decline(sorted(scheduler.offers)[0], float(number % 10))

    async def _end(self, scheduler: Any, which: int, number: int) -> None:
        containers = list(self.bench.executor.containers.values())
        if containers:
            containers[number % len(containers)].end(succeeded=bool(which % 2))
        await self.bench.settle()

    async def _kill(self, scheduler: Any, which: int, number: int) -> None:
        await scheduler.call("KILL", task_id={"value": f"t{number % (self.count + 1)}"})

    async def _ack(self, scheduler: Any, which: int, number: int) -> None:
        await scheduler.acknowledge_all()

    async def _time(self, scheduler: Any, which: int, number: int) -> None:
        await self.bench.advance(number / 10)

    async def _revive(self, scheduler: Any, which: int, number: int) -> None:
        await scheduler.call("REVIVE")

    async def _leave(self, scheduler: Any, which: int, number: int) -> None:
        self.bench.master.disconnected(scheduler.stream)
        roles = ["*", "r"] if which % 2 else ["*"]
        self.schedulers[which % 2] = await self._subscribe(roles, scheduler.id)

    def check(self) -> None:
        master = self.bench.master
        for record in master.agents.values():
            used = offered = Pool()
            for framework in master.frameworks.values():
                for task in framework.tasks.values():
                    if task.info.agent_id == record.info.id and not task.released:
                        used += task.info.pool  # raises when a core is given twice
                for offer in framework.offers.values():
                    if offer.agent_id == record.info.id:
                        offered += offer.resources
            for pool in record.executors.values():
                used += pool
            assert record.used == used
            assert record.offered == offered
            assert record.free + used + offered == record.total
        # A run looks only where something has changed, and misses nothing by that.
        free = {r.info.id: r.free for r in master.agents.values() if r.active}
        anywhere = {grant.agent_id for grant in master.desk.grants_of(free)}
        assert {grant.agent_id for grant in master.desk.grants()} == anywhere
        assert not (anywhere and master.desk.settled)
        for scheduler in self.schedulers:
            held = master.frameworks[scheduler.id].offers
            assert set(scheduler.offers) == set(held)

    async def everything_comes_back(self) -> None:
        self.bench.master.maintenance.schedule({})
        for agent_id in self.everyone:
            await self._return(None, 0, sorted(self.everyone).index(agent_id))
        for container in self.bench.executor.containers.values():
            container.end()
        await self.bench.advance(2)
        for scheduler in self.schedulers:
            await scheduler.acknowledge_all()
            await scheduler.call("TEARDOWN")
        for record in self.bench.master.agents.values():
            assert record.free == record.total


@given(steps=STEPS)
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nothing_is_given_twice_or_lost_whatever_happens(
    make_bench: Any, task: Any, tmp_path: Path, steps: list[tuple[str, int, int]]
) -> None:
    async def story() -> None:
        bench = make_bench(2, reserved="r", agent_ping_timeout=1.0, max_agent_ping_timeouts=2)
        await History(bench, task).run(steps)
        await bench.close()

    asyncio.run(story())
