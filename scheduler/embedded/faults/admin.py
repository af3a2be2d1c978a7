"""Faults over HTTP, for people and for tests in other languages.

On loopback only, at a port of its own (the master's may be down), and with a token::

    POST   /faults          {"fault": "partition", "agent": "127.0.1.2"}
    GET    /faults          rules that may still meet somebody
    DELETE /faults          end all rules, windows and withholding
    GET    /faults/schema   JSON Schema of what may be posted
"""

from __future__ import annotations

import hmac
import json
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final, Self, TypeAlias

from aiohttp import web
from pydantic import ValidationError

from scheduler.embedded.faults import Faults
from scheduler.embedded.faults.requests import REQUEST
from scheduler.embedded.faults.rules import Rule
from scheduler.errors import ClusterError, QuantityError
from scheduler.listening import AddressSite
from scheduler.secret_files import read_secret

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

HOST: Final = "127.0.0.1"
MAX_BODY: Final = 64 * 1024
"""Bytes of a request."""


class FaultServer:
    """Serves the faults of a cluster; an async context manager.

    Parameters
    ----------
    faults
        The cluster's.
    token
        Who sends it as ``Authorization: Bearer …`` may do everything, others nothing.
    port
        Where to listen; 0 takes any that is free.
    """

    def __init__(self, faults: Faults, token: str, port: int = 0) -> None:
        self._faults = faults
        self._expected = f"Bearer {token}".encode()
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=MAX_BODY, middlewares=[self._guard])
        application.router.add_post("/faults", self._post)
        application.router.add_get("/faults", self._get)
        application.router.add_delete("/faults", self._delete)
        application.router.add_get("/faults/schema", self._schema)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = AddressSite(self._runner, HOST, self._port)
        try:
            await site.start()
        except OSError as exc:
            await self._runner.cleanup()
            raise ClusterError(f"cannot listen on {HOST}:{self._port}: {exc}") from exc
        self._port = self._runner.addresses[0][1]
        logger.info("faults are taken on %s:%d", HOST, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, self._expected):
            return web.Response(status=401, text="this needs the admin token\n")
        return await handler(request)

    async def _post(self, request: web.Request) -> web.Response:
        try:
            wanted = REQUEST.validate_json(await request.read())
            logger.warning("fault: %s", wanted.model_dump_json(exclude_defaults=True))
            told = await wanted.apply(self._faults)
        except ValidationError as exc:
            problems = exc.errors(include_url=False, include_context=False, include_input=False)
            return web.json_response({"problems": problems}, status=400)
        except (ClusterError, QuantityError) as exc:
            return web.json_response({"problems": [{"msg": str(exc)}]}, status=409)
        return web.json_response(told or {})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response({"rules": [_shown(rule) for rule in self._faults.rules()]})

    async def _delete(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({})

    async def _schema(self, request: web.Request) -> web.Response:
        return web.json_response(REQUEST.json_schema())


def read_token(path: Path) -> str:
    """Read the admin token from a file.

    Raises
    ------
    ClusterError
        If it cannot be read, others may read it, or there is none in it.
    """
    token = read_secret(path, "the admin token").strip()
    if not token:
        raise ClusterError(f"{path} holds no token: write one long random word into it")
    return token


def _shown(rule: Rule) -> dict[str, object]:
    fields = {name: value for name, value in asdict(rule).items() if value is not None}
    fields["action"] = type(getattr(rule, "action", rule)).__name__.lower()
    if fields["times"] == math.inf:
        del fields["times"]
    return json.loads(json.dumps(fields))  # type: ignore[no-any-return]
