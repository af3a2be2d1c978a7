from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import GraphError
from scheduler.templates import fields, problems, resolve

field_names = st.text(st.characters(blacklist_characters="{}"), max_size=20)
plain = st.text(max_size=30)


@given(plain)
def test_escaped_text_comes_out_as_it_was(text: str) -> None:
    assert resolve(text.replace("{", "{{").replace("}", "}}"), {}) == text


@given(st.lists(st.tuples(plain, field_names), max_size=5), plain)
def test_fields_are_replaced_by_their_values_and_nothing_else(
    parts: list[tuple[str, str]], tail: str
) -> None:
    def escape(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    template = "".join(f"{escape(text)}{{{name}}}" for text, name in parts) + escape(tail)
    values = {name: f"<{number}{{}}>" for number, (_, name) in enumerate(parts)}
    assert fields(template) == [name for _, name in parts]
    assert resolve(template, values) == "".join(t + values[n] for t, n in parts) + tail
    assert problems(template, values) == []


@settings(max_examples=300)
@given(st.text(alphabet="{}a.[]0_!:", max_size=30))
def test_any_text_is_resolved_or_refused(text: str) -> None:
    """Whatever stands there, nothing but GraphError comes out, and the check agrees with the act."""
    try:
        resolve(text, {"a": "1"})
    except GraphError:
        assert problems(text, {"a"})
    else:
        assert not problems(text, {"a"})


@pytest.mark.parametrize(
    "text",
    [
        "{task.__class__}",
        "{task.id.__init__}",
        "{0}",
        "{}",
        "{task.id!r}",
        "{task.id:>10}",
        "{graph.id.__globals__[os]}",
        "{ports[katcp].__class__}",
    ],
)
def test_python_is_out_of_reach(text: str) -> None:
    with pytest.raises(GraphError):
        resolve(text, {"task.id": "x", "graph.id": "g", "ports[katcp]": "1"})


def test_a_field_of_a_task_with_dots_in_its_name() -> None:
    values = {"endpoint[ingest.sdp_l0.0:katcp]": "10.0.0.1:31000"}
    assert resolve("--to={endpoint[ingest.sdp_l0.0:katcp]}", values) == "--to=10.0.0.1:31000"


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    (problem,) = problems("{ports[kat]}", {"ports[katcp]", "ports[spead]", "host"})
    assert "{ports[kat]}" in problem
    assert "{ports[katcp]}, {ports[spead]}" in problem
    assert "PORT edge" in problems("{endpoint[a:b]}", {"host"})[0]
