from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import QuantityError
from scheduler.offers import Ledger, OfferPool
from scheduler.quantities import Ranges, Resources
from scheduler.topology import merge_offers

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


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 9), st.sampled_from("abc")),
            st.tuples(st.sampled_from(["rescind", "take"]), st.integers(0, 9), st.just("")),
            st.tuples(st.just("drop"), st.just(0), st.sampled_from("abc")),
            st.tuples(st.just("look"), st.integers(0, 3), st.just("")),
            st.tuples(st.just("age"), st.integers(0, 20), st.just("")),
        ),
        max_size=20,
    )
)
def test_what_is_merged_agent_by_agent_is_what_all_offers_come_to(
    steps: list[tuple[str, int, str]],
) -> None:
    pool, held = OfferPool(), dict[str, tuple[dict[str, Any], int]]()
    for at, (act, number, agent) in enumerate(steps):
        name = f"o{number}"
        match act:
            case "add":
                one = offer(number, agent, cpus=1000 + at)
                pool.add([one], at)
                held.pop(name, None)
                held[name] = one, at
            case "rescind":
                pool.rescind(name)
                held.pop(name, None)
            case "take":
                assert (pool.take([name]) is None) == (name not in held)
                held.pop(name, None)
            case "drop":
                pool.drop_agent(agent)
                held = {k: v for k, v in held.items() if v[0]["agent_id"]["value"] != agent}
            case "look":
                pool.merge_some(number)
            case "age":
                assert pool.take_older(number) == [k for k, v in held.items() if v[1] < number]
                held = {k: v for k, v in held.items() if v[1] >= number}
        if act != "look":
            continue
        expected = merge_offers(one for one, _ in held.values())
        assert {a.agent_id: a.free for a in pool.merged().agents} == {
            a.agent_id: a.free for a in expected.agents
        }
    assert {a.agent_id: set(a.offer_ids) for a in pool.merged().agents} == {
        a.agent_id: set(a.offer_ids) for a in merge_offers(o for o, _ in held.values()).agents
    }
    assert len(pool) == len(held)
