"""The HTTP server of the embedded cluster: one for the master and all its agents.

The master's endpoints have no prefix or ``/master``, an agent's ``/slave(k)``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aiohttp import web

from scheduler.embedded import describe, sandbox
from scheduler.embedded.master import Master
from scheduler.embedded.model import VERSION
from scheduler.embedded.page import render
from scheduler.embedded.records import AgentRecord
from scheduler.embedded.scheduler_api import SchedulerApi, method_not_allowed, text

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request."""
_MAX_TASKS = 10_000
_JSONP = re.compile(r"[A-Za-z_$][\w$.]{0,100}")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadQueryError(ValueError):
    """A query parameter that is missing or no number; the message is for the client."""


def make_application(master: Master, scheduler_api: SchedulerApi) -> web.Application:
    """Put the endpoints together."""
    application = web.Application(client_max_size=MAX_BODY, middlewares=[_errors])
    operator = _Operator(master)
    views: dict[str, Handler] = {
        "/state": operator.show(lambda _: describe.state_json(master)),
        "/state-summary": operator.show(lambda _: describe.state_summary_json(master)),
        "/slaves": operator.show(operator.slaves),
        "/frameworks": operator.show(operator.frameworks),
        "/tasks": operator.show(operator.tasks),
        "/roles": operator.show(lambda _: describe.roles_json(master)),
        "/version": operator.show(lambda _: {"version": VERSION}),
        "/metrics/snapshot": operator.show(lambda _: describe.metrics_json(master)),
        "/health": operator.health,
        "/redirect": operator.redirect,
        "/teardown": operator.teardown,
        "/api/v1/scheduler": scheduler_api.handle,
    }
    for path, handler in views.items():
        for route in (path, f"/master{path}", f"{path}/", f"/master{path}/"):
            application.router.add_route("*", route, handler)
    application.router.add_route("*", "/", operator.page)
    files = _Files(master)
    for prefix in (r"/slave({number:\d{1,9}})", r"/slave%28{number:\d{1,9}}%29"):
        application.router.add_route("*", f"{prefix}/state", files.state)
        application.router.add_route("*", f"{prefix}/health", operator.health)
        for name, handler in files.endpoints.items():
            application.router.add_route("*", f"{prefix}/files/{name}", handler)
    return application


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in Mesos' words."""
    try:
        return await handler(request)
    except BadQueryError as exc:
        return text(400, str(exc))
    except sandbox.NoSuchFileError:
        return text(404, "")
    except web.HTTPNotFound:
        return text(404, "404 Not Found.")
    except web.HTTPRequestEntityTooLarge:
        return text(413, f"413 Payload Too Large. At most {MAX_BODY} bytes.")


def json_response(request: web.Request, value: Any) -> web.Response:
    """Answer with JSON, or JavaScript when ``?jsonp=`` asks for a call."""
    body = json.dumps(value, separators=(",", ":"))
    callback = request.query.get("jsonp")
    if callback is None:
        response = web.Response(text=body, content_type="application/json")
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
    elif _JSONP.fullmatch(callback):
        response = web.Response(text=f"{callback}({body})", content_type="text/javascript")
    else:
        raise BadQueryError("'jsonp' is not the name of a function")
    response.enable_compression()
    return response


def _number(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise BadQueryError(f"Failed to parse {name}: '{value[:50]}' is not a number\n")
    return int(value)


class _Operator:
    """The master's endpoints for people and tools."""

    def __init__(self, master: Master) -> None:
        self._master = master

    def show(self, build: Callable[[web.Request], Any]) -> Handler:
        """Make a handler that answers with JSON."""

        async def handler(request: web.Request) -> web.StreamResponse:
            return json_response(request, build(request))

        return handler

    def slaves(self, request: web.Request) -> dict[str, Any]:
        """Answer all agents, or the one that ``slave_id`` names."""
        found = describe.slaves_json(self._master)
        if (wanted := request.query.get("slave_id")) is not None:
            found["slaves"] = [slave for slave in found["slaves"] if slave["id"] == wanted]
        return found

    def frameworks(self, request: web.Request) -> dict[str, Any]:
        """Answer all frameworks, or the one that ``framework_id`` names."""
        found = describe.frameworks_json(self._master)
        if (wanted := request.query.get("framework_id")) is not None:
            for kind in ("frameworks", "completed_frameworks"):
                found[kind] = [entry for entry in found[kind] if entry["id"] == wanted]
        return found

    def tasks(self, request: web.Request) -> dict[str, Any]:
        """Answer tasks, ``limit`` of them from ``offset`` on."""
        limit = min(max(0, _number(request, "limit", 100)), _MAX_TASKS)
        offset = max(0, _number(request, "offset", 0))
        ascending = request.query.get("order") == "asc"
        return describe.tasks_json(self._master, limit, offset, ascending=ascending)

    async def health(self, request: web.Request) -> web.StreamResponse:
        """Answer that we are here."""
        return web.Response()

    async def redirect(self, request: web.Request) -> web.StreamResponse:
        """Point to the leading master, which is this one; like Mesos without a scheme."""
        location = "//{}:{}".format(*self._master.address)
        return web.Response(status=307, headers={"Location": location})

    async def teardown(self, request: web.Request) -> web.StreamResponse:
        """Remove a framework on an operator's behalf."""
        if request.method != "POST":
            return method_not_allowed(request, "POST")
        form = await request.post()
        framework_id = form.get("frameworkId")
        if not isinstance(framework_id, str):
            return text(400, "Missing 'frameworkId' query parameter")
        framework = self._master.frameworks.get(framework_id)
        if framework is None:
            return text(400, "No framework found with specified ID")
        self._master.remove_framework(framework)
        return web.Response()

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Show the cluster to people."""
        return web.Response(
            text=render(self._master),
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )


class _Files:
    """The agents' endpoints."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self.endpoints: dict[str, Handler] = {
            "browse": self.browse,
            "read": self.read,
            "download": self.download,
        }

    async def state(self, request: web.Request) -> web.StreamResponse:
        """Answer the agent's state."""
        return json_response(
            request, describe.agent_state_json(self._master, self._record(request))
        )

    async def browse(self, request: web.Request) -> web.StreamResponse:
        """List a folder of a sandbox."""
        root, path = self._locate(request)
        entries = await asyncio.to_thread(sandbox.browse, root, path, request.query["path"])
        return json_response(request, entries)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Answer a piece of a file."""
        root, path = self._locate(request)
        offset = _number(request, "offset", -1)
        length = _number(request, "length", -1)
        data, begin = await asyncio.to_thread(sandbox.read, root, path, offset, length)
        shown = sandbox.whole_characters(data).decode(errors="replace")
        return json_response(request, {"data": shown, "offset": begin})

    async def download(self, request: web.Request) -> web.StreamResponse:
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
        number = int(request.match_info["number"])
        master = self._master
        for record in (*master.agents.values(), *reversed(master.removed_agents.values())):
            if record.info.number == number:
                return record
        raise web.HTTPNotFound

    def _locate(self, request: web.Request) -> tuple[Any, Any]:
        path = request.query.get("path")
        if not path:
            raise BadQueryError("Expecting 'path=value' in query.\n")
        return sandbox.locate(self._record(request).agent, path)


def _header_name(name: str) -> str:
    """Keep of a file's name what is harmless in a header."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
