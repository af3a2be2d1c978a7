"""Status updates: in order, and again until they are acknowledged."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from scheduler.embedded.clock import VirtualClock
from scheduler.embedded.model import TaskState
from scheduler.embedded.updates import MAX_PENDING, StatusUpdate, UpdateStreams


def update(number: int, state: TaskState = TaskState.RUNNING) -> StatusUpdate:
    return StatusUpdate("f", "t", f"uuid-{number}", state, {"state": state.value})


class Sent:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.log: list[tuple[float, str]] = []
        self.streams = UpdateStreams(
            self.clock, lambda u, _: self.log.append((self.clock.monotonic(), u.uuid))
        )


def test_the_pause_doubles_up_to_ten_minutes() -> None:
    sent = Sent()
    sent.streams.append(update(0))
    sent.clock.advance(3000)
    times = [time for time, _ in sent.log]
    assert times == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430]


def test_a_framework_that_is_back_gets_what_is_pending_and_the_pause_begins_anew() -> None:
    sent = Sent()
    sent.streams.append(update(0))
    sent.clock.advance(35)
    sent.log.clear()
    sent.streams.resume("f")
    sent.streams.resume("somebody else")
    sent.clock.advance(10)
    assert [time for time, _ in sent.log] == [35, 45]


@given(st.lists(st.sampled_from(["append", "ack", "wrong", "resume", "time"]), max_size=60))
@settings(deadline=None, max_examples=200)
def test_updates_arrive_in_order_and_none_is_skipped(steps: list[str]) -> None:
    sent = Sent()
    made: list[str] = []
    acknowledged: list[str] = []
    for step in steps:
        if step == "append":
            sent.streams.append(update(len(made)))
            made.append(f"uuid-{len(made)}")
        elif step == "ack":
            pending = sent.streams.pending("f", "t")
            if pending is not None:
                assert sent.streams.acknowledge("f", "t", pending.uuid) == pending
                acknowledged.append(pending.uuid)
        elif step == "wrong":
            assert sent.streams.acknowledge("f", "t", "nope") is None
        elif step == "resume":
            sent.streams.resume("f")
        else:
            sent.clock.advance(7)
        pending = sent.streams.pending("f", "t")
        if len(acknowledged) < len(made):
            assert pending is not None
            assert pending.uuid == made[len(acknowledged)]
        seen = list(dict.fromkeys(uuid for _, uuid in sent.log))
        assert seen == made[: len(seen)]
        assert len(seen) in (len(acknowledged), len(acknowledged) + 1)
    assert acknowledged == made[: len(acknowledged)]


def test_the_number_of_waiting_updates_is_bounded_but_the_end_is_always_told() -> None:
    sent = Sent()
    for number in range(MAX_PENDING + 10):
        sent.streams.append(update(number))
    sent.streams.append(update(-1, TaskState.FINISHED))
    assert sent.streams.dropped == 10
    while (pending := sent.streams.pending("f", "t")) is not None:
        last = sent.streams.acknowledge("f", "t", pending.uuid)
    assert last is not None
    assert last.state is TaskState.FINISHED
    assert len(sent.streams) == 0
