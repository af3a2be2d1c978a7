"""That the controllers of a pair have the same queues.

The one that leads counts: its queues hold. It records them, so that one that takes over can say what is
different from then on; and it is told of each one that stands by whether its queues are the same, by a digest
in the name under which that one waits for the lease.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sdpcontroller.control import Alarm, Severity
from sdpcontroller.queues.model import QueuesConfig
from sdpcontroller.some import some
from sdpcontroller.store import Store
from sdpcontroller.store.records import Form, Table

logger = logging.getLogger(__name__)

_KEY: Final = "in-use"
_MOST_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class InUse:
    """The queues of the controller that led last."""

    by: str
    """Its name."""
    document: Mapping[str, Any]


QUEUES: Final[Form[InUse]] = Form(
    "queues",
    write=lambda used: {"by": used.by, "document": dict(used.document)},
    read=lambda found: InUse(str(found["by"]), dict(found["document"])),
)
"""One record: the queues in use."""


def plain(config: QueuesConfig) -> dict[str, Any]:
    """Return all of it as plain data, what is as usual included."""
    document: dict[str, Any] = config.model_dump(mode="json")
    return document


def digest(config: QueuesConfig) -> str:
    """Return a short text that is the same for the same queues."""
    written = json.dumps(plain(config), sort_keys=True).encode()
    return hashlib.sha256(written).hexdigest()[:12]


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield what is different, one line each: ``queues.batch.preemptible: false → true``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        before, after = (
            "nothing" if value is None else json.dumps(value, ensure_ascii=False)
            for value in (old, new)
        )
        yield f"{path}: {before} → {after}"


class Agreement:
    """One controller's part in it.

    Parameters
    ----------
    name
        Of this controller, for people.
    strangers
        Returns the names of those that stand by and have other queues.
    """

    def __init__(
        self,
        store: Store,
        config: QueuesConfig,
        name: str,
        strangers: Callable[[], list[str]] = list,
    ) -> None:
        self._table: Table[InUse] = Table(store, QUEUES)
        self._config = config
        self._name = name
        self._strangers = strangers

    async def compare(self) -> list[str]:
        """Return, and log, what is different from what the controller had that led last.

        Raises
        ------
        StoreError
            If that could not be read.
        """
        row = await self._table.get(_KEY)
        if row is None:
            return []
        found = list(differences(row.value.document, plain(self._config)))
        if found:
            logger.warning(
                "the controller at %s, which led last, had other queues: %s",
                row.value.by,
                some(found, _MOST_TOLD, "; "),
            )
        return found

    async def lead(self) -> None:
        """Let the queues of this controller hold; what is different is an event of their record.

        Raises
        ------
        StoreError
            If that could not be recorded.
        """
        found = await self.compare()
        event = f"{self._name} leads"
        if found:
            event += f" with other queues: {some(found, _MOST_TOLD, '; ')}"
        await self._table.put(_KEY, InUse(self._name, plain(self._config)), event=event)

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is wrong."""
        if not (names := self._strangers()):
            return ()
        text = (
            f"the queues of {', '.join(names)} (standing by) are others than those in use: after a takeover "
            "they would hold; start both with the same --queues"
        )
        return (Alarm("queues", Severity.WARNING, text),)
