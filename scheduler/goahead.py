"""The HTTP endpoint that waiting containers hang on, and the wrapper that they run.

A task that depends on others is started at once, but its command is run by a small shell script
(``goahead_wrapper.sh``) that asks ``GET /tasks/{task_id}/go-ahead`` until it may go on:

========  =========================================================================================
answer    meaning
========  =========================================================================================
200       go; the body is one line of JSON, ``{"verdict": "go", "values": {…}}``, with the late-bound
          values that the program finds in ``SDP_GO_AHEAD``
204       not yet: ask again
403       the token is not the task's
404       no such task here (yet), or this controller does not lead: ask again, or another one
410       it will never go: end
429       too many questions at a time: ask again later
========  =========================================================================================

A client that takes no secret but on its command line, or does not show the body of an error, asks by POST, with
the token in a form (``token=…``). It is always answered with 200, and the verdict says all: ``go``, ``not yet``
(for 204), ``denied``, ``unknown``, ``gone``, ``later``.

The question may be asked any number of times and is always answered alike (a controller that takes over serves
the same paths). The token comes to the wrapper through the environment, never on a command line, and
does not reach the program. Over TLS, the wrapper asks only who proves to be a controller, by certificates that
it was given through its environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import secrets
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

from aiohttp import web

from scheduler.errors import LaunchError
from scheduler.https import site
from scheduler.listening import begin
from scheduler.tls import GoAheadTls

POLL_SECONDS: Final = 20.0
"""How long a question is kept open before it is answered with 204."""
MAX_POLLS: Final = 4
"""Questions of one task that may be open at a time."""
MAX_VALUES: Final = 16 * 1024
"""Bytes of late-bound values; they travel in one environment variable."""
TOKEN_ENV: Final = "SDP_GO_AHEAD_TOKEN"  # noqa: S105 - its name, not its value
URLS_ENV: Final = "SDP_GO_AHEAD_URLS"
DEADLINE_ENV: Final = "SDP_GO_AHEAD_DEADLINE"
TRUST_ENV: Final = "SDP_GO_AHEAD_CA"
UNVERIFIED_ENV: Final = "SDP_GO_AHEAD_UNVERIFIED"


@functools.cache
def wrapper_script() -> str:
    """Return the shell script that waits for the go-ahead and then becomes the program.

    Its comments are left out: every waiting task has it in its command.
    """
    text = (resources.files("scheduler") / "goahead_wrapper.sh").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if line and not line.lstrip().startswith("#"))
    return "\n".join(lines) + "\n"


DIGEST: Final = "sha256:"
"""How the digest of a secret begins; no secret has a colon."""


def digest(token: str) -> str:
    """Return what tells whether somebody has a secret, and is none itself."""
    return DIGEST + hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """Return a fresh secret for one task."""
    return secrets.token_urlsafe(32)


@dataclass(slots=True, eq=False)
class _Gate:
    """One task's way through."""

    token: str
    """The secret, or its :func:`digest` where that is all that is left of it."""
    answer: str | None = None
    """The body of the 200, once it may go."""
    closed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    polls: int = 0

    @property
    def decided(self) -> bool:
        """Whether its question has an answer that stays."""
        return self.closed or self.answer is not None


class GoAhead:
    """Serves the go-ahead of all waiting tasks.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one.
    poll_seconds
        How long a question is kept open.
    may_act
        Whether anything may be decided here at the moment: another controller may go on with the launch.
        None: it always may.
    tls
        Certificate and key; None: plain HTTP.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        poll_seconds: float = POLL_SECONDS,
        may_act: Callable[[], bool] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._tls = tls
        self._poll_seconds = poll_seconds
        self._may_act = may_act
        self._gates: dict[str, _Gate] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to serve.

        Raises
        ------
        OSError
            If the address cannot be listened on.
        """
        application = web.Application(client_max_size=1024)
        application.router.add_get("/tasks/{task_id}/go-ahead", self._ask)
        application.router.add_post("/tasks/{task_id}/go-ahead", self._ask_by_form)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await begin(site(self._runner, self._host, self._port, self._tls).start(), self.stop)
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End serving; open questions are cut off, and the wrappers ask again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def base_url(self) -> str:
        """Where it is served; of the address it listens on, which may not be the one to advertise."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._port}"

    def open(self, task_id: str, token: str) -> None:
        """Let a task wait here."""
        self._gates.setdefault(task_id, _Gate(token))

    def waiting(self, task_id: str) -> int:
        """Return how many questions of a task are open."""
        gate = self._gates.get(task_id)
        return 0 if gate is None else gate.polls

    def let_through(self, task_id: str, values: Mapping[str, str] | None = None) -> None:
        """Let a task go; a second time, nothing changes.

        Raises
        ------
        LaunchError
            If the values are too many.
        """
        gate = self._gates.get(task_id)
        if gate is None or gate.decided:
            return
        answer = json.dumps({"verdict": "go", "values": dict(values or {})})
        if len(answer) > MAX_VALUES:
            raise LaunchError(f"{task_id}: late-bound values of more than {MAX_VALUES} bytes")
        gate.answer = answer
        gate.changed.set()

    def close(self, task_id: str) -> None:
        """Say that a task will never go (any more)."""
        if (gate := self._gates.get(task_id)) is not None:
            gate.closed = True
            gate.changed.set()

    def forget(self, task_id: str) -> None:
        """Know nothing of a task any more."""
        self.close(task_id)
        self._gates.pop(task_id, None)

    async def _ask(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else ""
        status, body = await self._decide(request.match_info["task_id"], token)
        if status == 204:
            return web.Response(status=status)
        return web.Response(status=status, text=body + "\n", content_type="application/json")

    async def _ask_by_form(self, request: web.Request) -> web.Response:
        token = (await request.post()).get("token")
        told = token if isinstance(token, str) else ""
        _, body = await self._decide(request.match_info["task_id"], told)
        return web.Response(text=body + "\n", content_type="application/json")

    async def _decide(self, task_id: str, token: str) -> tuple[int, str]:
        """Return status and body of the answer, when there is one or the question was open long enough."""
        gate = self._gates.get(task_id)
        if gate is None:
            return 404, _verdict("unknown")
        if not _same(token.strip(), gate.token):
            return 403, _verdict("denied")
        if not gate.decided and gate.polls >= MAX_POLLS:
            return 429, _verdict("later")
        await self._wait(gate)
        if self._may_act is not None and not self._may_act():
            return 404, _verdict("unknown")
        if gate.closed:
            return 410, _verdict("gone")
        if gate.answer is None:
            return 204, _verdict("not yet")
        return 200, gate.answer

    async def _wait(self, gate: _Gate) -> None:
        gate.polls += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await gate.changed.wait()
        finally:
            gate.polls -= 1


def _same(told: str, known: str) -> bool:
    """Whether somebody told the secret that is known, or of which the digest is."""
    told = digest(told) if known.startswith(DIGEST) else told
    return secrets.compare_digest(told.encode(), known.encode())


def _verdict(verdict: str) -> str:
    return json.dumps({"verdict": verdict})


def wrapped(command: Sequence[str]) -> list[str]:
    """Return the command that waits for the go-ahead and then becomes `command`."""
    return ["/bin/sh", "-c", wrapper_script(), "go-ahead", *command]


def wrapper_environment(
    task_id: str,
    token: str,
    bases: Sequence[str],
    deadline: float,
    tls: GoAheadTls | None = None,
) -> dict[str, str]:
    """Return what the wrapper finds in its environment.

    Parameters
    ----------
    bases
        Base URLs of the controllers, any of which may answer.
    deadline
        Seconds after which the wrapper gives up.
    tls
        Whom to believe at an address that begins with ``https``.
    """
    environment = {
        TOKEN_ENV: token,
        URLS_ENV: " ".join(f"{base.rstrip('/')}/tasks/{task_id}/go-ahead" for base in bases),
        DEADLINE_ENV: str(int(deadline)),
    }
    if (
        tls is not None and tls.trust
    ):  # in one line: files of environments have one for each variable
        environment[TRUST_ENV] = ",".join(tls.trust.splitlines())
    if tls is not None and tls.unverified:
        environment[UNVERIFIED_ENV] = "yes"
    return environment
