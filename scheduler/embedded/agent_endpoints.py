"""The agents' endpoints: what runs there, and the files in its sandboxes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

from aiohttp import web

from scheduler.embedded import describe, sandbox
from scheduler.embedded.describe.agent import executor_name
from scheduler.embedded.master import Master
from scheduler.embedded.messages import framework_info, own_info, task_message
from scheduler.embedded.model import VERSION
from scheduler.embedded.operator_api import FILES, answer, read_call
from scheduler.embedded.records import AgentRecord
from scheduler.embedded.responses import BadQueryError, json_response, number, text
from scheduler.embedded.runs import Run

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AgentEndpoints:
    """What each agent answers below its own path.

    Parameters
    ----------
    master
        Knows the agents.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self.views: Mapping[str, Handler] = {
            "/state": self._show(lambda record: describe.agent_state_json(master, record)),
            "/containers": self._show(describe.containers_json),
            "/flags": self._show(lambda record: {"flags": describe.agent_flags(record, master)}),
            "/metrics/snapshot": self._show(
                lambda record: describe.agent_metrics_json(master, record)
            ),
            "/version": self._show(lambda _: {"version": VERSION}),
            "/health": self._health,
            "/api/v1": self._api,
            "/files/browse": self._browse,
            "/files/read": self._read,
            "/files/download": self._download,
        }

    def _show(self, build: Callable[[AgentRecord], Any]) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            return json_response(request, build(self._record(request)))

        return handler

    async def _health(self, request: web.Request) -> web.StreamResponse:
        self._record(request)
        return web.Response()

    async def _api(self, request: web.Request) -> web.StreamResponse:
        """Answer the operator API, as far as agents have it."""
        record = self._record(request)
        call = await read_call(request)
        if isinstance(call, web.Response):
            return call
        kind = call["type"]
        if (files := FILES.get(kind)) is not None:
            return await files(request, call, lambda path: sandbox.locate(record.agent, path))
        if (question := self._questions.get(kind)) is not None:
            return answer(request, kind, question(self, record))
        return text(501, f"{kind} is not supported by the agents of this cluster")

    def _get_tasks(self, record: AgentRecord) -> dict[str, Any]:
        tasks = [t for f in self._master.frameworks.values() for t in f.tasks_on(record.info.id)]
        ended = [
            task
            for framework in self._master.frameworks.values()
            for task in framework.completed
            if task.info.agent_id == record.info.id
        ]
        return {
            "pending_tasks": [],
            "queued_tasks": [],
            "launched_tasks": [task_message(t) for t in tasks if not t.state.is_terminal],
            "terminated_tasks": [task_message(t) for t in tasks if t.state.is_terminal],
            "completed_tasks": [task_message(t) for t in ended],
        }

    def _get_frameworks(self, record: AgentRecord) -> dict[str, Any]:
        found = {run.framework.id: run.framework for run in record.agent.runs.values()}
        gone = {
            run.framework.id: run.framework
            for run in record.agent.completed.values()
            if run.framework.id not in self._master.frameworks
        }
        return {
            "frameworks": [{"framework_info": framework_info(f)} for f in found.values()],
            "completed_frameworks": [{"framework_info": framework_info(f)} for f in gone.values()],
        }

    def _get_state(self, record: AgentRecord) -> dict[str, Any]:
        return {
            "get_tasks": self._get_tasks(record),
            "get_executors": self._get_executors(record),
            "get_frameworks": self._get_frameworks(record),
        }

    def _get_executors(self, record: AgentRecord) -> dict[str, Any]:
        def shown(runs: Iterable[Run]) -> list[dict[str, Any]]:
            found = {(run.framework.id, run.executor_id): run for run in runs}
            return [{"executor_info": _executor_info(run)} for run in found.values()]

        return {
            "executors": shown(record.agent.runs.values()),
            "completed_executors": shown(record.agent.completed.values()),
        }

    def _get_containers(self, record: AgentRecord) -> dict[str, Any]:
        return {
            "containers": [
                {
                    "framework_id": {"value": container["framework_id"]},
                    "executor_id": {"value": container["executor_id"]},
                    "executor_name": container["executor_name"],
                    "container_id": {"value": container["container_id"]},
                    "container_status": container["status"],
                }
                for container in describe.containers_json(record)
            ]
        }

    _questions: Mapping[str, Callable[[AgentEndpoints, AgentRecord], dict[str, Any]]] = {
        "GET_HEALTH": lambda _self, _record: {"healthy": True},
        "GET_VERSION": lambda _self, _record: {"version_info": {"version": VERSION}},
        "GET_STATE": _get_state,
        "GET_TASKS": _get_tasks,
        "GET_FRAMEWORKS": _get_frameworks,
        "GET_EXECUTORS": _get_executors,
        "GET_CONTAINERS": _get_containers,
        "GET_AGENT": lambda _self, record: {"agent_info": own_info(record.info)},
    }

    async def _browse(self, request: web.Request) -> web.StreamResponse:
        """List a folder of a sandbox."""
        root, path = self._locate(request)
        entries = await asyncio.to_thread(sandbox.browse, root, path, request.query["path"])
        return json_response(request, entries)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        """Answer a piece of a file."""
        root, path = self._locate(request)
        offset = number(request, "offset", -1)
        length = number(request, "length", -1)
        data, begin = await asyncio.to_thread(sandbox.read, root, path, offset, length)
        shown = sandbox.whole_characters(data).decode(errors="replace")
        return json_response(request, {"data": shown, "offset": begin})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        """Answer a whole file, as it is when it is asked for."""
        root, path = self._locate(request)
        _, size = await asyncio.to_thread(sandbox.read, root, path, -1, -1)
        headers = {"Content-Disposition": f"attachment; filename={_header_name(path.name)}"}
        response = web.StreamResponse(headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = size
        await response.prepare(request)
        offset = 0
        while offset < size:
            length = size - offset
            data, _ = await asyncio.to_thread(sandbox.read, root, path, offset, length)
            if not data:  # cut short meanwhile: the client sees that the length does not fit
                break
            offset += len(data)
            await response.write(data)
        return response

    def _record(self, request: web.Request) -> AgentRecord:
        wanted = int(request.match_info["number"])
        master = self._master
        for record in (*master.agents.values(), *reversed(master.removed_agents.values())):
            if record.info.number == wanted:
                return record
        raise web.HTTPNotFound

    def _locate(self, request: web.Request) -> tuple[Any, Any]:
        path = request.query.get("path")
        if not path:
            raise BadQueryError("Expecting 'path=value' in query.\n")
        return sandbox.locate(self._record(request).agent, path)


def _executor_info(run: Run) -> dict[str, Any]:
    info: dict[str, Any] = {
        "executor_id": {"value": run.executor_id},
        "framework_id": {"value": run.framework.id},
    }
    if run.group is not None:
        return {"type": "DEFAULT", **info}
    return {**info, "name": executor_name(run), "source": run.task.id}


def _header_name(name: str) -> str:
    """Keep of a file's name what is harmless in a header."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
