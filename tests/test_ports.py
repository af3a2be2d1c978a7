"""Ports for tests: nobody gets one twice, and a block is found where there is one."""

from __future__ import annotations

import contextlib
import fcntl
import socket

import pytest

from tests import conftest


def test_of_few_blocks_the_one_that_is_free_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with conftest.port_block(300) as first:
        monkeypatch.setattr(conftest, "FREE_BLOCKS", range(first, first + 300))
        monkeypatch.setattr(conftest, "_given", set())
        with contextlib.ExitStack() as stack:
            for port in {*range(first, first + 300, 9)} - {first + 171}:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            assert first + 163 <= conftest.free_ports(10) <= first + 170


def test_what_was_not_free_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[tuple[int, int, int]] = []

    def lockf(_file: int, kind: int, count: int, first: int) -> None:
        locked.append((kind & fcntl.LOCK_UN, count, first))

    with conftest.port_block(2) as first, socket.create_server(("127.0.0.1", first + 1)):
        monkeypatch.setattr(conftest, "_given", set())
        monkeypatch.setattr(fcntl, "lockf", lockf)
        assert not conftest._take(first, 2)
        assert locked == [(0, 2, first), (fcntl.LOCK_UN, 2, first)]
        monkeypatch.undo()


def test_a_block_is_given_once_to_a_process() -> None:
    with conftest.port_block(50) as first, conftest.port_block(50) as second:
        assert abs(first - second) >= 50
        assert not conftest._take(first + 49, 1)
    assert first not in conftest._given
