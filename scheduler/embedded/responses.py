"""Answers over HTTP in Mesos' forms."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

_JSONP = re.compile(r"[A-Za-z_$][\w$.]{0,100}")


class BadQueryError(ValueError):
    """A query parameter that is missing or no number; the message is for the client."""


def text(status: int, body: str) -> web.Response:
    """Answer with plain text."""
    return web.Response(status=status, text=body, content_type="text/plain", charset="utf-8")


def unauthorized(realm: str) -> web.Response:
    """Answer 401 in Mesos' words."""
    response = text(401, "401 Unauthorized.")
    response.headers["WWW-Authenticate"] = f'Basic realm="{realm}"'
    return response


def method_not_allowed(request: web.Request, allowed: str) -> web.Response:
    """Answer 405 in Mesos' words."""
    body = (
        f"405 Method Not Allowed. Expecting one of {{ '{allowed}' }}, "
        f"but received '{request.method}'."
    )
    response = text(405, body)
    response.headers["Allow"] = allowed
    return response


def json_response(request: web.Request, value: Any) -> web.Response:
    """Answer with JSON, or JavaScript when ``?jsonp=`` asks for a call.

    Raises
    ------
    BadQueryError
        If that is not the name of a function.
    """
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


def number(request: web.Request, name: str, default: int) -> int:
    """Return a query parameter that is a number.

    Raises
    ------
    BadQueryError
        If it is none.
    """
    value = request.query.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise BadQueryError(f"Failed to parse {name}: '{value[:50]}' is not a number\n")
    return int(value)
