"""Attributes and resources as a Mesos agent reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_setup import mesos
from agent_setup.advertise import as_scheduler
from agent_setup.errors import DiscoveryError
from scheduler.topology import keeps

texts = st.text("0123456789abcdefinxpINFE+-._/", min_size=1, max_size=10)


@given(texts)
def test_what_is_kept_comes_back(text: str) -> None:
    if not keeps(text) or "+" in text:
        return
    attributes = [("sdp.schema", "1"), ("sdp.rack", text)]
    assert as_scheduler(attributes, []).topology.rack == text


@pytest.mark.parametrize(
    "text",
    ["007", "1e3", "8.0", "1.2345", "-1", ".5", "5.", "inf", "NaN", "-Infinity", "0x1f", "1" * 13],
)
def test_numbers_in_disguise_are_not_kept(text: str) -> None:
    assert not keeps(text)
    with pytest.raises(DiscoveryError, match="takes this for a number"):
        mesos.attribute_messages([("rack", text)])


@pytest.mark.parametrize("text", ["7", "0", "10.5", "560.35.03", "r07", "1_000", "0x1g", "e5", "-"])
def test_other_texts_and_plain_numbers_are(text: str) -> None:
    assert keeps(text)


@given(st.lists(st.tuples(st.from_regex(r"[a-z.0-9]{1,9}", fullmatch=True), texts), max_size=5))
def test_lists_are_split_as_they_were_joined(pairs: list[tuple[str, str]]) -> None:
    assert list(mesos.split(mesos.joined(pairs))) == pairs
    assert list(mesos.split(mesos.joined(pairs, "\n"))) == pairs


@pytest.mark.parametrize("text", ["rack", "rack:", ":r07", "a:1;b"])
def test_entries_without_name_or_value_stop_an_agent(text: str) -> None:
    with pytest.raises(DiscoveryError, match="is not NAME:VALUE"):
        list(mesos.split(text))


def test_resources_are_numbers_or_ranges() -> None:
    with pytest.raises(DiscoveryError, match="resource cpus: neither a number nor ranges"):
        mesos.resource_messages([("cpus", "many")])
    with pytest.raises(DiscoveryError, match=r"cores: .* is not a range"):
        mesos.resource_messages([("cores", "[0-a]")])
