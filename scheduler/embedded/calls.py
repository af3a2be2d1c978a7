"""The calls of a subscribed framework, and what the master does about each.

An answer of 202 says nothing about success: a call that cannot be followed is answered by an event, or not at
all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from scheduler.embedded.master import Master
from scheduler.embedded.model import FrameworkInfo, Offer, TaskState, seconds
from scheduler.embedded.offers import InvalidOffersError
from scheduler.embedded.pool import Pool
from scheduler.embedded.reconciliation import reconcile, reconcile_all
from scheduler.embedded.records import Framework, Task
from scheduler.embedded.task_validation import TaskError, check_task
from scheduler.embedded.validation import validate_framework, validate_update

logger = logging.getLogger(__name__)


class CallRefusedError(Exception):
    """A call that is answered with an HTTP error."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class SchedulerCalls:
    """Does what frameworks ask for.

    Calls that Mesos has and that are not listed here (MESSAGE to a command executor, REQUEST, operations on
    reservations, inverse offers) are accepted and have no effect, as with a master that has nothing to do for
    them.

    Parameters
    ----------
    master
        Whose books are changed.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._handlers: dict[str, Callable[[Framework, Mapping[str, Any]], None]] = {
            "TEARDOWN": lambda framework, _: master.remove_framework(framework),
            "ACCEPT": self._accept,
            "DECLINE": self._decline,
            "REVIVE": self._revive,
            "SUPPRESS": self._suppress,
            "KILL": self._kill,
            "SHUTDOWN": self._shutdown,
            "ACKNOWLEDGE": self._acknowledge,
            "RECONCILE": self._reconcile,
            "UPDATE_FRAMEWORK": self._update_framework,
        }

    def call(self, call: Mapping[str, Any], stream_id: str | None) -> HTTPStatus:
        """Do what a validated call other than SUBSCRIBE asks for.

        Returns
        -------
        HTTPStatus
            What to answer; it says nothing about success.

        Raises
        ------
        CallRefusedError
            If the sender is not the framework's present subscriber.
        """
        framework_id = call["framework_id"]["value"]
        framework = self._master.frameworks.get(framework_id)
        if framework is None:
            raise CallRefusedError(HTTPStatus.BAD_REQUEST, "Framework cannot be found")
        if framework.stream is None:
            raise CallRefusedError(HTTPStatus.FORBIDDEN, "Framework is not subscribed")
        if stream_id is None:
            text = "All non-subscribe calls should include the 'Mesos-Stream-Id' header"
            raise CallRefusedError(HTTPStatus.BAD_REQUEST, text)
        if stream_id != framework.stream.id:
            text = (
                f"The stream ID '{stream_id}' included in this request didn't match the "
                f"stream ID currently associated with framework ID {framework_id}"
            )
            raise CallRefusedError(HTTPStatus.BAD_REQUEST, text)
        kind = call["type"]
        self._master.counters[f"calls/{kind.lower()}"] += 1
        if (handler := self._handlers.get(kind)) is not None:
            handler(framework, call.get(kind.lower(), {}))
        return HTTPStatus.OK if kind == "UPDATE_FRAMEWORK" else HTTPStatus.ACCEPTED

    def _accept(self, framework: Framework, body: Mapping[str, Any]) -> None:
        operations = body.get("operations", [])
        offer_ids = [offer_id["value"] for offer_id in body.get("offer_ids", [])]
        try:
            offers = self._master.desk.accept(framework.info.id, offer_ids)
        except InvalidOffersError as exc:
            text = f"Task launched with invalid offers: {exc}"
            for document in _tasks(operations):
                state = framework.info.reportable(TaskState.DROPPED)
                self._refuse_task(framework, document, state, "REASON_INVALID_OFFERS", text)
            return
        left = self._launch_all(framework, offers, operations)
        self._master.desk.refuse(offers[0], left, body.get("filters", {}))

    def _launch_all(
        self, framework: Framework, offers: Sequence[Offer], operations: Sequence[Any]
    ) -> Pool:
        """Launch the valid tasks; return the resources that are left."""
        agent = self._master.agents[offers[0].agent_id]
        left = offers[0].resources
        for offer in offers[1:]:
            left += offer.resources
        for operation in operations:
            launch = operation.get("type") == "LAUNCH"
            for document in _tasks([operation]):
                try:
                    if not launch:
                        raise TaskError("Task groups are not supported by this cluster")
                    task = check_task(
                        document,
                        agent_id=agent.info.id,
                        role=offers[0].role,
                        available=left,
                        taken_ids=framework.tasks.keys() | framework.unreachable.keys(),
                    )
                except TaskError as exc:
                    self._refuse_task(
                        framework, document, TaskState.ERROR, "REASON_TASK_INVALID", str(exc)
                    )
                    continue
                left -= task.pool
                agent.used += task.pool
                framework.tasks[task.id] = Task(framework.info.id, task)
                agent.agent.launch(framework.info, task)
        return left

    def _refuse_task(
        self,
        framework: Framework,
        document: Mapping[str, Any],
        state: TaskState,
        reason: str,
        message: str,
    ) -> None:
        self._master.counters[f"updates/{state.value}"] += 1
        status = {
            "task_id": document["task_id"],
            "state": state.value,
            "message": message,
            "source": "SOURCE_MASTER",
            "reason": reason,
            "agent_id": document["agent_id"],
            "timestamp": self._master.clock.time(),
        }
        _send(framework, status)

    def _decline(self, framework: Framework, body: Mapping[str, Any]) -> None:
        offer_ids = [offer_id["value"] for offer_id in body.get("offer_ids", [])]
        self._master.desk.decline(framework.info.id, offer_ids, body.get("filters", {}))

    def _revive(self, framework: Framework, body: Mapping[str, Any]) -> None:
        roles = set(body.get("roles") or framework.info.roles)
        framework.suppressed -= roles
        self._master.desk.clear_filters(framework.info.id, roles)
        self._master.allocate_soon()

    def _suppress(self, framework: Framework, body: Mapping[str, Any]) -> None:
        roles = set(body.get("roles") or framework.info.roles)
        framework.suppressed |= roles & set(framework.info.roles)

    def _kill(self, framework: Framework, body: Mapping[str, Any]) -> None:
        task_id = body["task_id"]["value"]
        named = body.get("agent_id", {}).get("value")
        task = framework.tasks.get(task_id)
        if task is None:
            _send(framework, reconcile(self._master, framework, task_id, named))
        elif named in (None, task.info.agent_id):
            grace = seconds(body.get("kill_policy", {}).get("grace_period"), -1.0)
            agent = self._master.agents[task.info.agent_id]
            if agent.connected:
                agent.agent.kill(framework.info.id, task_id, None if grace < 0 else grace)

    def _shutdown(self, framework: Framework, body: Mapping[str, Any]) -> None:
        """End an executor; that of a command task has the task's id."""
        agent = self._master.agents.get(body["agent_id"]["value"])
        if agent is not None and agent.connected:
            agent.agent.kill(framework.info.id, body["executor_id"]["value"])

    def _acknowledge(self, framework: Framework, body: Mapping[str, Any]) -> None:
        task_id = body["task_id"]["value"]
        agent = self._master.agents.get(body["agent_id"]["value"])
        if agent is None or not agent.connected:
            return
        done = agent.agent.acknowledge(framework.info.id, task_id, body["uuid"])
        if done is None:
            self._master.counters["invalid_acknowledgements"] += 1
            logger.warning("ignored an acknowledgement for task %r", task_id)
        elif done.state.is_terminal:
            self._master.complete(framework, framework.tasks[task_id])

    def _reconcile(self, framework: Framework, body: Mapping[str, Any]) -> None:
        tasks = body.get("tasks", [])
        statuses = (
            [
                reconcile(
                    self._master,
                    framework,
                    t["task_id"]["value"],
                    t.get("agent_id", {}).get("value"),
                )
                for t in tasks
            ]
            if tasks
            else reconcile_all(self._master, framework)
        )
        for status in statuses:
            _send(framework, status)

    def _update_framework(self, framework: Framework, body: Mapping[str, Any]) -> None:
        document = body["framework_info"]
        suppressed = body.get("suppressed_roles", [])
        problem = validate_update(framework.info, document)
        problem = problem or validate_framework(document, suppressed, framework.info)
        if problem is not None:
            text = f"FrameworkInfo update is not valid: {problem}"
            raise CallRefusedError(HTTPStatus.BAD_REQUEST, text)
        info = FrameworkInfo.from_mesos(document, framework.info.id)
        gone = set(framework.info.roles) - set(info.roles)
        framework.info = framework.info.updated(info)
        framework.suppressed = set(suppressed)
        self._master.desk.clear_filters(info.id, gone)
        stale = [offer for offer in framework.offers.values() if offer.role in gone]
        self._master.desk.withdraw(stale, rescind=True)
        self._master.allocate_soon()


def _send(framework: Framework, status: Mapping[str, Any]) -> None:
    """Send a status that the master itself has made; it needs no acknowledgement."""
    framework.send("UPDATE", status=status)


def _tasks(operations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the ``TaskInfo`` messages of an ACCEPT in their order."""
    found: list[Mapping[str, Any]] = []
    for operation in operations:
        if operation.get("type") == "LAUNCH":
            found += operation.get("launch", {}).get("task_infos", [])
        elif operation.get("type") == "LAUNCH_GROUP":
            group = operation.get("launch_group", {}).get("task_group", {})
            found += group.get("tasks", [])
    return found
