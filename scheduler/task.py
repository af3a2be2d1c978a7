"""The life of one task: a pure state machine. Events go in, the new life and effects come out.

::

    planned → placed → launching → waiting → starting → ready → stopping → dead(outcome)

A state can be skipped forward, never back, and *dead* absorbs. What Mesos says is outside input: nothing
that it can say raises. What we do ourselves must be possible, or :exc:`TaskStateError` tells the task's story.

``TASK_UNREACHABLE``, ``TASK_LOST`` and ``TASK_UNKNOWN`` are not final for a framework with PARTITION_AWARE: the
task may still run. They put the task in *doubt*; only a final word of Mesos, or our own
:class:`DeclaredLost` after a time of patience, ends it. A task that we declared lost and that turns up again
is killed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from scheduler.errors import FrameworkError, TaskStateError


class TaskState(enum.Enum):
    """Where a task is in its life, in order."""

    PLANNED = "planned"
    """It has an id."""
    PLACED = "placed"
    """It has an agent; the placement is in the journal."""
    LAUNCHING = "launching"
    """The offer was accepted with it."""
    WAITING = "waiting"
    """Its container runs and hangs on the go-ahead."""
    STARTING = "starting"
    """It was let through."""
    READY = "ready"
    """Its readiness check held."""
    STOPPING = "stopping"
    """It was told to end."""
    DEAD = "dead"
    """It does not run any more, or never will."""


class Outcome(enum.Enum):
    """How a task ended."""

    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"
    LOST = "lost"
    ERROR = "error"


class Effect(enum.Enum):
    """What the shell around the machine has to do."""

    KILL = "kill"
    """Ask Mesos to kill the task."""
    RECONCILE = "reconcile"
    """Ask Mesos what it knows of the task."""
    CLOSE_GATE = "close gate"
    """The task will never get its go-ahead (again)."""
    FETCH_LOG = "fetch log"
    """The task died by itself: get its last lines."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Packing has found an agent."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """We accept offers with the task in it."""


@dataclass(frozen=True, slots=True)
class LetThrough:
    """All that the task depends on is ready: it may begin its work."""


@dataclass(frozen=True, slots=True)
class ReadyHeld:
    """The readiness check held."""


@dataclass(frozen=True, slots=True)
class KillAsked:
    """The task shall end; also the repetition of that wish."""

    cause: str
    intended: bool = True
    """Whether its end is what somebody wants, and not only the end of what cannot be gone on with."""


@dataclass(frozen=True, slots=True)
class DeclaredLost:
    """Patience with a doubtful task has ended."""

    cause: str


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """What Mesos says of the task."""

    task_id: str
    state: str
    agent_id: str = ""
    uuid: str | None = None
    """None when the master made the update; such updates must not be acknowledged."""
    source: str = ""
    reason: str = ""
    message: str = ""
    healthy: bool | None = None


Event: TypeAlias = (
    Placed | Accepted | LetThrough | ReadyHeld | KillAsked | DeclaredLost | StatusUpdate
)


@dataclass(frozen=True, slots=True)
class Death:
    """How and why a task ended."""

    outcome: Outcome
    cause: str
    """For people."""
    mesos_state: str = ""
    """The final word of Mesos; empty when it never spoke one."""
    reason: str = ""
    """Mesos' ``REASON_…``, if any."""
    exit_status: int | None = None
    signal: str | None = None
    ran: bool = False
    """Whether Mesos ever said that it runs."""

    @property
    def worth_another_try(self) -> bool:
        """Whether the launch failed by a race between offers and the cluster, not by the task."""
        never_arrived = self.outcome is Outcome.LOST and not self.ran
        return never_arrived or self.reason == "REASON_INVALID_OFFERS"

    @property
    def with_its_agent(self) -> bool:
        """Whether it was lost with its agent, as far as is known: then others may be, too.

        Not what never ran, and of which Mesos knows nothing though it knows the agent: its ACCEPT was lost, so
        it was never there. That is found out by asking, and answered with this state and reason only.
        """
        asked = self.mesos_state == "TASK_GONE" and self.reason == "REASON_RECONCILIATION"
        return self.outcome is Outcome.LOST and not (asked and not self.ran)

    def __str__(self) -> str:
        return f"{self.outcome.value}: {self.cause}"


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a life."""

    at: float
    source: TaskState
    target: TaskState
    cause: str


@dataclass(frozen=True, slots=True)
class TaskLife:
    """What is known of one task's execution."""

    task_id: str
    state: TaskState = TaskState.PLANNED
    agent_id: str = ""
    mesos_state: str = ""
    """The newest word of Mesos, empty before the first."""
    running: bool = False
    """Whether Mesos has said that it runs."""
    doubt_since: float | None = None
    """Since when Mesos does not vouch for the task, with its present word; None when it does."""
    death: Death | None = None
    history: tuple[Transition, ...] = ()
    """Every transition, oldest first: at most one per state."""
    seen: tuple[str, ...] = ()
    """The last uuids of handled updates."""

    def story(self) -> str:
        """Tell the life, for people."""
        steps = [f"{t.source.value} → {t.target.value} ({t.cause})" for t in self.history]
        return f"task {self.task_id}: " + ("; ".join(steps) or f"is {self.state.value}")


ORDER: Final = {state: number for number, state in enumerate(TaskState)}
REMEMBERED_UUIDS: Final = 16

_LIVE: Final = {
    "TASK_STAGING": 0,
    "TASK_STARTING": 1,
    "TASK_RUNNING": 2,
    "TASK_KILLING": 3,
}
_FINAL: Final = {
    "TASK_FINISHED": Outcome.FINISHED,
    "TASK_FAILED": Outcome.FAILED,
    "TASK_KILLED": Outcome.KILLED,
    "TASK_ERROR": Outcome.ERROR,
    "TASK_DROPPED": Outcome.LOST,
    "TASK_GONE": Outcome.LOST,
    "TASK_GONE_BY_OPERATOR": Outcome.LOST,
}
_DOUBTFUL: Final = frozenset(("TASK_UNREACHABLE", "TASK_LOST", "TASK_UNKNOWN"))
_EXIT_STATUS: Final = re.compile(r"exited with status (\d{1,5})")
_SIGNAL: Final = re.compile(r"terminated with signal ([A-Za-z ]{1,40})")

Step: TypeAlias = tuple[TaskLife, tuple[Effect, ...]]


def advance(life: TaskLife, event: Event, at: float) -> Step:
    """Let one event happen.

    Parameters
    ----------
    at
        Monotonic time of the event, in seconds.

    Returns
    -------
    life, effects
        The life after the event (`life` itself, if nothing changed), and what to do now.

    Raises
    ------
    TaskStateError
        If the event is an act of ours that is impossible in the task's state.
    """
    match event:
        case StatusUpdate():
            return _told(life, event, at)
        case KillAsked(cause=cause):
            return _kill(life, cause, at)
        case DeclaredLost(cause):
            return _declare_lost(life, cause, at)
        case Placed(agent_id):
            _require(life, event, TaskState.PLANNED)
            return _to(replace(life, agent_id=agent_id), TaskState.PLACED, "placed", at), ()
        case Accepted():
            _require(life, event, TaskState.PLACED)
            return _to(life, TaskState.LAUNCHING, "offers accepted", at), ()
        case LetThrough():
            _require(life, event, TaskState.LAUNCHING, TaskState.WAITING)
            return _to(life, TaskState.STARTING, "let through", at), ()
        case ReadyHeld():
            _require(life, event, TaskState.STARTING)
            return _to(life, TaskState.READY, "readiness check held", at), ()


def _require(life: TaskLife, event: Event, *states: TaskState) -> None:
    if life.state not in states:
        raise TaskStateError(f"{event} is impossible while {life.state.value}: {life.story()}")


def _to(life: TaskLife, state: TaskState, cause: str, at: float) -> TaskLife:
    """Set the state: the only place that does."""
    if ORDER[state] <= ORDER[life.state]:
        raise TaskStateError(f"no way back to {state.value}: {life.story()}")
    step = Transition(at, life.state, state, cause)
    return replace(life, state=state, history=(*life.history, step))


def _die(life: TaskLife, death: Death, at: float) -> TaskLife:
    dead = _to(life, TaskState.DEAD, str(death), at)
    return replace(dead, death=replace(death, ran=life.running), doubt_since=None, running=False)


def _kill(life: TaskLife, cause: str, at: float) -> Step:
    if life.state is TaskState.DEAD:
        return life, ()
    if ORDER[life.state] < ORDER[TaskState.LAUNCHING]:  # Mesos has never heard of it
        return _die(life, Death(Outcome.KILLED, cause), at), (Effect.CLOSE_GATE,)
    if life.state is TaskState.STOPPING:
        return life, (Effect.KILL,)
    return _to(life, TaskState.STOPPING, cause, at), (Effect.CLOSE_GATE, Effect.KILL)


def _declare_lost(life: TaskLife, cause: str, at: float) -> Step:
    if life.state is TaskState.DEAD:
        return life, ()
    return _die(life, Death(Outcome.LOST, cause), at), (Effect.CLOSE_GATE,)


def _told(life: TaskLife, status: StatusUpdate, at: float) -> Step:
    if status.uuid is not None:
        if status.uuid in life.seen:
            return life, ()
        life = replace(life, seen=(*life.seen, status.uuid)[-REMEMBERED_UUIDS:])
    if life.state is TaskState.DEAD:
        return _told_of_dead(life, status)
    if status.state in _LIVE:
        return _told_live(life, status, at)
    if status.state in _FINAL:
        return _told_final(life, status, at)
    if status.state in _DOUBTFUL and ORDER[life.state] >= ORDER[TaskState.LAUNCHING]:
        return _told_doubtful(life, status, at)
    return life, ()  # doubt about what was never launched, or a word that is not Mesos' (yet)


def _told_doubtful(life: TaskLife, status: StatusUpdate, at: float) -> Step:
    """Doubt the task; how long counts from the first time that Mesos said so in these words.

    «Unknown» without an agent is no news of a task whose agent we know: Mesos says that of every task on an
    unreachable agent to whoever asks, or kills, without naming the agent.
    """
    if life.agent_id and not status.agent_id and life.doubt_since is not None:
        return life, (Effect.RECONCILE,)
    said_before = life.doubt_since is not None and life.mesos_state == status.state
    since = life.doubt_since if said_before else at
    return replace(life, mesos_state=status.state, doubt_since=since), (Effect.RECONCILE,)


def _told_of_dead(life: TaskLife, status: StatusUpdate) -> Step:
    """Nothing revives a task; but one that we gave up ourselves, and that lives, must go."""
    assert life.death is not None  # noqa: S101 - dead has a death
    if status.state in _LIVE and not life.death.mesos_state:
        return life, (Effect.KILL,)
    return life, ()


def _told_live(life: TaskLife, status: StatusUpdate, at: float) -> Step:
    known = _LIVE.get(life.mesos_state, -1)
    newest = status.state if _LIVE[status.state] >= known else life.mesos_state
    life = replace(life, mesos_state=newest, doubt_since=None)
    if life.state is TaskState.PLANNED:  # it was never placed by us: nobody answers for it
        return life, (Effect.KILL,)
    if life.state is TaskState.PLACED:  # we fell between the act and its record
        life = _to(life, TaskState.LAUNCHING, f"{status.state} without a record of the launch", at)
    if status.state == "TASK_KILLING" and life.state is not TaskState.STOPPING:
        cause = f"killed from outside: {status.message or status.reason or status.source}"
        return _to(life, TaskState.STOPPING, cause, at), (Effect.CLOSE_GATE,)
    if status.state == "TASK_RUNNING":
        life = replace(life, running=True)
        if life.state is TaskState.LAUNCHING:
            return _to(life, TaskState.WAITING, status.state, at), ()
    return life, ()


def _told_final(life: TaskLife, status: StatusUpdate, at: float) -> Step:
    asked = life.state is TaskState.STOPPING
    death = _death(status)
    life = _die(replace(life, mesos_state=status.state), death, at)
    if asked or death.outcome in (Outcome.FINISHED, Outcome.LOST):
        return life, (Effect.CLOSE_GATE,)
    return life, (Effect.CLOSE_GATE, Effect.FETCH_LOG)


def _death(status: StatusUpdate) -> Death:
    exit_status, signal = _EXIT_STATUS.search(status.message), _SIGNAL.search(status.message)
    cause = status.message or status.reason or status.state
    if status.reason and status.message:
        cause += f" ({status.reason})"
    code = int(exit_status[1]) if exit_status else None
    if code is None and status.state == "TASK_FINISHED":
        code = 0
    return Death(
        _FINAL[status.state],
        cause,
        mesos_state=status.state,
        reason=status.reason,
        exit_status=code,
        signal=signal[1].strip() if signal else None,
    )


def read_status(status: Mapping[str, Any]) -> StatusUpdate:
    """Read Mesos' ``TaskStatus`` (JSON form).

    Raises
    ------
    FrameworkError
        If it is malformed.
    """
    try:
        uuid, healthy = status.get("uuid"), status.get("healthy")
        update = StatusUpdate(
            task_id=status["task_id"]["value"],
            state=status["state"],
            agent_id=status.get("agent_id", {}).get("value", ""),
            uuid=uuid,
            source=status.get("source", ""),
            reason=status.get("reason", ""),
            message=status.get("message", "")[:1000],
            healthy=healthy if isinstance(healthy, bool) else None,
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise FrameworkError(f"malformed status update {str(status)[:300]}: {exc!r}") from exc
    texts = (update.task_id, update.state, update.agent_id, update.source, update.reason)
    if not all(isinstance(text, str) for text in (*texts, update.message, uuid or "")):
        raise FrameworkError(f"malformed status update {str(status)[:300]}")
    return update
