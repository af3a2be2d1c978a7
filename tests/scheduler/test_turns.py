"""Whose turn it is, in virtual time, on a small cluster on which nothing takes longer than said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.limits import Held
from scheduler.packing import Occupant, Shortage, pack, place
from scheduler.placement import Assignment, Placement
from scheduler.places import Agents
from scheduler.policy import Limits, Order, Queue
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.reservations import State, Waiting, misplaced
from scheduler.topology import AgentSnapshot
from scheduler.turns import MOST_RESERVED, Preempt, Start, Turn, decide
from tests.scheduler.packing.machines import make_agent

REALTIME = Queue(name="realtime", priority=10)
BATCH = Queue(name="batch")
URGENT = Queue(name="urgent", priority=20, preempts=True)
SPARE = Queue(name="spare", preemptible=True)


def placing(waiting: Waiting, agents: Agents) -> Placement | Shortage:
    return pack(agents, waiting.requests, iterations=200)


def quickly(waiting: Waiting, agents: Agents) -> Placement | None:
    return place(agents, waiting.requests, iterations=200)


@dataclass
class Running:
    waiting: Waiting
    placement: Placement
    began: float
    ends: float | None
    """None: it runs until it is told to end."""


def sum_of(running: Iterable[Running], queue: Queue) -> Held:
    held = Held()
    for run in running:
        if run.waiting.queue is queue:
            held += Held.asked(run.waiting.requests.values())
    return held


@dataclass
class World:
    """Agents with memory only, what runs on them, and who waits."""

    capacity: list[AgentSnapshot]
    known: bool = True
    """Whether the capacity is known to whoever decides."""
    now: float = 0.0
    waiting: dict[int, tuple[Waiting, float | None]] = field(default_factory=dict)
    """With how long it will run."""
    running: dict[str, Running] = field(default_factory=dict)
    turn: Turn = field(default_factory=Turn)
    gained: int = 0
    started: dict[str, float] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    arrived: int = 0
    stuck: set[str] = field(default_factory=set)
    """Names of those that do not end, whatever they are told."""
    closed: set[str] = field(default_factory=set)
    """Ids of agents that take nobody."""

    @classmethod
    def of(cls, mems: Iterable[int], **facts: bool) -> World:
        return cls([make_agent(f"a{n}", mem=1000 * mem) for n, mem in enumerate(mems)], **facts)

    def arrive(
        self,
        name: str,
        mems: Iterable[int],
        seconds: float | None,
        queue: Queue = BATCH,
        **facts: float,
    ) -> Waiting:
        self.arrived += 1
        serial = self.arrived
        requests = {f"t{n}": TaskRequest.of(mem_mib=mem) for n, mem in enumerate(mems)}
        waiting = Waiting(graph_id=name, serial=serial, requests=requests, queue=queue, **facts)  # type: ignore[arg-type]
        self.waiting[serial] = waiting, seconds
        return waiting

    def held(self, run: Running) -> Mapping[str, Resources]:
        held: dict[str, Resources] = {}
        for name, assignment in run.placement.assignments.items():
            drawn = assignment.resources(run.waiting.requests[name])
            held[assignment.agent_id] = held.get(assignment.agent_id, Resources()) + drawn
        return held

    def state(self) -> State:
        free = {agent.agent_id: agent.free for agent in self.capacity}
        occupants = []
        for name, run in self.running.items():
            held = self.held(run)
            for agent_id, resources in held.items():
                free[agent_id] -= resources  # raises if anything is given twice
            occupants.append(
                Occupant(
                    name=name,
                    priority=run.waiting.queue.priority,
                    preemptible=run.waiting.queue.preemptible,
                    holds=held,
                    ends_by=run.ends,
                    stuck=name in self.stuck,
                )
            )
        open_ = [a for a in self.capacity if a.agent_id not in self.closed]
        agents = [replace(a, free=free[a.agent_id]) for a in open_]
        return State(
            waiting=[waiting for waiting, _ in self.waiting.values()],
            agents=[agent for agent in agents if agent.free],
            capacity=self.capacity if self.known else None,
            occupants=occupants,
            leaving=frozenset(self.leaving & self.running.keys()),
            reservations=self.turn.reservations,
            gained=self.gained,
            failed=self.turn.failed,
            held={
                run.waiting.queue.name: sum_of(self.running.values(), run.waiting.queue)
                for run in self.running.values()
                if run.waiting.queue.limits is not None
            },
        )

    def shut(self, waiting: Waiting, agent: AgentSnapshot) -> bool:
        return agent.agent_id in self.closed

    def settle(self) -> list[str]:
        """Take turns until there is nothing to do; return who started."""
        began: list[str] = []
        for _ in range(1000):
            self.turn = decide(self.state(), placing, quickly, self.shut)
            match self.turn.act:
                case Start(waiting, placement):
                    _, seconds = self.waiting.pop(waiting.serial)
                    ends = None if seconds is None else self.now + seconds
                    self.running[waiting.graph_id] = Running(waiting, placement, self.now, ends)
                    self.started[waiting.graph_id] = self.now
                    began.append(waiting.graph_id)
                case Preempt(_, victims):
                    self.leaving |= {victim.name for victim in victims}
                case None:
                    return began
        raise AssertionError("turns do not come to an end")

    def end(self, name: str) -> None:
        del self.running[name]
        self.gained += 1

    def advance(self, to: float) -> None:
        """Let time pass, with every end at its moment."""
        while True:
            ends = [(run.ends, name) for name, run in self.running.items() if run.ends is not None]
            at, name = min(ends, default=(None, ""))
            if at is None or at > to:
                break
            self.now = at
            self.end(name)
            self.settle()
        self.now = to


def test_higher_queues_then_higher_priorities_then_who_came_first() -> None:
    world = World.of([1])
    world.arrive("late", [1], 1)
    world.arrive("later", [1], 1)
    world.arrive("important", [1], 1, priority=1)
    world.arrive("observation", [1], 1, REALTIME)
    world.settle()
    world.advance(10)
    assert sorted(world.started, key=world.started.__getitem__) == [
        "observation",
        "important",
        "late",
        "later",
    ]


def test_a_queue_can_go_by_deadline() -> None:
    due = Queue(name="due", order=Order.DEADLINE)
    world = World.of([1])
    world.arrive("patient", [1], 1, due, deadline=100)
    world.arrive("hasty", [1], 1, due, deadline=10)
    assert world.settle() == ["hasty"]


def test_small_ones_pass_a_large_one_on_what_it_does_not_need() -> None:
    world = World.of([10, 10])
    world.arrive("now", [8], 100)
    world.settle()
    world.arrive("large", [10, 9], 100)
    world.arrive("tiny", [1], 1000)
    world.arrive("small", [2], 1000)
    assert world.settle() == ["tiny"], "of the 20, 19 are kept for the large one"
    world.advance(100)
    assert world.started["large"] == 100


def test_those_that_pass_do_not_take_together_what_each_might() -> None:
    world = World.of([10])
    world.arrive("now", [6], 10)
    world.settle()
    world.arrive("large", [8], 10)
    for n in range(2):
        world.arrive(f"small.{n}", [2], 1000)
    assert world.settle() == ["small.0"]
    world.advance(10)
    assert world.started["large"] == 10


def test_a_stream_of_small_ones_cannot_starve_a_large_one() -> None:
    world = World.of([4, 4])
    for n in range(4):
        world.arrive(f"first.{n}", [2], 10 + n)
    world.settle()
    world.arrive("large", [4, 4], 10)
    for n in range(50):
        world.arrive(f"small.{n}", [1], 3)
        world.settle()
        world.advance(world.now + 1)
    assert world.started["large"] == 13, "when the last of those that ran before has ended"


def test_a_queue_without_backfill_waits_for_its_turn() -> None:
    strict = Queue(name="strict", backfill=False)
    world = World.of([4, 4])
    world.arrive("now", [3], 5)
    world.settle()
    world.arrive("large", [4, 2], 1)
    world.arrive("small", [1], 1, strict)
    assert world.settle() == []
    world.advance(10)
    assert world.started["small"] >= world.started["large"]


def test_what_can_never_run_holds_nobody_up() -> None:
    world = World.of([4])
    world.arrive("impossible", [8], 1)
    world.arrive("small", [4], 1)
    assert world.settle() == ["small"]


def test_a_graph_that_preempts_ends_no_more_than_it_needs_and_gets_their_place() -> None:
    world = World.of([4, 4])
    for n in range(4):
        world.arrive(f"spare.{n}", [2], 1000, SPARE)
    world.settle()
    world.arrive("urgent", [2, 2], None, URGENT)
    world.arrive("greedy", [2], 1000, SPARE)
    assert world.settle() == []
    assert len(world.leaving) == 2
    one, two = sorted(world.leaving)
    world.end(one)
    assert world.settle() == [], "what is left by the first is not given to others"
    world.end(two)
    assert world.settle() == ["urgent"]


def test_spare_tasks_may_use_what_is_kept_for_one_that_can_have_it_back() -> None:
    world = World.of([4])
    world.arrive("observation", [2], None, REALTIME)
    world.settle()
    world.arrive("urgent", [4], None, URGENT)
    world.arrive("plain", [1], 10)
    world.arrive("spare", [1], 1000, SPARE)
    assert world.settle() == ["spare"]
    world.end("observation")
    assert world.settle() == []
    assert world.leaving == {"spare"}
    world.end("spare")
    assert world.settle() == ["urgent"]


def test_nobody_else_is_ended_before_what_the_first_had_is_offered_again() -> None:
    world = World.of([4, 4])
    for n in range(2):
        world.arrive(f"spare.{n}", [4], 1000, SPARE)
    world.settle()
    world.arrive("urgent", [4], None, URGENT)
    assert world.settle() == []
    (first,) = world.leaving
    world.end(first)
    unoffered = replace(world.state(), agents=[])
    assert decide(replace(unoffered, returning=True), placing, quickly, world.shut).act is None
    assert isinstance(decide(unoffered, placing, quickly, world.shut).act, Preempt)
    assert world.settle() == ["urgent"]


def test_nobody_is_ended_in_vain() -> None:
    world = World.of([4])
    world.arrive("observation", [3], None, REALTIME)
    world.arrive("spare", [1], 1000, SPARE)
    world.settle()
    world.arrive("urgent", [4], None, URGENT)
    world.settle()
    assert not world.leaving


def starved_by_small_ones(world: World, rounds: int = 15) -> bool:
    """Whether two small ones at a time, one after the other, keep a large one out."""
    for n in range(rounds):
        world.arrive(f"small.{n}", [1], 2)
        world.gained += 1
        world.settle()
        world.advance(world.now + 1)
    return "large" not in world.started


def halves(world: World) -> None:
    """Let two run on each agent, of which one ends early."""
    for n in range(2 * len(world.capacity)):
        world.arrive(f"first.{n}", [1], 4 + n)
    world.settle()


def test_what_is_kept_on_an_agent_that_is_closed_is_kept_elsewhere() -> None:
    """Drained, due for maintenance, cut off: what ends there is of no use to anybody."""
    world = World.of([2, 2])
    halves(world)
    world.arrive("large", [2], 1)
    world.settle()
    (kept,) = world.turn.reservations.values()
    world.closed = set(kept.needs)
    assert not starved_by_small_ones(world)


def test_a_place_is_kept_for_new_tasks_beside_those_that_stay_where_they_were() -> None:
    """Both would have had one port: what ended was not the launch but the scheduler."""
    whole = make_agent("a0", mem=100_000, n_ports=2)
    there = whole.agent_id
    request = TaskRequest.of(mem_mib=40, ports=("p",))
    other = Occupant(name="other", holds={there: Resources({"mem": 50_000})}, ends_by=10.0)
    port = next(iter(whole.free.ranges["ports"]))
    waiting = Waiting(
        graph_id="g",
        serial=1,
        requests={"stays": request, "new": request},
        queue=BATCH,
        fixed={"stays": Assignment("stays", there, "a0", ports=(port,))},
    )
    state = State(
        waiting=[waiting],
        agents=[replace(whole, free=whole.free - other.holds[there])],
        capacity=[whole],
        occupants=[other],
    )
    turn = decide(state, placing, quickly)
    assert turn.act is None
    kept = turn.reservations[1].needs[there]
    assert (kept.scalars["mem"], len(kept.ranges["ports"])) == (80_000, 2)


def test_nothing_is_kept_for_the_end_of_what_is_stuck() -> None:
    world = World.of([2, 2])
    halves(world)
    world.arrive("large", [2], 1)
    world.settle()
    (kept,) = world.turn.reservations.values()
    there = {name for name, run in world.running.items() if world.held(run).keys() & kept.needs}
    for name in there:
        world.running[name].ends = 1e6
    world.stuck = there
    assert not starved_by_small_ones(world)


def test_a_victim_that_is_stuck_is_not_waited_for_and_not_chosen_again() -> None:
    world = World.of([4, 4])
    for n in range(2):
        world.arrive(f"spare.{n}", [4], 1000, SPARE)
    world.settle()
    world.arrive("urgent", [4], None, URGENT)
    world.settle()
    (first,) = world.leaving
    world.stuck = {first}
    world.settle()
    (other,) = world.leaving - {first}
    world.end(other)
    assert world.settle() == ["urgent"]


def test_nobody_is_ended_where_that_makes_no_room() -> None:
    world = World.of([4])
    world.arrive("spare", [4], 1000, SPARE)
    world.settle()
    world.closed = {world.capacity[0].agent_id}
    world.arrive("urgent", [4], None, URGENT)
    world.settle()
    assert not world.leaving


def test_many_that_wait_hold_nobody_up_who_needs_nothing_of_theirs() -> None:
    world = World.of([4, 4])
    world.arrive("observation", [4], None, REALTIME)
    world.settle()
    for n in range(MOST_RESERVED + 2):
        world.arrive(f"large.{n}", [4, 1], 1)
    world.arrive("small", [2], 1)
    assert world.settle() == ["small"]
    assert len(world.turn.reservations) == MOST_RESERVED


def test_a_queue_uses_only_its_roles() -> None:
    mine = replace(make_agent("a", mem=4000), role="sdp/batch")
    other = replace(make_agent("b", mem=4000), role="sdp")
    queue = Queue(name="batch", roles=("sdp/batch",))
    request = {"t": TaskRequest.of(mem_mib=4)}
    waiting = [Waiting(graph_id=f"g{n}", serial=n, requests=request, queue=queue) for n in range(2)]
    turn = decide(State(waiting=waiting, agents=[other, mine]), placing, quickly)
    assert isinstance(turn.act, Start)
    assert [a.host for a in turn.act.agents] == ["a"]


A, B = (Queue(name=role, roles=(role,)) for role in ("a", "b"))


def in_role(role: str, agent: AgentSnapshot, free: int) -> AgentSnapshot:
    return replace(agent, role=role, free=Resources({"mem": 1000 * free}))


def holder(name: str, role: str, agent: AgentSnapshot, mem: int, **facts: Any) -> Occupant:
    holds = {agent.agent_id: Resources({"mem": 1000 * mem})}
    return Occupant(name=name, holds=holds, by_role={role: holds}, **facts)


def fenced(**agents: Mapping[str, int]) -> dict[str, dict[str, Resources]]:
    """By agent and role: so much memory is reserved."""
    return {
        agent: {role: Resources({"mem": 1000 * mem}) for role, mem in roles.items()}
        for agent, roles in agents.items()
    }


def wanting(serial: int, mem: int, queue: Queue) -> Waiting:
    requests = {"t": TaskRequest.of(mem_mib=mem)}
    return Waiting(graph_id=f"g{serial}", serial=serial, requests=requests, queue=queue)


def test_nothing_is_kept_for_a_queue_where_its_roles_give_it_nothing() -> None:
    mine, others = make_agent("mine", mem=4000), make_agent("others", mem=4000)
    state = State(
        waiting=[wanting(1, 4, A), wanting(2, 4, B)],
        agents=[in_role("b", others, 4)],
        capacity=[mine, others],
        occupants=[holder("now", "a", mine, 4, ends_by=100.0)],
        fenced=fenced(**{mine.agent_id: {"a": 4}, others.agent_id: {"b": 4}}),
    )
    turn = decide(state, placing, quickly)
    assert isinstance(turn.act, Start) and turn.act.waiting.queue is B
    assert turn.reservations[1].needs.keys() == {mine.agent_id}
    known = replace(state, capacity=None)
    assert isinstance(decide(known, placing, quickly).act, Start), "as far as is known"


def test_what_is_kept_on_an_agent_of_several_roles_leaves_the_others_theirs() -> None:
    """4 for role a, 4 for role b, 2 for both: of the 2 nobody takes what the first needs."""
    agent = make_agent("x", mem=10_000)
    for others, starts in ((4, True), (5, True), (6, False)):
        state = State(
            waiting=[wanting(1, 5, A), wanting(2, others, B)],
            agents=[in_role("b", agent, 6)],
            capacity=[agent],
            occupants=[holder("now", "a", agent, 4, ends_by=100.0)],
            fenced=fenced(**{agent.agent_id: {"a": 4, "b": 4}}),
        )
        assert isinstance(decide(state, placing, quickly).act, Start) == starts, others
    later = replace(state.occupants[0], name="later", by_role={}, holds={})
    kept = decide(state, placing, quickly).reservations
    since = replace(state, reservations=kept, occupants=[*state.occupants, later])
    assert decide(since, placing, quickly).reservations == kept, "it stays where it is"


def test_what_one_role_keeps_for_a_graph_is_not_given_away_because_another_has_enough() -> None:
    """4 for role a and 8 for role b, where somebody ends: who needs 6 can have them in role b only."""
    agent = make_agent("x", mem=12_000)
    for others, starts in ((2, True), (3, False)):
        state = State(
            waiting=[wanting(1, 6, BATCH), wanting(2, others, BATCH)],
            agents=[in_role("b", agent, 4)],
            capacity=[agent],
            occupants=[
                holder("now", "b", agent, 4, ends_by=100.0),
                holder("long", "a", agent, 4),
            ],
            fenced=fenced(**{agent.agent_id: {"a": 4, "b": 8}}),
            roles=("a", "b"),
        )
        turn = decide(state, placing, quickly)
        assert isinstance(turn.act, Start) == starts, others
        ((role, needed),) = turn.reservations[1].needs_in[agent.agent_id].items()
        assert (role, needed.scalars["mem"]) == ("b", 6000)


def test_nothing_is_kept_for_what_only_two_roles_together_have() -> None:
    """4 for role a and 4 for role b: nobody gets 6, and nobody is held up by who asks for them."""
    agent = make_agent("x", mem=8000)
    state = State(
        waiting=[wanting(1, 6, BATCH), wanting(2, 4, BATCH)],
        agents=[in_role("a", agent, 4), in_role("b", agent, 4)],
        capacity=[agent],
        fenced=fenced(**{agent.agent_id: {"a": 4, "b": 4}}),
        roles=("a", "b"),
    )
    turn = decide(state, placing, quickly)
    assert isinstance(turn.act, Start) and turn.act.waiting.serial == 2
    assert 1 not in turn.reservations


def test_a_third_role_leaves_nothing_to_who_passes_in_another() -> None:
    """2 unreserved, 4 for each of three roles: who waits for 5 in role a keeps 1 of the 2 from the others."""
    agent = make_agent("x", mem=14_000)
    for others, starts in ((5, True), (6, False)):
        state = State(
            waiting=[wanting(1, 5, A), wanting(2, others, B)],
            agents=[in_role("b", agent, 6)],
            capacity=[agent],
            occupants=[holder("now", "a", agent, 4, ends_by=100.0)],
            fenced=fenced(**{agent.agent_id: {"a": 4, "b": 4, "c": 4}}),
            roles=("a", "b", "c"),
        )
        assert isinstance(decide(state, placing, quickly).act, Start) == starts, others


def test_offers_stand_in_the_way_where_another_role_would_have_enough_with_them() -> None:
    agent = make_agent("x", mem=8000)
    state = State(
        waiting=[wanting(1, 6, BATCH)],
        agents=[in_role("a", agent, 4), in_role("b", agent, 4)],
        capacity=[agent],
        fenced=fenced(**{agent.agent_id: {"b": 4}}),
        roles=("a", "b"),
    )
    (kept,) = decide(state, placing, quickly).reservations.values()
    assert [place.role for place in misplaced(state.agents, kept)] == ["a"]
    less = [in_role("a", agent, 1), in_role("b", agent, 4)]
    assert misplaced(less, kept) == [], "it would not do"
    enough = [in_role("a", agent, 2), in_role("b", agent, 6)]
    assert misplaced(enough, kept) == [], "it is there"


def test_nobody_is_ended_whose_place_is_of_no_use_to_the_roles_of_a_queue() -> None:
    agent = make_agent("x", mem=8000)
    urgent = replace(URGENT, roles=("a",))
    spare = {"preemptible": True, "ends_by": 1e9}
    state = State(
        waiting=[wanting(1, 4, urgent)],
        agents=[],
        capacity=[agent],
        occupants=[holder("b.0", "b", agent, 4, **spare)],
        fenced=fenced(**{agent.agent_id: {"a": 4, "b": 4}}),
    )
    assert decide(state, placing, quickly).act is None
    both = replace(state, occupants=[*state.occupants, holder("a.0", "a", agent, 4, **spare)])
    act = decide(both, placing, quickly).act
    assert isinstance(act, Preempt) and [victim.name for victim in act.victims] == ["a.0"]


def test_a_task_gets_what_victims_leave_in_one_role_beside_what_is_free_in_it() -> None:
    """2 are free in role a, a victim there leaves 2: together enough, and nobody else need go."""
    agent = make_agent("x", mem=8000)
    spare = {"preemptible": True, "ends_by": 1e9}
    state = State(
        waiting=[wanting(1, 4, URGENT)],
        agents=[in_role("a", agent, 2), in_role("b", agent, 2)],
        capacity=[agent],
        occupants=[holder(f"{r}.0", r, agent, 2, **spare) for r in ("a", "b")],
    )
    state = replace(
        state,
        agents=[replace(a, agent_id=f"{a.agent_id}/{a.role}") for a in state.agents],
    )
    act = decide(state, placing, quickly).act
    assert isinstance(act, Preempt) and len(act.victims) == 1


FEW = Queue(name="few", limits=Limits(tasks=2000, mem=6000))


def test_a_queue_holds_no_more_than_its_limit_and_who_is_first_in_it_is_not_passed() -> None:
    world = World.of([20])
    world.arrive("first", [4], 10, FEW)
    assert world.settle() == ["first"]
    world.arrive("second", [4], 10, FEW)
    world.arrive("third", [1], 10, FEW)
    world.arrive("another", [5], 10, BATCH)
    assert world.settle() == ["another"], "what is at its limit holds up nobody else"
    (why,) = {*world.turn.limited.values()}
    assert why == "queue few may hold 6 MiB of memory: 4 are held, 4 asked for"
    world.advance(10)
    assert (world.started["second"], world.started["third"]) == (10, 10)
    world.arrive("fourth", [1], 1, FEW)
    assert world.settle() == []
    assert "2 tasks: 2 are held, 1 asked for" in "".join(world.turn.limited.values())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 9), st.booleans(), st.integers(0, 3)),
        max_size=12,
    )
)
def test_whatever_comes_no_limit_is_passed_and_nobody_waits_for_ever(
    arrivals: list[tuple[int, int, bool, int]],
) -> None:
    world = World.of([8, 8])
    for number, (mem, seconds, limited, pause) in enumerate(arrivals):
        world.arrive(f"g{number}", [mem], seconds, FEW if limited else BATCH)
        world.settle()
        for _ in range(pause):
            world.advance(world.now + 1)
            held = world.state().held.get("few", Held())
            assert held.tasks <= 2000 and held.mem <= 6000
    world.advance(world.now + 1000)
    assert len(world.started) == len(arrivals)


def test_the_nodes_of_one_graph_do_not_hold_each_other_up() -> None:
    """Only the first of a graph has something kept for it; others that fit go on."""
    world = World.of([4])
    world.arrive("observation", [3], None, REALTIME)
    world.settle()
    for n in range(20):
        waiting = world.arrive(f"node.{n}", [2], 1)
        same = replace(waiting, graph_id="nodes")
        world.waiting[waiting.serial] = same, 1
    world.arrive("small", [1], 1)
    turn = decide(world.state(), placing, quickly)
    assert len(turn.reservations) == 1


jobs = st.tuples(
    st.lists(st.integers(1, 8), min_size=1, max_size=3),
    st.integers(1, 9),
    st.sampled_from([BATCH, BATCH, REALTIME]),
    st.integers(0, 4),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(6, 10), min_size=1, max_size=3),
    st.lists(jobs, min_size=1, max_size=14),
    st.booleans(),
)
def test_everyone_who_fits_starts_and_who_is_first_is_never_delayed_by_those_behind(
    mems: list[int], arrivals: list[tuple[list[int], int, Queue, int]], known: bool
) -> None:
    """Who is first starts once all that ran when it became first has ended, whatever came later."""
    world = World.of(mems, known=known)
    first = First(world)
    for number, (asked, seconds, queue, pause) in enumerate(arrivals):
        first.arrived(world.arrive(f"g{number}", asked, seconds, queue))
        world.settle()
        first.watch()
        for _ in range(pause):
            world.advance(world.now + 1)
            first.watch()
    while world.running:
        world.advance(world.now + 1)
        first.watch()
    assert not first.able - world.started.keys(), "starved"


@dataclass
class First:
    """Watches whoever is first in the queues, and can run at all."""

    world: World
    able: set[str] = field(default_factory=set)
    name: str = ""
    at_latest: float = 0.0
    """The end of the last that ran when it became first."""

    def arrived(self, waiting: Waiting) -> None:
        if isinstance(placing(waiting, self.world.capacity), Placement):
            self.able.add(waiting.graph_id)
        if waiting.queue is REALTIME:  # it goes before others by right
            self.name = ""

    def watch(self) -> None:
        world = self.world
        if self.name in world.started:
            assert world.started[self.name] <= self.at_latest
        waiting = [w for w, _ in world.waiting.values() if w.graph_id in self.able]
        now_first = min(waiting, key=lambda w: w.rank).graph_id if waiting else ""
        if now_first == self.name:
            assert not self.name or world.now <= self.at_latest
        else:
            ends = [run.ends for run in world.running.values() if run.ends is not None]
            self.name, self.at_latest = now_first, max(ends, default=world.now)
