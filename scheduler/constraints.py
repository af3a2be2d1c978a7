"""Where a task may run, beside what it needs: conditions on agents, and relations between tasks of a graph.

Both speak of *facts* of an agent: ``host``, ``rack``, ``island``, or the name of any attribute that the agent
advertises to Mesos. Agents that share the value of a fact are one *zone*. What an agent does not tell is not
known: it is in no zone, so no promise about that fact can be kept there.

Relations speak of *groups*: a task is in the groups of its request, and in the one of its own name.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Final

from scheduler.errors import RequestError

HOST: Final = "host"
RACK: Final = "rack"
ISLAND: Final = "island"

MAX_TEXT: Final = 255
"""Characters of a name, as of a Mesos attribute."""
MAX_ITEMS: Final = 64
"""Items of one field of a request."""

MAX_REPEATS: Final = 3
"""Repetitions in one pattern: each more multiplies the steps of a match by the length of the value."""

_ATOM = r"(?:[^\\\[\](){}*+?|^$]|\\[dDsSwW]|\\[^A-Za-z0-9]|\[\^?[\w .:/-]+\])"
_PATTERN: Final = re.compile(rf"(?:{_ATOM}(?:[*+?]|\{{[0-9]{{1,3}}(?:,[0-9]{{0,3}})?\}})?|\|)*")


def require_text(what: str, text: str) -> None:
    """Refuse a name that is empty, too long or not printable."""
    if not (0 < len(text) <= MAX_TEXT and text.isprintable()):
        raise RequestError(f"{what} {text[:40]!r}: expected 1 to {MAX_TEXT} printable characters")


def require_few(what: str, items: Collection[object], most: int = MAX_ITEMS) -> None:
    """Refuse more than can be meant."""
    if len(items) > most:
        raise RequestError(f"it asks for {len(items)} {what}, at most {most} are taken")


def require_distinct(what: str, names: Iterable[str]) -> None:
    """Refuse names that are malformed, or there twice."""
    seen: set[str] = set()
    for name in names:
        require_text(what, name)
        if name in seen:
            raise RequestError(f"it asks for the {what} {name!r} twice")
        seen.add(name)


def require_pattern(pattern: str) -> None:
    """Refuse what is no pattern, or one whose match could take for ever.

    A pattern is a regular expression of Python's :mod:`re` without groups: characters, ``.``, classes such as
    ``[0-7]``, ``|`` between alternatives, and at most :data:`MAX_REPEATS` of ``*``, ``+``, ``?``, ``{2,3}``.
    A match then takes at most the third power of the value's length.
    """
    require_text("the pattern", pattern)
    repeats = sum(map(re.sub(r"\\.", "", pattern).count, "*+?{"))
    if _PATTERN.fullmatch(pattern) is None or repeats > MAX_REPEATS:
        raise RequestError(
            f"{pattern!r} is no pattern that is taken: expected characters, '.', classes, '|', and at"
            f" most {MAX_REPEATS} repetitions of one of these; no groups"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as exc:  # [z-a], a{3,2}
        raise RequestError(f"{pattern!r} is no regular expression: {exc}") from exc


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


def named(pattern: str, name: str) -> bool:
    """Whether a name is like a pattern: ``*`` any text, ``?`` one character, ``[…]`` one of these; any case."""
    return _glob(pattern.lower()).fullmatch(name.lower()) is not None


class Rule(enum.Enum):
    """How the value of a fact is judged."""

    EQUAL = "equal"
    """It is this one."""
    NOT = "not"
    """It is another one, or the agent does not tell."""
    LIKE = "like"
    """The whole of it matches this regular expression (see :func:`require_pattern`)."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition on one fact of the agent."""

    fact: str
    """``host``, ``rack``, ``island``, or the name of an attribute."""
    rule: Rule
    value: str

    def __post_init__(self) -> None:
        require_text("the fact", self.fact)
        if self.rule is Rule.LIKE:
            require_pattern(self.value)
        else:
            require_text(f"the value of {self.fact}", self.value)

    def __str__(self) -> str:
        """Say it for people: ``rack equal r07``."""
        return f"{self.fact} {self.rule.value} {self.value}"


@dataclass(frozen=True, slots=True)
class DataAt:
    """Where data lie that the task works on."""

    fact: str
    """``host``, ``rack``, ``island``, or the name of an attribute."""
    values: tuple[str, ...]
    """Any of these will do."""
    required: bool = False
    """Whether the task runs there or not at all; otherwise there comes before anywhere else."""

    def __post_init__(self) -> None:
        require_text("the fact", self.fact)
        require_few(f"values of {self.fact}", self.values, 1000)
        require_distinct(f"value of {self.fact}", self.values)
        if not self.values:
            raise RequestError(f"its data lie nowhere: no value of {self.fact} is named")

    def __str__(self) -> str:
        """Say it for people: ``data at rack r07, r08``."""
        return f"data at {self.fact} {', '.join(self.values)}"


def _require_relation(group: str, fact: str) -> None:
    require_text("the group", group)
    require_text("the fact", fact)


@dataclass(frozen=True, slots=True)
class _ToGroup:
    """A relation of a task to all others of a group."""

    group: str
    fact: str = HOST

    def __post_init__(self) -> None:
        _require_relation(self.group, self.fact)


@dataclass(frozen=True, slots=True)
class Together(_ToGroup):
    """In one zone with all tasks of a group."""

    def __str__(self) -> str:
        """Say it for people: ``on one rack with group beam``."""
        return f"on one {self.fact} with group {self.group}"


@dataclass(frozen=True, slots=True)
class Apart(_ToGroup):
    """In another zone than every other task of a group."""

    def __str__(self) -> str:
        """Say it for people: ``on another host than group beam``."""
        return f"on another {self.fact} than group {self.group}"


@dataclass(frozen=True, slots=True)
class AtMost:
    """No zone has more than so many tasks of a group, whichever of them says so."""

    group: str
    most: int
    fact: str = HOST

    def __post_init__(self) -> None:
        _require_relation(self.group, self.fact)
        if not 1 <= self.most <= 10**6:
            raise RequestError(f"at most {self.most} of {self.group}: expected 1 to a million")

    def __str__(self) -> str:
        """Say it for people: ``at most 2 of group beam on one host``."""
        return f"at most {self.most} of group {self.group} on one {self.fact}"


Relation = Together | Apart | AtMost
"""What tasks of a graph can be to each other."""
