"""Why a graph does not fit, and what would help: as frozen data that can be written as JSON, and as text."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from scheduler.errors import SchedulerError
from scheduler.packing.shortage import Shortage, amount_text, listed, some, told_together
from scheduler.quantities import Millis

TELLING: Final = 0.5
"""Where nothing is proven, what is emptier than this is not what keeps tasks out."""


class Verdict(enum.Enum):
    """Whether waiting can help."""

    NEVER = "never"
    """Proven: not even with the whole cluster empty."""
    NOT_NOW = "not now"
    """Proven: not on what is free now."""
    NOT_FOUND = "not found"
    """Nothing is proven; the search found no way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A resource that keeps tasks out, by the prices of the relaxation."""

    resource: str
    """Empty: room for the tasks as a whole, whatever it is that they lack on the one agent or the other."""
    share: float
    """Its part in all that binds, up to 1."""
    tasks: tuple[str, ...]
    """Tasks that compete for it."""
    hosts: tuple[str, ...]
    """Agents on which it is short."""
    asked: Millis = 0
    """By all these tasks."""
    free: Millis = 0
    """On all these agents."""
    piece: Millis = 0
    """Where it is short in pieces: of at least this size."""
    pieces_asked: int = 0
    """How many the tasks ask for."""
    pieces_free: int = 0
    """For how many there is room."""
    unit: str = ""
    relation: str = ""
    """Where it is a relation between tasks that keeps them out: which, in words."""

    def __str__(self) -> str:
        who, where = f"{listed(self.tasks, 'task')}", listed(self.hosts, "agent")
        if self.relation:
            return f"{self.relation}: of {who}, there is room for {self.pieces_free} on {where}"
        if not self.resource:
            return (
                f"room: of {who}, at most {self.pieces_free} fit on {where} even if they are alone"
            )
        if self.piece:
            piece = amount_text(self.piece, self.unit)
            return (
                f"{self.resource}: {who} ask for {self.pieces_asked} × at least {piece}, "
                f"there is room for {self.pieces_free} on {where}"
            )
        asked, free = amount_text(self.asked, self.unit), amount_text(self.free, self.unit)
        return f"{self.resource}: {who} ask for {asked}, {free} free on {where}"


@dataclass(frozen=True, slots=True)
class Withheld:
    """An agent that could give something and does not now: drained, inactive, quarantined, not offered."""

    host: str
    reason: str
    serves_others: bool = False
    """Whether it takes tasks, and only a part of it is kept for others."""

    def __str__(self) -> str:
        return f"{self.host} ({self.reason})"


@dataclass(frozen=True, slots=True)
class MoreAgents:
    """Further agents, empty, like one of the cluster."""

    like: str
    """Its host."""
    count: int
    kind: Literal["more agents"] = "more agents"

    def __str__(self) -> str:
        if self.count == 1:
            return f"one more agent like {self.like}"
        return f"{self.count} more agents like {self.like}"


@dataclass(frozen=True, slots=True)
class FreeTasks:
    """The end of tasks that run."""

    names: tuple[str, ...]
    """Of tasks or whole graphs, those that are easiest to do without first."""
    hosts: tuple[str, ...]
    preemptible: bool
    """Whether all of them may be ended for the sake of others, and come back by themselves."""
    kind: Literal["free tasks"] = "free tasks"

    def __str__(self) -> str:
        back = ", to be run again later" if self.preemptible else ""
        return f"the end of {listed(self.names)} (on {listed(self.hosts)}){back}"


@dataclass(frozen=True, slots=True)
class AskLess:
    """A smaller request."""

    tasks: tuple[str, ...]
    resource: str
    asked: Millis
    enough: Millis
    """The largest amount found with which all fit."""
    unit: str = ""
    kind: Literal["ask less"] = "ask less"

    def __str__(self) -> str:
        enough, asked = amount_text(self.enough, self.unit), amount_text(self.asked, self.unit)
        return f"{self.resource} {enough} instead of {asked} for {listed(self.tasks)}"


@dataclass(frozen=True, slots=True)
class AskPart:
    """Smaller requests of several kinds of tasks, by the same part."""

    tasks: tuple[str, ...]
    resource: str
    part: float
    """The largest part found, of what each asks for, with which all fit."""
    kind: Literal["ask part"] = "ask part"

    def __str__(self) -> str:
        percent = f"{100 * self.part:.3g} %"
        whole = " (rounded down)" if self.resource in ("cores", "ports") else ""
        return (
            f"{percent} of the {self.resource} that each asks for{whole}, "
            f"for {listed(self.tasks, 'task')}"
        )


@dataclass(frozen=True, slots=True)
class Drop:
    """A constraint given up."""

    tasks: tuple[str, ...]
    constraint: str
    kind: Literal["drop"] = "drop"

    def __str__(self) -> str:
        return f"{listed(self.tasks)} without {self.constraint}"


@dataclass(frozen=True, slots=True)
class BringBack:
    """Agents that are withheld, in service again."""

    agents: tuple[Withheld, ...]
    kind: Literal["bring back"] = "bring back"

    def __str__(self) -> str:
        return "back in service: " + listed([str(agent) for agent in self.agents])


Change: TypeAlias = Annotated[
    MoreAgents | FreeTasks | AskLess | AskPart | Drop | BringBack, Field(discriminator="kind")
]


@dataclass(frozen=True, slots=True)
class Together:
    """Several changes, none of which can be left out."""

    changes: tuple[Change, ...]
    """The easiest kind first."""
    kind: Literal["together"] = "together"

    def __str__(self) -> str:
        return ", and ".join(map(str, self.changes))


Remedy: TypeAlias = Annotated[
    MoreAgents | FreeTasks | AskLess | AskPart | Drop | BringBack | Together,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a graph was not placed, and what would help. ``str()`` of it is for people."""

    shortage: Shortage
    """What the search left over: the fullest placement, where the rest comes nearest, what is missing there."""
    verdict: Verdict
    left_out: int = 0
    """Proven: at least so many tasks find no place now."""
    filled: float | None = None
    """Where nothing is proven: any placement of all tasks fills something at least to this part."""
    bindings: tuple[Binding, ...] = ()
    """What binds now: the reason for `left_out`, or what is fullest; the dearest first."""
    ever: tuple[Binding, ...] = ()
    """What binds even with the cluster empty, where that is proven of the graph as a whole."""
    fits_empty: bool | None = None
    """Whether it fits with the cluster empty (a placement was found); None: not known."""
    withheld: tuple[Withheld, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    """Changes with each of which the graph was placed, the easiest kind first; several together where no single
    one was found."""
    tried: int = 0
    """How many changes were looked at for `remedies`."""

    @property
    def hopeless(self) -> str:
        """Why it can never fit, for people; empty where that is not proven."""
        if self.verdict is not Verdict.NEVER:
            return ""
        lines = [self.shortage.hopeless] if self.shortage.never else []
        lines += [f"{binding}; even with the cluster empty" for binding in self.ever]
        return "\n".join(lines)

    @property
    def displaces(self) -> tuple[str, ...]:
        """What would have to end for the graph to fit now, as far as that was found."""
        found = next((r for r in self.remedies if isinstance(r, FreeTasks)), None)
        return () if found is None else found.names

    def to_json(self) -> dict[str, Any]:
        """Write as plain data that :meth:`from_json` reads back to an equal explanation."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        SchedulerError
            If the document is not such an explanation; the message names path and reason.
        """
        try:
            found = _ADAPTER.validate_python(data)
        except ValidationError as exc:
            raise SchedulerError(f"not an explanation: {exc}") from exc
        assert isinstance(found, cls)  # noqa: S101 - for the type checker
        return found

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self._headline()
        yield from some([f"Never: {line}" for line in self.hopeless.splitlines()])
        yield from some([f"{self._binds()}: {binding}" for binding in self._telling()])
        if not self.shortage.never:
            yield from some(told_together(self.shortage.too_big))
            yield from self.shortage.nearest_lines()
        if self.withheld:
            yield f"Not counted: {listed([str(agent) for agent in self.withheld], 'agent')}"
        if self.remedies:
            alone = any(not isinstance(remedy, Together) for remedy in self.remedies)
            yield ("" if alone else "No single change was found that would help. ") + (
                "With any one of these it fits (each was tried):"
            )
            yield from some([f"  - {remedy}" for remedy in self.remedies])
        elif self.tried:
            yield f"No change was found that would help, nor several together ({self.tried} tried)."

    def _telling(self) -> tuple[Binding, ...]:
        """Return what is worth telling of what binds now."""
        idle = self.filled is not None and self.filled < TELLING
        return () if idle or self.verdict is Verdict.NEVER else self.bindings

    def _binds(self) -> str:
        if self.filled is None:
            return "What binds"
        return f"Fullest ({100 * self.filled:.3g} % at least, however they are placed)"

    def _awaited(self) -> str:
        """Say what they wait for, where they fit with the cluster empty and in service."""
        kinds = {type(remedy) for remedy in self.remedies}
        if BringBack in kinds:
            ends = "enough has ended or " if FreeTasks in kinds else ""
            return f"{ends}agents are back in service"
        away = any(not agent.serves_others for agent in self.withheld)
        also = " and agents are back in service" if away and FreeTasks not in kinds else ""
        return f"enough has ended{also}"

    def _headline(self) -> str:
        left = len(self.shortage.unplaced)
        cannot = f"{left} of {self.shortage.n_tasks} tasks cannot be placed"
        match self.verdict, self.fits_empty:
            case Verdict.NEVER, _:
                return f"{cannot}, and never can on this cluster."
            case Verdict.NOT_NOW, True:
                return f"{cannot} now; they can once {self._awaited()}."
            case Verdict.NOT_NOW, _:
                return f"{cannot} now."
            case _:
                return (
                    f"No way was found to place {left} of {self.shortage.n_tasks} tasks; "
                    "the search goes on, nothing proves that there is none."
                )


def at_least(left_out: float) -> int:
    """Round a proven lower bound up to whole tasks, whatever rounding has done to it."""
    return max(0, math.ceil(left_out - 1e-4))


_ADAPTER: TypeAdapter[Explanation] = TypeAdapter(Explanation)
