from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import QuantityError
from scheduler.offers import Ledger, OfferPool
from scheduler.quantities import Ranges, Resources

STATIC = [{"type": "STATIC", "role": "sdp"}]


def offer(number: int, agent: str = "a", **scalars: int) -> dict[str, Any]:
    return {
        "id": {"value": f"o{number}"},
        "agent_id": {"value": agent},
        "hostname": agent,
        "url": {"scheme": "http", "address": {"ip": "10.0.0.1", "port": 5051}, "path": "/slave(1)"},
        "resources": Resources(scalars).to_mesos(),
    }


def entry(name: str, amount: int, reserved: bool) -> dict[str, Any]:
    (resource,) = Resources({name: amount}).to_mesos()
    resource["allocation_info"] = {"role": "sdp"}
    return resource | ({"reservations": STATIC} if reserved else {})


amounts = st.lists(st.tuples(st.integers(1, 5000), st.booleans()), min_size=1, max_size=4)


@given(st.lists(amounts, min_size=1, max_size=3), st.lists(st.integers(1, 3000), max_size=6))
def test_nothing_is_given_twice_and_the_reserved_goes_first(
    offers: list[list[tuple[int, bool]]], wanted: list[int]
) -> None:
    ledger = Ledger(
        {"resources": [entry("cpus", amount, reserved) for amount, reserved in entries]}
        for entries in offers
    )
    total = sum(amount for entries in offers for amount, _ in entries)
    reserved = sum(amount for entries in offers for amount, is_reserved in entries if is_reserved)
    drawn = 0
    for amount in wanted:
        if drawn + amount > total:
            with pytest.raises(QuantityError):
                ledger.draw(Resources({"cpus": amount}))
            return
        resources = ledger.draw(Resources({"cpus": amount}))
        assert Resources.from_mesos(resources) == Resources({"cpus": amount})
        from_reserved = Resources.from_mesos([r for r in resources if "reservations" in r])
        expected = max(0, min(amount, reserved - drawn))
        assert from_reserved.scalars.get("cpus", 0) == expected
        assert all(r["allocation_info"] == {"role": "sdp"} for r in resources)
        assert len(resources) <= 2, "what differs in nothing is one entry"
        drawn += amount


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_ranges_are_drawn_from_the_offers_that_have_them(one: set[int], other: set[int]) -> None:
    other -= one
    offers = [
        {"resources": Resources({}, {"ports": Ranges.of_values(values)}).to_mesos()}
        for values in (one, other)
    ]
    wanted = Resources({}, {"ports": Ranges.of_values(sorted(one | other)[::2])})
    ledger = Ledger(offers)
    assert Resources.from_mesos(ledger.draw(wanted)) == wanted
    if wanted:
        with pytest.raises(QuantityError):
            ledger.draw(wanted)


def test_offers_are_taken_whole_or_not_at_all() -> None:
    pool = OfferPool()
    pool.add([offer(1), offer(2)], 0.0)
    assert pool.take(["o1", "gone"]) is None
    taken = pool.take(["o1", "o2"])
    assert taken is not None
    assert len(taken) == 2
    assert pool.take(["o1"]) is None


def test_offers_of_one_agent_are_one_snapshot() -> None:
    pool = OfferPool()
    pool.add([offer(1, cpus=1000), offer(2, cpus=500), offer(3, "b", mem=1000)], 0.0)
    free = {agent.agent_id: agent.free for agent in pool.merged().agents}
    assert free == {"a": Resources({"cpus": 1500}), "b": Resources({"mem": 1000})}
    gained = pool.gained
    pool.rescind("o2")
    assert pool.gained == gained, "less is no news to who did not fit"
    assert pool.merged().agents[0].free == Resources({"cpus": 1000})
    pool.drop_agent("a")
    assert [agent.agent_id for agent in pool.merged().agents] == ["b"]


def test_old_offers_are_given_up() -> None:
    pool = OfferPool()
    pool.add([offer(1)], 1.0)
    pool.add([offer(2)], 5.0)
    assert pool.take_older(3.0) == ["o1"]
    assert pool.clear() == ["o2"]
    assert len(pool) == 0


def test_malformed_offers_are_ignored() -> None:
    pool = OfferPool()
    pool.add([{}, {"id": 3}, {"id": {"value": "x"}}, offer(1)], 0.0)
    assert pool.clear() == ["o1"]
