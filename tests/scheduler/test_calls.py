"""Calls that wait: which are made, in what order, and that they are no more than there is to say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scheduler import calls
from scheduler.calls import Call, Calls
from scheduler.errors import FrameworkError
from scheduler.pymesos_driver import CallRefused

KEYS = st.sampled_from(["a", "b", "c"])


class Caller:
    """Makes calls, as long as they do not fail."""

    def __init__(self) -> None:
        self.failing = False
        self.closed = threading.Event()

    def make(self, call: Callable[[], object]) -> None:
        if self.failing:
            raise CallRefused("no")
        call()

    def close_calls(self) -> None:
        self.closed.set()


class Waiting(RuleBasedStateMachine):
    """Subscriptions come and go, calls are asked for, made, or fail; on this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.caller = Caller()
        self.calls = Calls(self.caller, lambda: True)
        self.begun = self.allowed = self.number = 0
        self.up = False
        self.asked: list[tuple[str | None, bool, int]] = []
        """What should wait, in order: key, whether it lasts, number."""
        self.made: list[int] = []
        self.told: dict[int, FrameworkError | None] = {}

    @property
    def may(self) -> bool:
        return self.up and self.begun == self.allowed

    @rule()
    def begin(self) -> None:
        if not self.up:
            self.calls.begun()
            self.begun, self.up = self.begun + 1, True

    @rule()
    def end(self) -> None:
        self.calls.ended()
        self.up = False
        for _, lasting, number in self.asked:
            assert lasting or isinstance(self.told.pop(number), CallRefused)
        self.asked = [waiting for waiting in self.asked if waiting[1]]

    @rule(late=st.booleans())
    def allow(self, late: bool) -> None:
        """Of the present subscription, or of one that its reader has come to only now."""
        self.allowed = max(0, self.begun - late)
        self.calls.allow(self.allowed)

    @rule(key=st.none() | KEYS, lasting=st.booleans())
    def ask(self, key: str | None, lasting: bool) -> None:
        self.number = number = self.number + 1
        key = None if key is None else f"{key} {lasting}"

        def done(error: FrameworkError | None) -> None:
            assert number not in self.told, "told twice"
            self.told[number] = error

        self.calls.enqueue(
            Call("KILL", lambda: self.made.append(number), done, key=key, lasting=lasting)
        )
        if lasting or self.may:
            self.asked = [w for w in self.asked if key is None or w[0] != key]
            self.asked.append((key, lasting, number))
        else:
            assert isinstance(self.told.pop(number), CallRefused)

    @precondition(lambda self: self.may and self.asked)
    @rule(fails=st.booleans())
    def make(self, fails: bool) -> None:
        (_, lasting, number), *rest = self.asked
        self.caller.failing = fails
        call = self.calls._take()
        self.calls._make(call)
        assert (self.made[-1:] == [number]) is not fails
        if fails and lasting and call.tries < calls.MAX_TRIES:
            assert number not in self.told, "it is tried again, before all others"
        else:
            assert isinstance(self.told.pop(number), CallRefused if fails else type(None))
            self.asked = rest

    @invariant()
    def what_waits_is_what_was_asked_for(self) -> None:
        assert self.calls._may_call() is self.may
        waiting = [(call.key, call.lasting) for call in self.calls._waiting.values()]
        assert waiting == [(key, lasting) for key, lasting, _ in self.asked]
        assert not self.told
        keys = [key for key, _ in waiting if key is not None]
        assert len(keys) == len(set(keys))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PAUSE", 0.0)


def test_what_waits_is_made_in_order_and_is_bounded() -> None:
    run_state_machine_as_test(Waiting)


def test_thousands_of_kills_are_asked_for_again_in_no_time() -> None:
    """Each took the place of the one before by looking at all."""
    waiting = Calls(Caller(), lambda: True)
    began = time.process_time()
    for _ in range(3):
        for number in range(5000):
            waiting.enqueue(Call("KILL", int, lambda _: None, f"kill {number}", lasting=True))
    assert time.process_time() - began < 1
    assert len(waiting._waiting) == 5000


def test_a_fault_of_ours_in_a_call_is_told_and_ends_no_thread() -> None:
    caller, told = Caller(), threading.Event()
    errors: list[FrameworkError | None] = []
    made = Calls(caller, lambda: True)
    made.start()
    made.begun()
    made.allow(1)

    def broken() -> None:
        raise ValueError("not ours to send")

    made.enqueue(Call("ACCEPT", broken, errors.append))
    made.enqueue(Call("ACCEPT", int, lambda _: told.set()))
    assert told.wait(60)
    assert "not ours to send" in str(errors[0])
    made.stop()
    made.join()
    assert caller.closed.is_set()
