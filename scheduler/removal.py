"""After Mesos has removed the framework: what an operator decides, when no scheduler runs.

Mesos kills the tasks of a framework that it removes, and tells nobody. A scheduler that finds itself removed
stops, and never takes a new id by itself: whoever removed it may not have meant to. Here it is found out how
Mesos stands to the recorded id, and the id is given up, with all that is recorded as running.
"""

from __future__ import annotations

import enum
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from scheduler import agents
from scheduler.errors import FrameworkError
from scheduler.journal import Journal, JournalState, TaskRecord
from scheduler.task import ORDER, Death, Outcome, TaskState

SECONDS: Final = 10.0
"""How long the master may take to answer."""
CAUSE: Final = "Mesos removed the framework, and an operator gave its id up"


class Standing(enum.Enum):
    """How Mesos stands to a framework id."""

    CONNECTED = "connected: a scheduler is subscribed under it"
    AWAITED = (
        "waited for: its tasks run, and a scheduler that subscribes under it goes on with them"
    )
    REMOVED = "removed: no scheduler can subscribe under it any more, and its tasks were killed"
    UNKNOWN = "not known to this master, which may be a new one; agents may still have its tasks"


async def ask(
    master: str, framework_id: str, *, authorization: str = "", tls: ssl.SSLContext | None = None
) -> Standing:
    """Ask a master, or by way of another master the leading one.

    Parameters
    ----------
    master
        ``host:port``.
    authorization
        Who asks, as :func:`scheduler.agents.basic` has it; empty: nobody.
    tls
        Checks its certificate; None: it speaks plain HTTP.

    Raises
    ------
    FrameworkError
        If it does not tell; or cannot yet, because agents that it knows from an earlier master are missing.
    """
    fetch = partial(_fetch, master, authorization, tls)
    stands = standing(await fetch("/master/frameworks"), framework_id)
    if stands is Standing.UNKNOWN:
        missing = _entries(await fetch("/master/slaves"), "recovered_slaves")
        if missing:
            hosts = ", ".join(sorted(str(entry.get("hostname", "?")) for entry in missing)[:5])
            raise FrameworkError(
                f"the Mesos master at {master} does not know framework {framework_id} yet: it waits for "
                f"agents that may run its tasks ({hosts})"
            )
    return stands


async def _fetch(
    master: str, authorization: str, tls: ssl.SSLContext | None, path: str
) -> Mapping[str, object]:
    document = await agents.fetch(master, authorization, SECONDS, path=path, tls=tls)
    if not isinstance(document, Mapping):
        who = "refuses these credentials" if authorization else "wants credentials"
        raise FrameworkError(
            f"no answer from a Mesos master at {agents.address(master, path, tls)}: "
            f"it is not there, or {who}"
        )
    return document


def standing(document: Mapping[str, object], framework_id: str) -> Standing:
    """Return what a master's list of frameworks says of one."""
    for entry in _entries(document, "frameworks"):
        if entry.get("id") == framework_id:
            return Standing.CONNECTED if entry.get("connected") else Standing.AWAITED
    removed = {entry.get("id") for entry in _entries(document, "completed_frameworks")}
    return Standing.REMOVED if framework_id in removed else Standing.UNKNOWN


def _entries(document: Mapping[str, object], kind: str) -> list[Mapping[str, object]]:
    found = document.get(kind)
    if not isinstance(found, list):
        raise FrameworkError(f"the Mesos master lists no {kind}")
    return [entry for entry in found if isinstance(entry, Mapping)]


def running(state: JournalState) -> Sequence[TaskRecord]:
    """Return the records of tasks that Mesos was asked to run and that have not ended."""
    return [
        record
        for record in state.tasks.values()
        if ORDER[TaskState.LAUNCHING] <= ORDER[record.state] < ORDER[TaskState.DEAD]
    ]


async def give_up(journal: Journal) -> Sequence[TaskRecord]:
    """Settle all that is recorded as running as lost, then give the framework id up.

    The id comes last: what is interrupted can be done again. A scheduler that starts on this journal
    subscribes as a new framework.

    Returns
    -------
    list of TaskRecord
        Those that were settled, as they were.

    Raises
    ------
    JournalError
        If a record could not be written.
    """
    lost = running(await journal.load())
    for record in lost:
        death = Death(Outcome.LOST, CAUSE, ran=record.state is not TaskState.LAUNCHING)
        await journal.record_task(replace(record, state=TaskState.DEAD, death=death))
    await journal.record_framework_id(None)
    return lost
