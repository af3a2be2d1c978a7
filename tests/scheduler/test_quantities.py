"""Quantities behave like exact numbers and sets, and outside input is refused, never half-read."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.errors import QuantityError
from scheduler.quantities import MAX_UNITS, Ranges, Resources, format_millis, from_millis, millis

sets = st.sets(st.integers(0, 40))
ranges = sets.map(Ranges.of_values)
amounts = st.integers(0, 10**9)
names = st.sampled_from(["cpus", "mem", "cores", "ports", "gpu.0.mem"])
resources = st.builds(
    Resources, st.dictionaries(names, amounts), st.dictionaries(names, ranges, max_size=2)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "type", "scalar", "value", "ranges", "range", "begin", "end", "x"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.integers(0, MAX_UNITS * 1000))
def test_thousandths_survive_being_written(amount: int) -> None:
    assert millis(format_millis(amount)) == amount


@given(st.integers(0, 10**12))
def test_thousandths_survive_the_doubles_of_mesos(amount: int) -> None:
    assert millis(json.loads(json.dumps(from_millis(amount)))) == amount


@given(st.floats(0, 10**12))
@example(0.0005)
@example(0.0015)
@example(1e11 + 0.0005)
@example(99999999999.9995)
def test_doubles_are_rounded_as_their_decimals_are(value: float) -> None:
    exact = Decimal(str(value)) * 1000
    assert millis(value) == exact.to_integral_value(ROUND_HALF_EVEN)


@given(st.lists(st.integers(0, 40)))
def test_single_numbers_become_intervals(values: list[int]) -> None:
    assert Ranges.of_values(values) == Ranges.of((value, value) for value in values)


@pytest.mark.parametrize(
    "value",
    [-1, -0.001, "nan", "inf", "1e999999999", "1e16", float("inf"), "", "x", "1 2", None],
)
def test_what_is_not_a_quantity_is_refused(value: object) -> None:
    with pytest.raises(QuantityError, match="not a quantity"):
        millis(value)  # type: ignore[arg-type]


def test_a_number_too_long_for_text_is_refused() -> None:
    with pytest.raises(QuantityError, match="not a quantity"):
        millis(10**5000)


@given(sets, sets)
def test_ranges_are_sets(one: set[int], other: set[int]) -> None:
    a, b = Ranges.of_values(one), Ranges.of_values(other)
    assert set(a | b) == one | other
    assert set(a & b) == one & other
    assert set(a - b) == one - other
    assert (len(a), bool(a)) == (len(one), bool(one))
    assert a.issuperset(b) == one.issuperset(other)
    assert (a == b) == (one == other)
    assert list(a) == sorted(one)
    assert all((value in a) == (value in one) for value in range(42))


@given(ranges)
def test_ranges_survive_being_written(members: Ranges) -> None:
    assert Ranges.parse(str(members)) == members


@given(sets, st.integers(-1, 45))
def test_take_gives_the_smallest_or_refuses(members: set[int], count: int) -> None:
    pool = Ranges.of_values(members)
    if count > len(members):
        with pytest.raises(QuantityError, match=f"asked for {count}"):
            pool.take(count)
    else:
        assert list(pool.take(count)) == sorted(members)[: max(count, 0)]


@given(st.text(max_size=30) | st.from_regex(r"\[[0-9,\- ]{0,20}\]", fullmatch=True))
@example("[" + "9" * 5000 + "]")
def test_any_text_is_ranges_or_refused(text: str) -> None:
    try:
        members = Ranges.parse(text)
    except QuantityError:
        return
    assert Ranges.parse(str(members)) == members


@given(resources, resources)
def test_what_is_added_can_be_taken_away(one: Resources, other: Resources) -> None:
    try:
        total = one + other
    except QuantityError:
        assert any(one.ranges.get(k, Ranges()) & v for k, v in other.ranges.items())
        return
    assert total - other == one
    assert total - one == other
    assert total.contains(one)
    assert bool(total) == bool(one or other)


@given(resources, resources)
def test_nothing_goes_below_zero_silently(one: Resources, other: Resources) -> None:
    if one.contains(other):
        assert (one - other) + other == one
    else:
        with pytest.raises(QuantityError, match="asked for"):
            _ = one - other


@given(resources.filter(lambda r: not set(r.scalars) & set(r.ranges)))
def test_resources_survive_mesos_messages(amount: Resources) -> None:
    assert Resources.from_mesos(json.loads(json.dumps(amount.to_mesos()))) == amount


@settings(max_examples=300)
@given(st.lists(json_values, max_size=3))
def test_any_message_is_resources_or_refused(messages: list[object]) -> None:
    try:
        amount = Resources.from_mesos(messages)  # type: ignore[arg-type]
    except QuantityError:
        return
    assert all(value > 0 for value in amount.scalars.values())


@pytest.mark.parametrize("value", [-1.0, float("nan"), 1e300, "x"])
def test_a_malformed_resource_is_named(value: object) -> None:
    message = {"name": "gpu.0.mem", "type": "SCALAR", "scalar": {"value": value}}
    with pytest.raises(QuantityError, match=r"^gpu\.0\.mem: .* is not a quantity"):
        Resources.from_mesos([message])


@pytest.mark.parametrize("end", [1.5, "3", -1, 10**18, None])
def test_members_of_ranges_are_whole_numbers(end: object) -> None:
    message = {"name": "cores", "type": "RANGES", "ranges": {"range": [{"begin": 0, "end": end}]}}
    with pytest.raises(QuantityError):
        Resources.from_mesos([message])
