"""Status updates that are sent until they are acknowledged, in order.

An agent keeps one stream per task. Only the first update that is not acknowledged is on its way; it is sent
again after 10 s, 20 s, 40 s, … up to 10 min. When the framework subscribes again it is sent at once and the
waiting begins anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.embedded.clock import Clock, Timer
from scheduler.embedded.model import TaskState

FIRST_RETRY = 10.0
"""Seconds."""
LONGEST_RETRY = 600.0
"""Seconds."""
MAX_PENDING = 1000
"""Updates of one task that wait for acknowledgement; above it, ones that are not terminal are dropped."""


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """One update of a task."""

    framework_id: str
    task_id: str
    uuid: str
    """16 bytes in base64."""
    state: TaskState
    status: Mapping[str, Any]
    """The ``TaskStatus`` message."""


@dataclass(slots=True)
class _Stream:
    pending: deque[StatusUpdate] = field(default_factory=deque)
    retry: float = FIRST_RETRY
    timer: Timer | None = None
    latest: TaskState = TaskState.STAGING


class UpdateStreams:
    """The update streams of one agent.

    Parameters
    ----------
    clock
        For resending.
    forward
        Called with each update that is to be sent (again), and the newest state that the task has.
    """

    def __init__(self, clock: Clock, forward: Callable[[StatusUpdate, TaskState], None]) -> None:
        self._clock = clock
        self._forward = forward
        self._streams: dict[tuple[str, str], _Stream] = {}
        self.dropped = 0
        """Updates dropped because too many waited."""

    def append(self, update: StatusUpdate) -> None:
        """Queue an update; it is sent at once when nothing is before it."""
        stream = self._streams.setdefault((update.framework_id, update.task_id), _Stream())
        if len(stream.pending) >= MAX_PENDING and not update.state.is_terminal:
            self.dropped += 1
            return
        stream.latest = update.state
        stream.pending.append(update)
        if len(stream.pending) == 1:
            self._start(stream)

    def restore(self, updates: Sequence[StatusUpdate], acknowledged: int) -> None:
        """Have the stream of a task as it was; nothing is sent before its framework is here.

        Parameters
        ----------
        updates
            All of the task, in their order; at least one.
        acknowledged
            How many of them are.
        """
        stream = _Stream(deque(updates[acknowledged:]), latest=updates[-1].state)
        self._streams[updates[0].framework_id, updates[0].task_id] = stream

    def acknowledge(self, framework_id: str, task_id: str, uuid: str) -> StatusUpdate | None:
        """Take the pending update off, when it is that one, and send the next.

        Returns
        -------
        StatusUpdate or None
            What has been acknowledged; None for anything but the pending update.
        """
        key = (framework_id, task_id)
        stream = self._streams.get(key)
        if stream is None or not stream.pending or stream.pending[0].uuid != uuid:
            return None
        done = stream.pending.popleft()
        self._stop(stream)
        if done.state.is_terminal:
            del self._streams[key]
        elif stream.pending:
            self._start(stream)
        return done

    def resume(self, framework_id: str) -> None:
        """Send what is pending for a framework that is here again."""
        for (owner, _), stream in list(self._streams.items()):
            if owner == framework_id and stream.pending:
                self._stop(stream)
                self._start(stream)

    def forget(self, framework_id: str) -> None:
        """Drop the streams of a framework that is gone."""
        for key in [key for key in self._streams if key[0] == framework_id]:
            self._stop(self._streams.pop(key))

    def close(self) -> None:
        """Send nothing any more."""
        for stream in self._streams.values():
            self._stop(stream)
        self._streams.clear()

    def pending(self, framework_id: str, task_id: str) -> StatusUpdate | None:
        """Return the update of a task that waits for its acknowledgement."""
        stream = self._streams.get((framework_id, task_id))
        return stream.pending[0] if stream is not None and stream.pending else None

    def latest(self, framework_id: str, task_id: str) -> TaskState | None:
        """Return the newest state of a task, None when nothing has been reported yet."""
        stream = self._streams.get((framework_id, task_id))
        return None if stream is None else stream.latest

    def __len__(self) -> int:
        return len(self._streams)

    def _start(self, stream: _Stream) -> None:
        stream.retry = FIRST_RETRY
        self._send(stream)

    def _send(self, stream: _Stream) -> None:
        stream.timer = self._clock.call_later(stream.retry, lambda: self._send(stream))
        stream.retry = min(2 * stream.retry, LONGEST_RETRY)
        self._forward(stream.pending[0], stream.latest)

    def _stop(self, stream: _Stream) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
