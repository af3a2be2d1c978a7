"""Whatever a scheduler sends: it is understood or refused, and never breaks the master."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from scheduler.embedded.calls import CallRefusedError
from scheduler.embedded.convert import ConversionError, parse
from scheduler.embedded.schema import ENUMS, MESSAGES, PRIMITIVES, Field
from scheduler.embedded.validation import validate_call

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "framework_id", "value", "accept", "kill", "subscribe"]), inner
        )
    ),
    max_leaves=10,
)

NUMBERS = st.sampled_from([0, 1, -1, 0.5, 1e18, -1e18, 2**63, 10**30, 1e-9])
PLAIN = {
    "string": st.sampled_from(
        ["", "*", "sdp", "cpus", "cores", "t", "/", "..", "a b", "\x00", "é"]
    ),
    "double": NUMBERS,
    "int": NUMBERS,
    "bool": st.booleans(),
    "bytes": st.sampled_from(["", "AAAA", "AAECAwQFRgeICQoLDA0ODw==", "_-__"]),
    "any": JSON,
}


def value_of(field: Field, depth: int) -> st.SearchStrategy[Any]:
    if field.kind in PRIMITIVES:
        one = PLAIN[field.kind]
    elif field.kind in ENUMS:
        one = st.sampled_from(sorted(ENUMS[field.kind]))
    else:
        one = message_of(field.kind, depth + 1)
    return st.lists(one, max_size=2) if field.repeated else one


def message_of(name: str, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    fields = MESSAGES[name].values()
    required = {f.name: st.deferred(lambda f=f: value_of(f, depth)) for f in fields if f.required}
    optional = {
        f.name: st.deferred(lambda f=f: value_of(f, depth))
        for f in fields
        if not f.required and depth < 5
    }
    return st.fixed_dictionaries(required, optional=optional)


@given(JSON)
@settings(deadline=None, max_examples=150)
def test_any_json_is_converted_or_refused(value: Any) -> None:
    try:
        call = parse(json.dumps(value).encode(), "Call")
    except ConversionError:
        return
    assert isinstance(validate_call(call), str | None)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_schema_is_closed(name: str) -> None:
    for field in MESSAGES[name].values():
        assert field.kind in PRIMITIVES | ENUMS.keys() | MESSAGES.keys()


def test_a_converted_call_is_its_own_conversion() -> None:
    call = {
        "type": "KILL",
        "framework_id": {"value": "f"},
        "kill": {"task_id": {"value": "t"}, "kill_policy": {"grace_period": {"nanoseconds": 1}}},
    }
    once = parse(json.dumps(call | {"unknown": 1}).encode(), "Call")
    assert once == call
    assert parse(json.dumps(once).encode(), "Call") == once


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(sorted(ENUMS["CallType"] - {"TEARDOWN"})),
            st.data(),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_call_breaks_the_master(make_bench: Any, calls: list[Any]) -> None:
    async def story() -> None:
        bench = make_bench(1, offer_timeout=5.0)
        scheduler = await bench.subscribe()
        for kind, data in calls:
            await send(bench, scheduler, kind, data)
            await bench.advance(1)
            scheduler.read()
        for record in bench.master.agents.values():
            assert record.free + record.used + record.offered == record.total
        await bench.close()

    asyncio.run(story())


async def send(bench: Any, scheduler: Any, kind: str, data: Any) -> None:
    """Send a call of which only the form is right, with offer and agent ids that exist."""
    call: dict[str, Any] = {"type": kind, "framework_id": {"value": scheduler.id}}
    field = MESSAGES["Call"].get(kind.lower())
    if field is not None:
        call[field.name] = data.draw(message_of(field.kind))
    accept = call.get("accept", call.get("decline", {}))
    accept["offer_ids"] = [{"value": offer_id} for offer_id in scheduler.offers]
    for operation in accept.get("operations", []):
        for task in operation.get("launch", {}).get("task_infos", []):
            task["agent_id"] = {"value": next(iter(bench.master.agents))}
    if "subscribe" in call or "update_framework" in call:
        body = call.get("subscribe", call.get("update_framework"))
        assert body is not None
        body["framework_info"]["id"] = call["framework_id"]
    try:
        parsed = parse(json.dumps(call).encode(), "Call")
    except ConversionError:
        return
    if validate_call(parsed) is not None:
        return
    if kind == "SUBSCRIBE":
        bench.master.disconnected(bench.master.subscribe(parsed))
        return
    with contextlib.suppress(CallRefusedError):
        bench.calls.call(parsed, scheduler.stream.id)
    await bench.settle()
