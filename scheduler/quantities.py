"""Exact resource quantities.

Mesos counts scalars in thousandths (``include/mesos/v1/values.hpp`` rounds every arithmetic result to three
decimals), so a scalar is an ``int`` number of thousandths here: :data:`Millis`. Ranges are interval sets of
integers. A :class:`Resources` holds both by name; its arithmetic never goes below zero silently.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, TypeAlias

from scheduler.errors import QuantityError

Millis: TypeAlias = int
"""A scalar quantity in thousandths of its unit."""

MAX_UNITS = 10**15
"""Largest scalar that is believed: beyond it the double that Mesos sends has no thousandths any more."""

_PLAIN_UNITS = 10**11
"""Below it no two multiples of a thousandth are the same double, nor is one lost in multiplying."""

_RANGE = re.compile(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?")


def millis(value: int | float | str | Decimal) -> Millis:
    """Convert a quantity in units to thousandths, rounded half to even.

    Parameters
    ----------
    value
        A number from 0 to :data:`MAX_UNITS`.

    Raises
    ------
    QuantityError
        If `value` is not a number, not finite, negative or too large.
    """
    if type(value) is float and 0 <= value < _PLAIN_UNITS:  # as almost everything that Mesos sends
        nearest = round(value * 1000)
        if nearest / 1000 == value:
            return nearest
    try:
        exact = Decimal(str(value))
        if exact.is_finite() and 0 <= exact <= MAX_UNITS:
            return int((exact * 1000).to_integral_value(ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError):  # ValueError: an int of too many digits for str()
        pass
    shown = ascii(value)[:80] if not isinstance(value, int) else "a number"
    raise QuantityError(f"{shown} is not a quantity: expected a number from 0 to {MAX_UNITS}")


def _whole(value: object) -> int:
    """Return a member of a range, which JSON may hold as anything."""
    if isinstance(value, int) and 0 <= value < 10**18:
        return value
    raise QuantityError(f"{value!r} is not a whole number from 0 to 10^18")


def from_millis(value: Millis) -> float:
    """Convert thousandths to the float that Mesos' JSON wants."""
    return value / 1000


@functools.lru_cache(maxsize=10_000)
def format_millis(value: Millis) -> str:
    """Write thousandths in units, without superfluous zeros; the tasks of a graph ask for the same again."""
    whole, rest = divmod(value, 1000)
    return str(whole) if not rest else f"{whole}.{rest:03d}".rstrip("0")


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of non-negative integers, kept as sorted, disjoint, non-adjacent inclusive intervals."""

    intervals: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, intervals: Iterable[tuple[int, int]]) -> Ranges:
        """Build from inclusive intervals in any order, overlapping or not."""
        merged: list[tuple[int, int]] = []
        for begin, end in sorted(intervals):
            if begin < 0 or end < begin:
                raise QuantityError(f"{begin}-{end} is not a range: expected 0 <= begin <= end")
            if merged and begin <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return cls(tuple(merged))

    @classmethod
    def of_values(cls, values: Iterable[int]) -> Ranges:
        """Build from single integers."""
        several = [*values]
        several.sort()
        intervals: list[tuple[int, int]] = []
        begin = end = several[0] if several else 0
        if begin < 0:
            raise QuantityError(f"{begin} is not in a range: expected a number of at least 0")
        for value in several:
            if value > end + 1:
                intervals.append((begin, end))
                begin = value
            end = value
        return cls((*intervals, (begin, end)) if several else ())

    @classmethod
    def parse(cls, text: str) -> Ranges:
        """Read ``[0-3,8,10-11]``, the form that Mesos shows (``8`` alone means ``8-8``).

        Raises
        ------
        QuantityError
            If the text is anything else.
        """
        inner = text.strip()
        if not (inner.startswith("[") and inner.endswith("]")):
            raise QuantityError(f"{text!r} is not a range list: expected e.g. '[0-3,8-11]'")
        inner = inner[1:-1].strip()
        intervals: list[tuple[int, int]] = []
        for part in inner.split(",") if inner else ():
            match = _RANGE.fullmatch(part)
            if match is None:
                raise QuantityError(f"{part!r} in {text!r} is not a range: expected e.g. '0-3'")
            begin = int(match[1])
            intervals.append((begin, int(match[2] or begin)))
        return cls.of(intervals)

    def __iter__(self) -> Iterator[int]:
        for begin, end in self.intervals:
            yield from range(begin, end + 1)

    def __len__(self) -> int:
        return sum(end - begin + 1 for begin, end in self.intervals)

    def __bool__(self) -> bool:
        return bool(self.intervals)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and any(b <= value <= e for b, e in self.intervals)

    def __or__(self, other: Ranges) -> Ranges:
        return Ranges.of((*self.intervals, *other.intervals))

    def __and__(self, other: Ranges) -> Ranges:
        common = []  # in order, and with gaps between, as the intervals of both are
        for b1, e1 in self.intervals:
            for b2, e2 in other.intervals:
                begin, end = b1 if b1 > b2 else b2, e1 if e1 < e2 else e2
                if begin <= end:
                    common.append((begin, end))
        return Ranges(tuple(common))

    def __sub__(self, other: Ranges) -> Ranges:
        """Take `other` away; what `self` does not have is ignored (see :meth:`Resources.__sub__`)."""
        left: list[tuple[int, int]] = []
        for begin, end in self.intervals:
            for (
                b,
                e,
            ) in (
                other.intervals
            ):  # in order, so that what is left of the interval begins later and later
                if b > end:
                    break
                if e < begin:
                    continue
                if b > begin:
                    left.append((begin, b - 1))
                begin = e + 1
            if begin <= end:
                left.append((begin, end))
        return Ranges(tuple(left))

    def issuperset(self, other: Ranges) -> bool:
        """Whether every integer of `other` is in this set."""
        return not other - self

    def take(self, count: int) -> Ranges:
        """Return the `count` smallest integers.

        Raises
        ------
        QuantityError
            If there are fewer.
        """
        taken: list[tuple[int, int]] = []
        missing = count
        for begin, end in self.intervals:
            if missing <= 0:
                break
            last = min(end, begin + missing - 1)
            taken.append((begin, last))
            missing -= last - begin + 1
        if missing > 0:
            raise QuantityError(f"asked for {count} of {self}, which has {len(self)}")
        return Ranges(tuple(taken))

    def __str__(self) -> str:
        return "[" + ",".join(f"{begin}-{end}" for begin, end in self.intervals) + "]"


def read_resource(entry: Mapping[str, Any]) -> tuple[str, Millis | Ranges]:
    """Return name and amount of a Mesos ``Resource`` message (JSON form).

    Raises
    ------
    QuantityError
        If it is malformed or of a type that Mesos does not have.
    """
    try:
        name, kind = str(entry["name"]), entry["type"]
        if kind == "SCALAR":
            return name, millis(entry["scalar"]["value"])
        if kind == "RANGES":
            pairs = entry["ranges"].get("range", [])
            return name, Ranges.of([(_whole(r["begin"]), _whole(r["end"])) for r in pairs])
    except (KeyError, TypeError, AttributeError) as exc:
        raise QuantityError(f"malformed resource {entry!r}: {exc!r}") from exc
    except QuantityError as exc:
        raise QuantityError(f"{name[:80]}: {exc}") from exc
    if kind != "SET":  # sets exist in Mesos; nothing of ours is one
        raise QuantityError(f"resource {name!r} has unknown type {kind!r}")
    return name, 0


def _pooled(name: str, mine: Ranges, more: Ranges) -> Ranges:
    """Return both sets together, which must have nothing in common."""
    if both := mine & more:
        raise QuantityError(f"{name} {both} would be there twice")
    return mine | more if mine else more


@dataclass(frozen=True, slots=True)
class Resources:
    """Amounts of named resources: scalars in thousandths, ranges as interval sets.

    Zero scalars and empty ranges are not kept, so that equal amounts are equal objects.
    """

    scalars: Mapping[str, Millis] = field(default_factory=dict)
    ranges: Mapping[str, Ranges] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scalars = {name: amount for name, amount in self.scalars.items() if amount}
        if scalars and min(scalars.values()) < 0:
            name = min(scalars, key=scalars.__getitem__)
            raise QuantityError(f"{name} would be {format_millis(scalars[name])}, below zero")
        object.__setattr__(self, "scalars", scalars)
        object.__setattr__(self, "ranges", {k: v for k, v in self.ranges.items() if v.intervals})

    def __add__(self, other: Resources) -> Resources:
        """Pool both.

        Raises
        ------
        QuantityError
            If a range member is in both: nothing can be there twice.
        """
        scalars = dict(self.scalars)
        for name, amount in other.scalars.items():
            scalars[name] = scalars.get(name, 0) + amount
        ranges = dict(self.ranges)
        for name, members in other.ranges.items():
            ranges[name] = _pooled(name, ranges.get(name, Ranges()), members)
        return Resources(scalars, ranges)

    def __sub__(self, other: Resources) -> Resources:
        """Take `other` away.

        Raises
        ------
        QuantityError
            If there is not that much; the message names the resource and what is missing.
        """
        scalars = dict(self.scalars)
        for name, amount in other.scalars.items():
            have = scalars.get(name, 0)
            if amount > have:
                raise QuantityError(
                    f"{name}: asked for {format_millis(amount)}, there is {format_millis(have)}"
                )
            scalars[name] = have - amount
        ranges = dict(self.ranges)
        for name, members in other.ranges.items():
            mine = ranges.get(name, Ranges())
            if missing := members - mine:
                raise QuantityError(f"{name}: asked for {members}, {missing} is not there")
            ranges[name] = mine - members
        return Resources(scalars, ranges)

    def __bool__(self) -> bool:
        return bool(self.scalars or self.ranges)

    def contains(self, other: Resources) -> bool:
        """Whether `other` could be taken away."""
        return all(self.scalars.get(k, 0) >= v for k, v in other.scalars.items()) and all(
            self.ranges.get(k, Ranges()).issuperset(v) for k, v in other.ranges.items()
        )

    def lacking(self, other: Resources) -> Resources:
        """Return what of `other` is not here."""
        scalars = {k: max(0, v - self.scalars.get(k, 0)) for k, v in other.scalars.items()}
        ranges = {k: v - self.ranges.get(k, Ranges()) for k, v in other.ranges.items()}
        return Resources(scalars, ranges)

    @classmethod
    def from_mesos(cls, resources: Sequence[Mapping[str, Any]]) -> Resources:
        """Sum a list of Mesos ``Resource`` messages (JSON form), whatever their roles.

        Raises
        ------
        QuantityError
            If an entry is malformed or of a type that Mesos does not have.
        """
        scalars: dict[str, Millis] = {}
        ranges: dict[str, Ranges] = {}
        for entry in resources:
            name, amount = read_resource(entry)
            if isinstance(amount, Ranges):
                ranges[name] = _pooled(name, ranges.get(name, Ranges()), amount)
            else:
                scalars[name] = scalars.get(name, 0) + amount
        return cls(scalars, ranges)

    def to_mesos(self) -> list[dict[str, Any]]:
        """Write as Mesos ``Resource`` messages without role or reservation, sorted by name."""
        entries: list[dict[str, Any]] = [
            {"name": name, "type": "SCALAR", "scalar": {"value": from_millis(amount)}}
            for name, amount in self.scalars.items()
        ]
        entries += (
            {
                "name": name,
                "type": "RANGES",
                "ranges": {"range": [{"begin": b, "end": e} for b, e in members.intervals]},
            }
            for name, members in self.ranges.items()
        )
        return sorted(entries, key=lambda entry: str(entry["name"]))

    def __str__(self) -> str:
        parts = [f"{name}:{format_millis(amount)}" for name, amount in self.scalars.items()]
        parts += [f"{name}:{members}" for name, members in self.ranges.items()]
        return "; ".join(sorted(parts))
