"""Event streams on which events get lost, late, doubled or out of order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.embedded.clock import Clock
from scheduler.embedded.faults.rules import Delay, Drop, Duplicate, EventRule, Reorder
from scheduler.embedded.stream import EventStream


class FaultyStream(EventStream):
    """A subscriber's stream with faults.

    Parameters
    ----------
    clock
        For events that are late.
    rules
        The faults, the first that meets an event counts; the list may change.
    """

    def __init__(self, clock: Clock, rules: list[EventRule]) -> None:
        super().__init__()
        self.framework_id = ""
        self.silent = False
        """Whether nothing is delivered any more although the connection is open."""
        self._clock = clock
        self._rules = rules
        self._kept: dict[EventRule, Mapping[str, Any]] = {}

    def send(self, event: Mapping[str, Any]) -> None:
        """Queue an event, or do to it what a rule says."""
        if event["type"] == "SUBSCRIBED":
            self.framework_id = event["subscribed"]["framework_id"]["value"]
        if self.silent:
            return
        if not self._rules:
            super().send(event)
            return
        rule = next((r for r in self._rules if r.meets(event, self.framework_id)), None)
        match None if rule is None else rule.action:
            case Drop():
                return
            case Delay(seconds):
                self._clock.call_later(seconds, lambda: self._deliver(event))
            case Duplicate(copies):
                for _ in range(copies):
                    self._deliver(event)
            case Reorder() if rule is not None:
                self._swap(rule, event)
            case _:
                self._deliver(event)

    def _swap(self, rule: EventRule, event: Mapping[str, Any]) -> None:
        if (before := self._kept.pop(rule, None)) is None:
            self._kept[rule] = event
        else:
            self._deliver(event)
            self._deliver(before)

    def _deliver(self, event: Mapping[str, Any]) -> None:
        if not self.silent:
            super().send(event)
