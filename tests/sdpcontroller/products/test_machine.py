from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import networkx as nx
import pytest

from sdpcontroller.control import CaptureBlockState, ProductState
from sdpcontroller.errors import CommandError
from sdpcontroller.products import machine

TABLES: list[Any] = [
    (machine.PRODUCT_TRANSITIONS, ProductState.CONFIGURING, ProductState.DEAD),
    (
        machine.CAPTURE_BLOCK_TRANSITIONS,
        CaptureBlockState.INITIALISING,
        CaptureBlockState.DEAD,
    ),
]


@pytest.mark.parametrize(("table", "first", "last"), TABLES)
def test_every_state_is_reached_and_every_life_can_end(
    table: Mapping[enum.Enum, frozenset[enum.Enum]], first: enum.Enum, last: enum.Enum
) -> None:
    graph = nx.DiGraph([(a, b) for a, targets in table.items() for b in targets])
    assert set(graph) == set(table) == set(type(first))
    assert nx.descendants(graph, first) | {first} == set(table)
    assert nx.ancestors(graph, last) | {last} == set(table)


@pytest.mark.parametrize(("table", "first", "last"), TABLES)
def test_dead_absorbs_and_nothing_becomes_what_it_is(table: Any, first: Any, last: Any) -> None:
    assert table[last] == frozenset()
    assert all(state not in targets for state, targets in table.items())


@pytest.mark.parametrize("old", ProductState)
@pytest.mark.parametrize("new", ProductState)
def test_a_product_changes_as_the_table_says(old: ProductState, new: ProductState) -> None:
    if new in machine.PRODUCT_TRANSITIONS[old]:
        machine.check_product("p", old, new)
    else:
        with pytest.raises(CommandError, match=f"p is {old.value}: it cannot become {new.value}"):
            machine.check_product("p", old, new)


@pytest.mark.parametrize("old", CaptureBlockState)
@pytest.mark.parametrize("new", CaptureBlockState)
def test_a_block_changes_as_the_table_says(old: CaptureBlockState, new: CaptureBlockState) -> None:
    if new in machine.CAPTURE_BLOCK_TRANSITIONS[old]:
        machine.check_capture_block("17", old, new)
    else:
        with pytest.raises(CommandError, match=f"17 is {old.value}: it cannot become {new.value}"):
            machine.check_capture_block("17", old, new)


def test_an_error_is_left_only_by_taking_the_product_down() -> None:
    assert machine.PRODUCT_TRANSITIONS[ProductState.ERROR] == {ProductState.DECONFIGURING}
