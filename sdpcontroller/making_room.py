"""Batch tasks that are ended for a product that does not fit: who, for whom and why, in events and an alarm.

The events are of both products. The alarm stands until what made room runs again, or is not to be run any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from scheduler.task import TaskState
from scheduler.views import Change, MadeRoom, TaskChanged
from sdpcontroller.control import Alarm, Severity
from sdpcontroller.products.ownership import owned, owner
from sdpcontroller.products.product import Product
from sdpcontroller.some import some

_ENDED: Final = (TaskState.STOPPING, TaskState.DEAD, TaskState.PLANNED)
"""States of what made room until it has a place again."""
_NAMED: Final = 5
"""Tasks that the alarm names."""


class MakingRoom:
    """Keeps what made room and does not run again yet.

    Parameters
    ----------
    products
        All, by name.
    changed
        Is called when the alarm changes.
    """

    def __init__(self, products: Mapping[str, Product], changed: Callable[[], None]) -> None:
        self._products = products
        self._changed = changed
        self._waiting: dict[tuple[str, str], str] = {}
        """For whom, by graph and task."""
        self._ending: frozenset[str] = frozenset()
        """Ids of the attempts that ended for it, or do: what is heard of them is no news of the next."""

    def take(self, change: Change) -> bool:
        """Take what the scheduler tells; whether it concerns nobody else."""
        match change:
            case MadeRoom():
                self._made_room(change)
                return True
            case TaskChanged(view) if (view.graph_id, view.name) in self._waiting:
                if view.state not in _ENDED and view.task_id not in self._ending:
                    del self._waiting[view.graph_id, view.name]
                    self._changed()
        return False

    def _made_room(self, change: MadeRoom) -> None:
        who = owner(change.graph_id, self._products.values())
        for_whom = owner(change.by, self._products.values())
        named = for_whom.name if for_whom is not None else change.by
        self._waiting.update({(change.graph_id, name): named for name in change.names})
        self._ending |= {*change.task_ids}
        if who is not None:
            who.note(str(change))
        if for_whom is not None and for_whom is not who:
            for_whom.note(
                f"it did not fit: {', '.join(change.names)} of {change.graph_id} made room"
            )
        self._changed()

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is to be told."""
        known = owned(self._products.values())
        self._waiting = {key: by for key, by in self._waiting.items() if key[0] in known}
        if not self._waiting:
            self._ending = frozenset()
            return ()
        told = [f"{name} of {graph_id} for {by}" for (graph_id, name), by in self._waiting.items()]
        text = f"batch tasks made room and wait to be run again: {some(told, _NAMED)}"
        return (Alarm("queues.preempted", Severity.WARNING, text),)
