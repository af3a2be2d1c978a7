"""The operator API, ``POST /api/v1``: questions about the cluster, orders to it, and a stream of its events."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from scheduler.embedded import sandbox
from scheduler.embedded.convert import ConversionError, parse
from scheduler.embedded.describe import v1
from scheduler.embedded.maintenance import Machine, MaintenanceError
from scheduler.embedded.master import Master
from scheduler.embedded.operations import Operations, UnknownAgentError
from scheduler.embedded.responses import json_response, text
from scheduler.embedded.scheduler_api import refuse_form, send_stream
from scheduler.embedded.stream import EventStream

_Document = Mapping[str, Any]

_QUESTIONS: Mapping[str, Callable[[Master], dict[str, Any] | None]] = {
    "GET_HEALTH": v1.get_health,
    "GET_FLAGS": v1.get_flags,
    "GET_VERSION": v1.get_version,
    "GET_METRICS": v1.get_metrics,
    "GET_LOGGING_LEVEL": v1.get_logging_level,
    "GET_STATE": v1.get_state,
    "GET_AGENTS": v1.get_agents,
    "GET_FRAMEWORKS": v1.get_frameworks,
    "GET_EXECUTORS": v1.get_executors,
    "GET_OPERATIONS": v1.get_operations,
    "GET_TASKS": v1.get_tasks,
    "GET_ROLES": v1.get_roles,
    "GET_WEIGHTS": v1.get_weights,
    "GET_MASTER": v1.get_master,
    "GET_QUOTA": v1.get_quota,
    "GET_MAINTENANCE_SCHEDULE": v1.get_maintenance_schedule,
    "GET_MAINTENANCE_STATUS": v1.get_maintenance_status,
}
_WITH_BODY = frozenset(
    {
        "GET_METRICS",
        "LIST_FILES",
        "READ_FILE",
        "UPDATE_MAINTENANCE_SCHEDULE",
        "START_MAINTENANCE",
        "STOP_MAINTENANCE",
        "DRAIN_AGENT",
        "DEACTIVATE_AGENT",
        "REACTIVATE_AGENT",
        "MARK_AGENT_GONE",
        "TEARDOWN",
    }
)


class OperatorApi:
    """Serves the master's ``/api/v1``.

    Parameters
    ----------
    master
        Whom it is about.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._operations = Operations(master)
        self._streams: set[EventStream] = set()
        self._orders: Mapping[str, Callable[[_Document], None]] = {
            "UPDATE_MAINTENANCE_SCHEDULE": lambda b: master.maintenance.schedule(b["schedule"]),
            "START_MAINTENANCE": lambda b: self._operations.machine_down(_machines(b)),
            "STOP_MAINTENANCE": lambda b: master.maintenance.bring_up(_machines(b)),
            "DRAIN_AGENT": self._drain,
            "DEACTIVATE_AGENT": lambda b: self._operations.deactivate(b["agent_id"]["value"]),
            "REACTIVATE_AGENT": lambda b: self._operations.reactivate(b["agent_id"]["value"]),
            "TEARDOWN": self._teardown,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        call = await read_call(request)
        if isinstance(call, web.Response):
            return call
        kind = call["type"]
        if kind == "SUBSCRIBE":
            return await self._subscribe(request)
        if (question := _QUESTIONS.get(kind)) is not None:
            return answer(request, kind, question(self._master))
        if kind in ("LIST_FILES", "READ_FILE"):
            return text(404, "")  # a master has no files here
        try:
            if kind == "MARK_AGENT_GONE":
                return self._mark_gone(call["mark_agent_gone"]["agent_id"]["value"])
            if (order := self._orders.get(kind)) is not None:
                order(call[kind.lower()])
                return web.Response()
        except (MaintenanceError, UnknownAgentError) as exc:
            return text(400, str(exc))
        return text(501, f"{kind} is not supported: this cluster has neither quota nor volumes")

    def cut(self) -> None:
        """Cut all streams off, as a master that dies does."""
        for stream in self._streams:
            stream.cut()

    async def _subscribe(self, request: web.Request) -> web.StreamResponse:
        stream = self._master.observers.add(v1.get_state(self._master))
        self._streams.add(stream)
        try:
            return await send_stream(request, stream, {})
        finally:
            self._streams.discard(stream)
            self._master.observers.remove(stream)

    def _drain(self, body: _Document) -> None:
        grace = body.get("max_grace_period")
        seconds = None
        if grace is not None:
            seconds = grace.get("nanoseconds", 0) / 1e9 + grace.get("seconds", 0.0)
        gone = body.get("mark_gone", False)
        self._operations.drain(body["agent_id"]["value"], seconds, mark_gone=gone)

    def _mark_gone(self, agent_id: str) -> web.Response:
        try:
            self._operations.mark_gone(agent_id)
        except UnknownAgentError as exc:
            return text(404, str(exc))
        return web.Response()

    def _teardown(self, body: _Document) -> None:
        framework = self._master.frameworks.get(body["framework_id"]["value"])
        if framework is None:
            raise UnknownAgentError("No framework found with specified ID")
        self._master.remove_framework(framework)


async def read_call(request: web.Request) -> dict[str, Any] | web.Response:
    """Return the call of a request, or the answer to one that is none."""
    if (refusal := refuse_form(request)) is not None:
        return refusal
    try:
        call = parse(await request.read(), "OperatorCall")
    except ConversionError as exc:
        return text(400, str(exc))
    problem = None
    if "type" not in call:
        problem = "Expecting 'type' to be present"
    elif call["type"] in _WITH_BODY and call["type"].lower() not in call:
        problem = f"Expecting '{call['type'].lower()}' to be present"
    return call if problem is None else text(400, f"Failed to validate master::Call: {problem}")


def answer(request: web.Request, kind: str, body: dict[str, Any] | None) -> web.Response:
    """Answer a question; without a body only its type is repeated."""
    return json_response(request, {"type": kind} | ({} if body is None else {kind.lower(): body}))


def _machines(body: _Document) -> list[Machine]:
    return [Machine.from_mesos(document) for document in body.get("machines", [])]


Locate = Callable[[str], tuple[Any, Any]]


async def list_files(request: web.Request, call: _Document, locate: Locate) -> web.Response:
    """Answer LIST_FILES of an agent."""
    shown = call["list_files"]["path"]
    root, path = locate(shown)
    entries = await asyncio.to_thread(sandbox.list_messages, root, path, shown)
    return answer(request, "LIST_FILES", {"file_infos": entries})


async def read_file(request: web.Request, call: _Document, locate: Locate) -> web.Response:
    """Answer READ_FILE of an agent."""
    body = call["read_file"]
    root, path = locate(body["path"])
    offset, length = max(0, body["offset"]), body.get("length", -1)
    _, size = await asyncio.to_thread(sandbox.read, root, path, -1, -1)
    data, _ = await asyncio.to_thread(sandbox.read, root, path, offset, length)
    encoded = base64.b64encode(data).decode()
    return answer(request, "READ_FILE", {"size": size, "data": encoded})


Reader = Callable[[web.Request, _Document, Locate], Awaitable[web.Response]]
FILES: Mapping[str, Reader] = {"LIST_FILES": list_files, "READ_FILE": read_file}
"""What an agent is asked about its sandboxes."""
