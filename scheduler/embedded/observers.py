"""Those who have subscribed to the operator API's events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scheduler.embedded.clock import Clock, Timer
from scheduler.embedded.messages import framework_info, framework_message, task_message
from scheduler.embedded.model import TaskState
from scheduler.embedded.records import Framework, Task
from scheduler.embedded.stream import EventStream

HEARTBEAT_INTERVAL = 15.0
"""Seconds between HEARTBEAT events."""
MAX_OBSERVERS = 1000
"""Mesos: ``--max_operator_event_stream_subscribers``; the oldest is dropped."""


class Observers:
    """Tells what happens to everybody who wants to know.

    Parameters
    ----------
    clock
        For heartbeats.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._streams: dict[EventStream, Timer] = {}

    def add(self, state: Mapping[str, Any]) -> EventStream:
        """Open a stream that begins with the whole state."""
        while len(self._streams) >= MAX_OBSERVERS:
            self.remove(next(iter(self._streams)))
        stream = EventStream()
        body = {"get_state": state, "heartbeat_interval_seconds": HEARTBEAT_INTERVAL}
        stream.send({"type": "SUBSCRIBED", "subscribed": body})
        self._heartbeat(stream)
        return stream

    def remove(self, stream: EventStream) -> None:
        """Close a stream."""
        if (timer := self._streams.pop(stream, None)) is not None:
            timer.cancel()
        stream.close()

    def close(self) -> None:
        """Close all streams."""
        for stream in list(self._streams):
            self.remove(stream)

    def task_added(self, task: Task) -> None:
        """Tell of a new task."""
        self._send("TASK_ADDED", lambda: {"task": task_message(task)})

    def task_updated(self, task: Task, status: Mapping[str, Any], state: TaskState) -> None:
        """Tell of a status that a framework is told, and of the newest state of its task."""
        body = {
            "framework_id": {"value": task.framework_id},
            "status": status,
            "state": state.value,
        }
        self._send("TASK_UPDATED", lambda: body)

    def framework_added(self, framework: Framework) -> None:
        """Tell of a new framework."""
        self._send("FRAMEWORK_ADDED", lambda: {"framework": framework_message(framework)})

    def framework_updated(self, framework: Framework) -> None:
        """Tell of a framework that has changed, or come back."""
        self._send("FRAMEWORK_UPDATED", lambda: {"framework": framework_message(framework)})

    def framework_removed(self, framework: Framework) -> None:
        """Tell of the end of a framework."""
        self._send("FRAMEWORK_REMOVED", lambda: {"framework_info": framework_info(framework.info)})

    def agent_added(self, message: Callable[[], Mapping[str, Any]]) -> None:
        """Tell of an agent, new or back again; its message is made only when somebody wants it."""
        self._send("AGENT_ADDED", lambda: {"agent": message()})

    def agent_removed(self, agent_id: str) -> None:
        """Tell of the end of an agent."""
        self._send("AGENT_REMOVED", lambda: {"agent_id": {"value": agent_id}})

    def _send(self, kind: str, body: Callable[[], Mapping[str, Any]]) -> None:
        if self._streams:
            event = {"type": kind, kind.lower(): body()}
            for stream in self._streams:
                stream.send(event)

    def _heartbeat(self, stream: EventStream) -> None:
        if stream.closed:
            self.remove(stream)
            return
        self._streams[stream] = self._clock.call_later(
            HEARTBEAT_INTERVAL, lambda: self._heartbeat(stream)
        )
        stream.send({"type": "HEARTBEAT"})
