"""The life of a task. The invariants are those of docs/scheduler.md."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler.errors import FrameworkError, TaskStateError
from scheduler.task import (
    ORDER,
    Accepted,
    DeclaredLost,
    Effect,
    Event,
    KillAsked,
    LetThrough,
    Outcome,
    Placed,
    ReadyHeld,
    StatusUpdate,
    TaskLife,
    TaskState,
    advance,
    read_status,
)

LIVE = ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING")
FINAL = (
    "TASK_FINISHED",
    "TASK_FAILED",
    "TASK_KILLED",
    "TASK_ERROR",
    "TASK_DROPPED",
    "TASK_GONE",
    "TASK_GONE_BY_OPERATOR",
)
DOUBTFUL = ("TASK_LOST", "TASK_UNREACHABLE", "TASK_UNKNOWN")
OWN: tuple[Event, ...] = (Placed("agent"), Accepted(), LetThrough(), ReadyHeld())


def status(state: str, **more: str) -> StatusUpdate:
    return StatusUpdate("t", state, **more)  # type: ignore[arg-type]  # only texts are given


def live_through(*events: Event) -> tuple[TaskLife, tuple[Effect, ...]]:
    life, effects = TaskLife("t"), ()
    for number, event in enumerate(events):
        life, effects = advance(life, event, float(number))
    return life, effects


class LifeOfATask(RuleBasedStateMachine):
    """Anything may be said and done to a task, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.life = TaskLife("t")
        self.time = 0.0
        self.finals = 0

    def happen(self, event: Event) -> tuple[Effect, ...]:
        self.time += 1
        before = self.life
        self.life, effects = advance(before, event, self.time)
        assert ORDER[self.life.state] >= ORDER[before.state], "never back"
        if before.state is TaskState.DEAD:
            assert self.life.death is before.death, "dead absorbs"
            assert self.life.history == before.history
        if self.life.state is not before.state:
            assert self.life.history[-1].target is self.life.state
            assert self.life.history[-1].cause
        ending = (TaskState.STOPPING, TaskState.DEAD)
        if self.life.state in ending and before.state not in ending:
            assert Effect.CLOSE_GATE in effects, "what ends never gets its go-ahead"
        return effects

    @rule(event=st.sampled_from(OWN))
    def act(self, event: Event) -> None:
        before = self.life
        try:
            self.happen(event)
        except TaskStateError as exc:
            assert self.life is before, "an impossible act changes nothing"
            assert "t" in str(exc)

    @rule(
        state=st.sampled_from((*LIVE, *FINAL, *DOUBTFUL, "TASK_NONSENSE", "")),
        uuid=st.none() | st.sampled_from("abcd"),
        message=st.sampled_from(("", "Command exited with status 3", "whatever")),
    )
    def mesos_says(self, state: str, uuid: str | None, message: str) -> None:
        before = self.life
        effects = self.happen(StatusUpdate("t", state, "agent", uuid, message=message))
        if uuid is not None and uuid in before.seen:
            assert (self.life, effects) == (before, ()), "the same news twice is no news"
        if state in DOUBTFUL:
            assert self.life.state is before.state, "doubt is not death"

    @rule()
    def kill(self) -> None:
        before = self.life.state
        effects = self.happen(KillAsked("enough"))
        if before in (TaskState.PLANNED, TaskState.PLACED):
            assert self.life.state is TaskState.DEAD
        elif before is not TaskState.DEAD:
            assert self.life.state is TaskState.STOPPING
            assert Effect.KILL in effects

    @rule()
    def give_up(self) -> None:
        self.happen(DeclaredLost("nobody knows it"))
        assert self.life.state is TaskState.DEAD

    @invariant()
    def consistent(self) -> None:
        life = self.life
        assert (life.state is TaskState.DEAD) == (life.death is not None)
        assert len(life.history) <= len(TaskState)
        assert len(life.seen) <= 16
        states = [TaskState.PLANNED, *(step.target for step in life.history)]
        assert states == sorted(set(states), key=ORDER.__getitem__)
        assert states[-1] is life.state


TestLifeOfATask = LifeOfATask.TestCase
TestLifeOfATask.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_the_whole_life() -> None:
    life, _ = live_through(
        Placed("agent"),
        Accepted(),
        status("TASK_STARTING"),
        status("TASK_RUNNING"),
        LetThrough(),
        ReadyHeld(),
        KillAsked("deconfigured"),
        status("TASK_KILLING"),
        status("TASK_KILLED", message="Command terminated with signal Terminated"),
    )
    assert [step.target for step in life.history] == list(TaskState)[1:]
    assert life.death is not None
    assert (life.death.outcome, life.death.signal) == (Outcome.KILLED, "Terminated")


@pytest.mark.parametrize("after", range(5))
@pytest.mark.parametrize("state", FINAL)
def test_mesos_has_the_last_word(state: str, after: int) -> None:
    steps = (Placed("a"), Accepted(), status("TASK_RUNNING"), LetThrough(), ReadyHeld())[:after]
    life, _ = live_through(*steps, status(state))
    assert life.state is TaskState.DEAD


@pytest.mark.parametrize("word", DOUBTFUL)
def test_a_task_in_doubt_comes_back(word: str) -> None:
    started = (Placed("a"), Accepted(), status("TASK_RUNNING"), LetThrough(), ReadyHeld())
    life, effects = live_through(*started, status(word))
    assert life.state is TaskState.READY
    assert (life.doubt_since, effects) == (5.0, (Effect.RECONCILE,))
    life, _ = advance(life, status("TASK_RUNNING", reason="REASON_AGENT_REREGISTERED"), 6.0)
    assert (life.state, life.doubt_since) == (TaskState.READY, None)


def test_unknown_without_an_agent_says_nothing_of_a_task_whose_agent_is_unreachable() -> None:
    """So Mesos answers a KILL of such a task, which names no agent."""
    started = (Placed("a"), Accepted(), status("TASK_RUNNING"))
    life, _ = live_through(*started, status("TASK_UNREACHABLE", agent_id="a"))
    life, _ = advance(life, status("TASK_UNKNOWN"), 100.0)
    assert (life.mesos_state, life.doubt_since) == ("TASK_UNREACHABLE", 3.0)
    life, _ = advance(life, status("TASK_UNKNOWN", agent_id="a"), 200.0)
    assert (life.mesos_state, life.doubt_since) == ("TASK_UNKNOWN", 200.0), "patience begins now"
    life, _ = advance(life, status("TASK_UNKNOWN", agent_id="a"), 300.0)
    assert life.doubt_since == 200.0


def test_what_we_gave_up_and_comes_back_is_killed() -> None:
    started = (Placed("a"), Accepted(), status("TASK_RUNNING"), DeclaredLost("gone"))
    life, effects = live_through(*started, status("TASK_RUNNING"))
    assert life.state is TaskState.DEAD
    assert effects == (Effect.KILL,)


def test_a_late_update_of_a_finished_task_kills_nothing() -> None:
    _, effects = live_through(
        Placed("a"), Accepted(), status("TASK_FINISHED"), status("TASK_RUNNING")
    )
    assert effects == ()


def test_a_task_without_record_of_its_launch_is_taken_up() -> None:
    life, _ = live_through(Placed("a"), status("TASK_RUNNING"))
    assert life.state is TaskState.WAITING


def test_a_task_that_was_never_placed_must_not_run() -> None:
    _, effects = live_through(status("TASK_RUNNING"))
    assert effects == (Effect.KILL,)


@pytest.mark.parametrize(
    ("message", "code", "signal"),
    [
        ("Command exited with status 3", 3, None),
        ("Container exited with status 137", 137, None),
        ("Command terminated with signal Segmentation fault", None, "Segmentation fault"),
        ("Executor terminated", None, None),
    ],
)
def test_the_exit_is_read_from_the_message(
    message: str, code: int | None, signal: str | None
) -> None:
    life, effects = live_through(Placed("a"), Accepted(), status("TASK_FAILED", message=message))
    assert life.death is not None
    assert (life.death.exit_status, life.death.signal) == (code, signal)
    assert message in str(life.death)
    assert Effect.FETCH_LOG in effects


def test_races_with_offers_are_worth_another_try() -> None:
    invalid = status("TASK_DROPPED", reason="REASON_INVALID_OFFERS")
    life, _ = live_through(Placed("a"), Accepted(), invalid)
    assert life.death is not None
    assert life.death.worth_another_try
    life, _ = live_through(Placed("a"), Accepted(), status("TASK_ERROR"))
    assert life.death is not None
    assert not life.death.worth_another_try


@pytest.mark.parametrize(
    ("said", "reason", "ran", "lost"),
    [
        ("TASK_GONE", "REASON_RECONCILIATION", False, False),  # its ACCEPT was lost
        ("TASK_GONE", "REASON_RECONCILIATION", True, True),
        ("TASK_GONE", "REASON_SLAVE_REMOVED", False, True),
        ("TASK_GONE_BY_OPERATOR", "REASON_RECONCILIATION", False, True),
        ("TASK_DROPPED", "REASON_SLAVE_DISCONNECTED", False, True),
        ("TASK_FAILED", "REASON_COMMAND_EXECUTOR_FAILED", True, False),
    ],
)
def test_what_never_came_to_an_agent_was_not_lost_with_it(
    said: str, reason: str, ran: bool, lost: bool
) -> None:
    running = [status("TASK_RUNNING")] * ran
    life, _ = live_through(Placed("a"), Accepted(), *running, status(said, reason=reason))
    assert life.death is not None and life.death.with_its_agent == lost


def test_an_impossible_act_tells_the_story() -> None:
    life, _ = live_through(Placed("a"), KillAsked("changed my mind"))
    with pytest.raises(TaskStateError, match=r"planned → placed .*changed my mind"):
        advance(life, Accepted(), 9.0)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("task_id", "agent_id", "value", "state", "uuid", "message", "reason")),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(("task_id", "agent_id", "state", "uuid", "message")), json))
def test_any_status_is_read_or_refused(document: dict[str, object]) -> None:
    try:
        update = read_status(document)
    except FrameworkError:
        return
    advance(TaskLife("t"), update, 0.0)
