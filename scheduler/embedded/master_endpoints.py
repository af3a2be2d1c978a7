"""The master's endpoints for people and tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from aiohttp import web

from scheduler.embedded import describe
from scheduler.embedded.convert import convert, parse_json
from scheduler.embedded.maintenance import Machine
from scheduler.embedded.master import Master
from scheduler.embedded.model import VERSION
from scheduler.embedded.operations import Operations
from scheduler.embedded.page import render
from scheduler.embedded.responses import (
    BadQueryError,
    json_response,
    method_not_allowed,
    number,
    text,
)

_MAX_TASKS = 10_000
_MAX_MACHINES = 10_000

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class MasterEndpoints:
    """What a master answers outside the two APIs.

    Parameters
    ----------
    master
        Whom it is about.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._operations = Operations(master)

    @property
    def views(self) -> Mapping[str, Handler]:
        """Handlers by path."""
        master = self._master
        return {
            "/state": _show(lambda _: describe.state_json(master)),
            "/state-summary": _show(lambda _: describe.state_summary_json(master)),
            "/slaves": _show(self._slaves),
            "/frameworks": _show(self._frameworks),
            "/tasks": _show(self._tasks),
            "/roles": _show(lambda _: describe.roles_json(master)),
            "/quota": _show(lambda _: {}),
            "/weights": _show(lambda _: []),
            "/flags": _show(lambda _: {"flags": describe.flags(master)}),
            "/version": _show(lambda _: {"version": VERSION}),
            "/metrics/snapshot": _show(lambda _: describe.metrics_json(master)),
            "/maintenance/schedule": self._schedule,
            "/maintenance/status": _show(lambda _: master.maintenance.describe_status()),
            "/machine/down": self._machine_down,
            "/machine/up": self._machine_up,
            "/health": _health,
            "/redirect": self._redirect,
            "/teardown": self._teardown,
        }

    def _slaves(self, request: web.Request) -> dict[str, Any]:
        """Answer all agents, or the one that ``slave_id`` names."""
        found = describe.slaves_json(self._master)
        if (wanted := request.query.get("slave_id")) is not None:
            found["slaves"] = [slave for slave in found["slaves"] if slave["id"] == wanted]
        return found

    def _frameworks(self, request: web.Request) -> dict[str, Any]:
        """Answer all frameworks, or the one that ``framework_id`` names."""
        found = describe.frameworks_json(self._master)
        if (wanted := request.query.get("framework_id")) is not None:
            for kind in ("frameworks", "completed_frameworks"):
                found[kind] = [entry for entry in found[kind] if entry["id"] == wanted]
        return found

    def _tasks(self, request: web.Request) -> dict[str, Any]:
        """Answer tasks, ``limit`` of them from ``offset`` on."""
        limit = min(max(0, number(request, "limit", 100)), _MAX_TASKS)
        offset = max(0, number(request, "offset", 0))
        ascending = request.query.get("order") == "asc"
        return describe.tasks_json(self._master, limit, offset, ascending=ascending)

    async def _schedule(self, request: web.Request) -> web.StreamResponse:
        """Answer the maintenance schedule, or replace it."""
        if request.method == "GET":
            return json_response(request, self._master.maintenance.describe_schedule())
        if request.method != "POST":
            return method_not_allowed(request, "GET', 'POST")
        self._master.maintenance.schedule(convert(parse_json(await request.read()), "Schedule"))
        return web.Response()

    async def _machine_down(self, request: web.Request) -> web.StreamResponse:
        """Begin the maintenance of machines."""
        if request.method != "POST":
            return method_not_allowed(request, "POST")
        self._operations.machine_down(await _machines(request))
        return web.Response()

    async def _machine_up(self, request: web.Request) -> web.StreamResponse:
        """End the maintenance of machines."""
        if request.method != "POST":
            return method_not_allowed(request, "POST")
        self._master.maintenance.bring_up(await _machines(request))
        return web.Response()

    async def _redirect(self, request: web.Request) -> web.StreamResponse:
        """Point to the leading master, which is this one; like Mesos without a scheme."""
        location = "//{}:{}".format(*self._master.address)
        return web.Response(status=307, headers={"Location": location})

    async def _teardown(self, request: web.Request) -> web.StreamResponse:
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


def _show(build: Callable[[web.Request], Any]) -> Handler:
    """Make a handler that answers with JSON."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return json_response(request, build(request))

    return handler


async def _health(_: web.Request) -> web.StreamResponse:
    """Answer that we are here."""
    return web.Response()


async def _machines(request: web.Request) -> list[Machine]:
    """Read a list of machines."""
    value = parse_json(await request.read())
    if not isinstance(value, list):
        raise BadQueryError("Expecting a JSON array")
    if not 0 < len(value) <= _MAX_MACHINES:
        raise BadQueryError("List of machines is empty, or too long")
    return [Machine.from_mesos(convert(item, "MachineID")) for item in value]
