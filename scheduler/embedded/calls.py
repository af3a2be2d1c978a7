"""The calls of a subscribed framework, and what the master does about each.

An answer of 202 says nothing about success: a call that cannot be followed is answered by an event, or not at
all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from scheduler.embedded.launching import accept
from scheduler.embedded.master import Master
from scheduler.embedded.model import FrameworkInfo, TaskState, seconds
from scheduler.embedded.reconciliation import reconcile, reconcile_all
from scheduler.embedded.records import Framework, Order
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

    REQUEST and ACKNOWLEDGE_OPERATION_STATUS are accepted and have no effect, as with a master that has nothing
    to do for them.

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
            "RECONCILE_OPERATIONS": self._reconcile_operations,
            "ACCEPT_INVERSE_OFFERS": partial(self._answer_inverse, accepted=True),
            "DECLINE_INVERSE_OFFERS": partial(self._answer_inverse, accepted=False),
            "MESSAGE": self._message,
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
        framework.calls[kind.lower()] += 1
        if (handler := self._handlers.get(kind)) is not None:
            handler(framework, call.get(kind.lower(), {}))
        return HTTPStatus.OK if kind == "UPDATE_FRAMEWORK" else HTTPStatus.ACCEPTED

    def _accept(self, framework: Framework, body: Mapping[str, Any]) -> None:
        accept(self._master, framework, body)

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

    def _answer_inverse(
        self, framework: Framework, body: Mapping[str, Any], *, accepted: bool
    ) -> None:
        ids = [offer_id["value"] for offer_id in body.get("inverse_offer_ids", [])]
        filters = body.get("filters", {})
        self._master.maintenance.answer(framework, ids, accepted=accepted, filters=filters)

    def _kill(self, framework: Framework, body: Mapping[str, Any]) -> None:
        task_id = body["task_id"]["value"]
        named = body.get("agent_id", {}).get("value")
        task = framework.tasks.get(task_id)
        if task is None:
            answer = reconcile(self._master, framework, task_id, named)
            if answer is not None:
                _send(framework, answer)
            return
        if named not in (None, task.info.agent_id):
            return
        policy = body.get("kill_policy", {}).get("grace_period")
        grace = None if policy is None else max(0.0, seconds(policy, 0.0))
        record = self._master.agents[task.info.agent_id]
        key = (framework.info.id, task_id)
        if record.connected:
            record.post(lambda agent: agent.kill(*key, grace))
        else:
            record.killed[key] = grace

    def _shutdown(self, framework: Framework, body: Mapping[str, Any]) -> None:
        """End an executor with all its tasks."""
        key = (framework.info.id, body["executor_id"]["value"])
        self._post(body, lambda agent: agent.shutdown_executor(*key))

    def _message(self, framework: Framework, body: Mapping[str, Any]) -> None:
        """Hand a message to an executor."""
        key = (framework.info.id, body["executor_id"]["value"])
        self._post(body, lambda agent: agent.deliver(*key, body["data"]))

    def _post(self, body: Mapping[str, Any], order: Order) -> None:
        record = self._master.agents.get(body["agent_id"]["value"])
        if record is not None:
            record.post(order)

    def _acknowledge(self, framework: Framework, body: Mapping[str, Any]) -> None:
        task_id, uuid = body["task_id"]["value"], body["uuid"]
        record = self._master.agents.get(body["agent_id"]["value"])
        task = framework.tasks.get(task_id)
        pending = task.statuses[-1] if task is not None and task.statuses else {}
        mine = task is not None and record is not None and task.info.agent_id == record.info.id
        if not mine or pending.get("uuid") != uuid:
            self._master.counters["invalid_acknowledgements"] += 1
            logger.warning("ignored an acknowledgement for task %r", task_id)
        if record is None or not record.connected:
            return
        framework_id = framework.info.id
        done = mine and pending.get("uuid") == uuid and TaskState(pending["state"]).is_terminal
        record.post(lambda agent: agent.acknowledge(framework_id, task_id, uuid))
        if done and task is not None and framework.tasks.get(task_id) is task:
            self._master.complete(framework, task)

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
            if status is not None:
                _send(framework, status)

    def _reconcile_operations(self, framework: Framework, body: Mapping[str, Any]) -> None:
        """Answer for each operation that it is unknown: there are none in this cluster."""
        for operation in body.get("operations", []):
            if isinstance(operation, Mapping) and "operation_id" in operation:
                status = {
                    "operation_id": operation["operation_id"],
                    "state": "OPERATION_UNKNOWN",
                    "message": "Reconciliation: Operation is unknown",
                }
                framework.send("UPDATE_OPERATION_STATUS", status=status)

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
        self._master.observers.framework_updated(framework)
        self._master.allocate_soon()


def _send(framework: Framework, status: Mapping[str, Any]) -> None:
    """Send a status that the master itself has made; it needs no acknowledgement."""
    framework.send("UPDATE", status=status)
