"""ACCEPT: from offers and operations to tasks on an agent."""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from scheduler.embedded.master import Master
from scheduler.embedded.model import Offer, TaskState
from scheduler.embedded.notices import master_status
from scheduler.embedded.offers import InvalidOffersError
from scheduler.embedded.pool import Pool
from scheduler.embedded.records import AgentRecord, Framework, Task
from scheduler.embedded.task_validation import TaskError, check_group, check_task

logger = logging.getLogger(__name__)

_Document = Mapping[str, Any]


def accept(master: Master, framework: Framework, body: _Document) -> None:
    """Follow an ACCEPT; what cannot be launched is told by statuses."""
    operations = body.get("operations", [])
    offer_ids = [offer_id["value"] for offer_id in body.get("offer_ids", [])]
    launching = _Launching(master, framework)
    try:
        offers = master.desk.accept(framework.info.id, offer_ids)
    except InvalidOffersError as exc:
        text = f"Task launched with invalid offers: {exc}"
        launching.refuse(_tasks(operations), TaskState.DROPPED, "REASON_INVALID_OFFERS", text)
        return
    left = launching.follow(operations, offers)
    master.desk.refuse(offers[0], left, body.get("filters", {}))


class _Launching:
    """The operations of one ACCEPT, and what they leave of its offers."""

    def __init__(self, master: Master, framework: Framework) -> None:
        self._master = master
        self._framework = framework

    def follow(self, operations: Sequence[_Document], offers: Sequence[Offer]) -> Pool:
        """Launch what is valid; return what is left."""
        record = self._master.agents[offers[0].agent_id]
        left = Pool()
        for offer in offers:
            left += offer.resources
        for operation in operations:
            kind = operation.get("type")
            if kind == "LAUNCH":
                for document in operation.get("launch", {}).get("task_infos", []):
                    left -= self._launch(record, offers[0].role, left, document)
            elif kind == "LAUNCH_GROUP":
                group = operation.get("launch_group", {})
                left -= self._launch_group(record, offers[0].role, left, group)
            else:
                self._refuse_operation(operation)
        return left

    def _launch(self, record: AgentRecord, role: str, available: Pool, document: _Document) -> Pool:
        """Launch one task; return what it takes."""
        try:
            task = check_task(
                document,
                agent_id=record.info.id,
                role=role,
                available=available,
                taken_ids=self._taken(),
            )
        except TaskError as exc:
            self.refuse([document], TaskState.ERROR, "REASON_TASK_INVALID", str(exc))
            return Pool()
        info = self._framework.info
        self._master.add_task(self._framework, Task(info.id, task))
        record.post(lambda agent: agent.launch(info, task))
        return task.pool

    def _launch_group(
        self, record: AgentRecord, role: str, available: Pool, document: _Document
    ) -> Pool:
        """Launch tasks that share an executor, all or none; return what they take."""
        info = self._framework.info
        executor_id = document["executor"]["executor_id"]["value"]
        key = (info.id, executor_id)
        tasks = document["task_group"].get("tasks", [])
        try:
            group = check_group(
                document,
                framework_id=info.id,
                agent_id=record.info.id,
                role=role,
                available=available,
                taken_ids=self._taken(),
                executor_runs=key in record.executors,
            )
        except TaskError as exc:
            self.refuse(tasks, TaskState.ERROR, "REASON_TASK_GROUP_INVALID", str(exc))
            return Pool()
        if group.executor:
            record.executors[key] = group.executor
            record.used += group.executor
        for task in group.tasks:
            self._master.add_task(self._framework, Task(info.id, task, executor_id))
        record.post(lambda agent: agent.launch_group(info, executor_id, group))
        return group.total

    def _taken(self) -> Collection[str]:
        return ChainMap(self._framework.tasks, self._framework.unreachable)

    def refuse(
        self, documents: Iterable[_Document], state: TaskState, reason: str, message: str
    ) -> None:
        """Tell that tasks are not launched."""
        told = self._framework.info.reportable(state)
        for document in documents:
            self._master.counters[f"updates/{told.value}"] += 1
            status = master_status(
                document["task_id"]["value"],
                told,
                reason=reason,
                message=message,
                agent_id=document["agent_id"]["value"],
                time=self._master.clock.time(),
            )
            self._framework.send("UPDATE", status=status)

    def _refuse_operation(self, operation: _Document) -> None:
        """Answer an operation on reservations or volumes: who has named it is told, as with Mesos."""
        kind = operation.get("type", "UNKNOWN")
        text = f"{kind} is not supported: this cluster has static reservations only, and no volumes"
        logger.warning("framework %s: %s", self._framework.info.id, text)
        if "id" in operation:
            status = {"operation_id": operation["id"], "state": "OPERATION_ERROR", "message": text}
            self._framework.send("UPDATE_OPERATION_STATUS", status=status)


def _tasks(operations: Sequence[_Document]) -> list[_Document]:
    """Return the ``TaskInfo`` messages of an ACCEPT in their order."""
    found: list[_Document] = []
    for operation in operations:
        if operation.get("type") == "LAUNCH":
            found += operation.get("launch", {}).get("task_infos", [])
        elif operation.get("type") == "LAUNCH_GROUP":
            group = operation.get("launch_group", {}).get("task_group", {})
            found += group.get("tasks", [])
    return found
