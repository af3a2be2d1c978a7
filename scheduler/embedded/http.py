"""The HTTP server of the embedded cluster: one for the master and all its agents.

The master's endpoints have no prefix or ``/master``, an agent's ``/slave(k)``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Middleware

from scheduler.embedded import sandbox
from scheduler.embedded.agent_endpoints import AgentEndpoints
from scheduler.embedded.authentication import AGENT_REALM, READONLY_REALM, Credentials
from scheduler.embedded.convert import ConversionError
from scheduler.embedded.maintenance import MaintenanceError
from scheduler.embedded.master import Master
from scheduler.embedded.master_endpoints import MasterEndpoints
from scheduler.embedded.operator_api import OperatorApi
from scheduler.embedded.responses import BadQueryError, text, unauthorized
from scheduler.embedded.scheduler_api import SchedulerApi

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request."""
OPEN = frozenset({"/api/v1/scheduler", "/health", "/redirect"})
"""Paths that ask for their own authentication, or for none."""

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_application(
    master: Master,
    scheduler_api: SchedulerApi,
    operator_api: OperatorApi | None = None,
    credentials: Credentials | None = None,
) -> web.Application:
    """Put the endpoints together.

    Parameters
    ----------
    master
        Whose they are.
    scheduler_api, operator_api
        The two APIs.
    credentials
        Of those who may use everything but the scheduler API; None: everybody may.
    """
    operator_api = operator_api or OperatorApi(master)
    application = web.Application(
        client_max_size=MAX_BODY, middlewares=[_errors, _readiness(master), _guard(credentials)]
    )
    endpoints = MasterEndpoints(master)
    views = {
        **endpoints.views,
        "/api/v1": operator_api.handle,
        "/api/v1/scheduler": scheduler_api.handle,
    }
    for path, handler in views.items():
        for route in (path, f"/master{path}", f"{path}/", f"/master{path}/"):
            application.router.add_route("*", route, handler)
    application.router.add_route("*", "/", endpoints.page)
    _add_agents(application, AgentEndpoints(master).views)
    return application


def _add_agents(application: web.Application, views: Mapping[str, Handler]) -> None:
    for prefix in (r"/slave({number:\d{1,9}})", r"/slave%28{number:\d{1,9}}%29"):
        for path, handler in views.items():
            application.router.add_route("*", f"{prefix}{path}", handler)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in Mesos' words."""
    try:
        return await handler(request)
    except (BadQueryError, ConversionError, MaintenanceError) as exc:
        return text(400, str(exc))
    except sandbox.NoSuchFileError:
        return text(404, "")
    except web.HTTPNotFound:
        return text(404, "404 Not Found.")
    except web.HTTPRequestEntityTooLarge:
        return text(413, f"413 Payload Too Large. At most {MAX_BODY} bytes.")


def _readiness(master: Master) -> Middleware:
    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer 503 while the master reads its registry."""
        if master.clock.monotonic() < master.ready_at:
            return text(503, "Master has not finished recovery")
        return await handler(request)

    return answer


def _guard(credentials: Credentials | None) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ask everybody who they are, when there are credentials."""
        path = request.path.removeprefix("/master").rstrip("/")
        if credentials is None or path in OPEN:
            return await handler(request)
        if credentials.principal(request.headers.get("Authorization")) is None:
            return unauthorized(AGENT_REALM if path.startswith("/slave(") else READONLY_REALM)
        return await handler(request)

    return check
