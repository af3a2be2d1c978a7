"""Patterns of clients: those in use are taken, those that never end are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katcp_iface.patterns import MAX_LENGTH, PatternError, compiled
from tests.cpu import least_seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "voltage",
        r"^array_1\.(capture-block-state|reason)$",
        r"^array_1\..*\.device-status$",
        r"^array_\d+\.ingest\.[^.]+\.(\d+)\.input-.*$",
        "^(state|target-state|mesos-master)$",
        r"a{2,5}(b|c)?d*",
        r"(?i)(?:input|output)-heaps",
        "[[]state",
        "[a&&b]",
    ],
)
def test_what_clients_ask_is_taken(text: str) -> None:
    assert compiled(text).pattern == text


@pytest.mark.parametrize(
    "text",
    [
        "(a+)+b",
        "(.*)*x",
        "(a|a)*b",
        "(a|ab)+c",
        r"([a-z]+\.?){1,500}$",
        "(?:(?:a*)b?)*",
        "(?=(a+)+b)",
        ".*.*.*.*.*x",
        "(x)(\\1)*y",
        "a" * (MAX_LENGTH + 1),
    ],
)
def test_what_could_take_for_ever_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        compiled(text)


@pytest.mark.parametrize("text", ["(", "[", "a{99999999999999999999}", "(?P<x>", "*"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(PatternError, match="no regular expression"):
        compiled(text)


@given(st.text(alphabet="ab().*+?|{1,9}[]^$\\", max_size=14), st.sampled_from(["a", "ab", "."]))
def test_what_is_taken_takes_little_time(text: str, unit: str) -> None:
    try:
        pattern = compiled(text)
    except PatternError:
        return
    searched = unit * (60 // len(unit)) + "!"
    assert least_seconds(lambda: pattern.search(searched), enough=0.1) <= 0.1
