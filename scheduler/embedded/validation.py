"""What a scheduler may not say: pure functions from messages to the texts that Mesos answers.

The texts are those of a master 1.12. Calls and frameworks are judged here, tasks in
:mod:`~scheduler.embedded.task_validation`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.embedded.model import FrameworkInfo

MAX_ID = 255
_MAX_DURATION = 2**63 / 1e9
"""Seconds: Mesos keeps durations as 64-bit nanoseconds."""

# Calls that carry nothing but the framework's id, or whose body may be left out.
_WITHOUT_BODY = frozenset({"TEARDOWN", "REVIVE", "SUPPRESS", "UNKNOWN"})


def validate_call(call: Mapping[str, Any], principal: str | None = None) -> str | None:
    """Return what is wrong with a converted ``Call``, None when nothing is.

    Parameters
    ----------
    call
        Result of :func:`scheduler.embedded.convert.parse`.
    principal
        Who the sender has proved to be, None without authentication.
    """
    kind = call.get("type")
    if kind is None:
        return "Expecting 'type' to be present"
    if kind == "SUBSCRIBE":
        return _validate_subscribe(call, principal)
    if "framework_id" not in call:
        return "Expecting 'framework_id' to be present"
    body = kind.lower()
    if kind not in _WITHOUT_BODY and body not in call:
        return f"Expecting '{body}' to be present"
    if kind == "ACKNOWLEDGE":
        return _validate_uuid(call["acknowledge"]["uuid"])
    if kind == "UPDATE_FRAMEWORK" and _differs(call, "update_framework"):
        return "'framework_id' differs from 'update_framework.framework_info.id'"
    return None


def _validate_subscribe(call: Mapping[str, Any], principal: str | None) -> str | None:
    if "subscribe" not in call:
        return "Expecting 'subscribe' to be present"
    if _differs(call, "subscribe"):
        return "'framework_id' differs from 'subscribe.framework_info.id'"
    claimed = call["subscribe"]["framework_info"].get("principal")
    if principal is not None and claimed is not None and claimed != principal:
        return (
            f"Authenticated principal '{principal}' does not match principal "
            f"'{claimed}' set in `FrameworkInfo`"
        )
    return None


def _differs(call: Mapping[str, Any], body: str) -> bool:
    named = call[body]["framework_info"].get("id", {}).get("value", "")
    return bool(named != call.get("framework_id", {}).get("value", ""))


def _validate_uuid(text: str) -> str | None:
    raw = base64.b64decode(text, altchars=b"-_" if set(text) & set("-_") else None)
    return None if len(raw) == 16 and any(raw) else "Not a valid UUID"


def validate_id(text: str) -> str | None:
    """Return what is wrong with an id that becomes part of a path."""
    if not text:
        return "ID must not be empty"
    if len(text) > MAX_ID:
        return f"ID must not be greater than {MAX_ID} characters"
    if text in (".", ".."):
        return f"'{text}' is disallowed"
    if any(c in "/\\" or ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        return f"'{text}' contains invalid characters"
    return None


def validate_role(role: str) -> str | None:
    """Return what is wrong with the name of a role."""
    if not role:
        return "Role names cannot be the empty string"
    if role.startswith("/"):
        return f"Role '{role}' cannot start with a slash"
    if role.endswith("/"):
        return f"Role '{role}' cannot end with a slash"
    if "//" in role:
        return f"Role '{role}' cannot contain two adjacent slashes"
    for part in role.split("/"):
        if part in (".", ".."):
            return f"Role '{role}' cannot include '{part}' as a component"
        if part == "*" and role != "*":
            return f"Role '{role}' cannot include '*' as a component"
        if part.startswith("-"):
            return f"Role component '{part}' is invalid because it starts with a dash"
        if any(c in "\x08\t\n\v\f\r " for c in part):
            return f"Role component '{part}' is invalid because it contains backspace or whitespace"
    return None


def validate_framework(
    document: Mapping[str, Any], suppressed: Sequence[str], known: FrameworkInfo | None
) -> str | None:
    """Return why a subscription ends with an ERROR event, None when it does not.

    Parameters
    ----------
    document
        The converted ``FrameworkInfo``.
    suppressed
        Roles for which no offers are wanted.
    known
        The framework of that id, where there is one already.
    """
    if problem := _validate_roles(document):
        return problem
    framework_id = document.get("id", {}).get("value", "")
    if framework_id and (problem := validate_id(framework_id)):
        return problem
    timeout = document.get("failover_timeout", 0.0)
    if not -_MAX_DURATION < timeout < _MAX_DURATION:
        return f"The framework failover_timeout ({timeout:g}) is invalid"
    if known is not None and document.get("principal") != known.principal:
        return "Changing framework's principal is not allowed."
    roles = FrameworkInfo.from_mesos(document, framework_id).roles
    if foreign := sorted(set(suppressed) - set(roles)):
        return f"Suppressed roles {{ {', '.join(foreign)} }} are not contained in the set of roles"
    return None


def _validate_roles(document: Mapping[str, Any]) -> str | None:
    capabilities = {c.get("type") for c in document.get("capabilities", [])}
    multi_role = "MULTI_ROLE" in capabilities
    roles = document.get("roles", [])
    if not multi_role:
        if roles:
            return (
                "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
            )
        if "role" in document and (problem := validate_role(document["role"])):
            return f"'FrameworkInfo.role' is not a valid role: {problem}"
        return None
    if "role" in document:
        return "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
    if repeated := sorted({role for role in roles if roles.count(role) > 1}):
        return f"'FrameworkInfo.roles' contains duplicate items: {{ {', '.join(repeated)} }}"
    for role in roles:
        if problem := validate_role(role):
            return f"'FrameworkInfo.roles' contains invalid role: {problem}"
    return None


def validate_update(known: FrameworkInfo, document: Mapping[str, Any]) -> str | None:
    """Return why an UPDATE_FRAMEWORK is refused."""
    new = FrameworkInfo.from_mesos(document, known.id)
    for name in ("principal", "user", "checkpoint"):
        before, after = getattr(known, name), getattr(new, name)
        if before != after:
            return (
                f"Updating 'FrameworkInfo.{name}' is unsupported; attempted to update "
                f"from '{_shown(before)}' to '{_shown(after)}'"
            )
    return None


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value or "")
