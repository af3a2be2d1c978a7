"""Text from outside: whatever comes, it is a configuration or a ConfigError."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpcontroller.config import ProductConfig, load, merge, parse
from sdpcontroller.config.document import MAX_BYTES, MAX_DEPTH
from sdpcontroller.errors import ConfigError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1"),
        ('{"a": 1,\n"b" 2}', "line 2, column 5"),
        ("[]", "list: it must be an object"),
        ("3", "number"),
        ("null", "null"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": ' + "9" * 5000 + "}", "too large"),
        ("[" * 100_000, f"deeper than {MAX_DEPTH}"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH}"),
        (b'{"a": "\xff"}', "byte 7"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"a\\u0000": 1}', "control"),
        ('{"a": "x\\ny"}', "control"),
        (" " * (MAX_BYTES + 1), "bytes: at most"),
    ],
)
def test_what_json_leaves_open_is_refused(text, message) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.dictionaries(st.text(st.characters(categories=["L", "N"])), st.integers(-(10**9), 10**9)))
def test_plain_objects_are_loaded_as_they_are(document) -> None:
    assert load(json.dumps(document)) == document
    assert load(json.dumps(document).encode()) == document


@settings(deadline=None, max_examples=200)
@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_any_text_is_refused_in_order(text) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, item in items:
            found += places(item, (*path, key)) if isinstance(item, dict | list) else [(*path, key)]
    return found


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_mutated_document_is_a_configuration_or_a_config_error(document, data) -> None:
    mutated = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        *steps, last = data.draw(st.sampled_from(places(mutated)))
        here = mutated
        for step in steps:
            here = here[step]
        match data.draw(st.sampled_from(["replace", "delete", "add"])):
            case "replace":
                here[last] = data.draw(JSON)
            case "delete":
                del here[last]
            case "add" if isinstance(here, dict):
                here[data.draw(st.text(max_size=8))] = data.draw(JSON)
    try:
        config = parse(json.dumps(mutated))
    except ConfigError as error:
        assert str(error)
    else:
        assert json.dumps(config.to_json(), sort_keys=True) == json.dumps(mutated, sort_keys=True)


NO_NULL = st.recursive(
    st.integers() | st.text(max_size=4),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.text(max_size=2), NO_NULL, max_size=3)


@given(OBJECT, OBJECT)
def test_merging_twice_is_merging_once(document, override) -> None:
    once = merge(document, override)
    assert merge(once, override) == once
    assert merge(document, {}) == document
    assert merge({}, override) == override


@given(OBJECT)
def test_null_deletes(document) -> None:
    assert merge(document, dict.fromkeys(document)) == {}


def test_examples_of_rfc_7386() -> None:
    # Appendix A of the RFC.
    for target, patch, result in [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        (["a"], {"a": 1}, {"a": 1}),
    ]:
        assert merge(target, patch) == result


def test_merged_leaves_the_original_alone(document) -> None:
    config = ProductConfig.from_document(document)
    before = json.dumps(config.to_json())
    config.merged({"config": {"shutdown_delay": 3}})
    assert json.dumps(config.to_json()) == before
