"""From the bytes of a request to a checked JSON document, with the errors that Mesos answers.

Mesos turns JSON into protobuf: unknown fields and unknown enumerators are dropped silently, a value of the
wrong JSON type and a missing required field are refused by name.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

from scheduler.embedded.schema import ENUMS, MESSAGES, Field

Document: TypeAlias = dict[str, Any]

_MAX_DEPTH = 100
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=_-]")
_MAX_INT = 2**64


def _usual(field: Field) -> type | None:
    """Return the type of values that need no closer look: text, finite numbers, other messages."""
    if field.repeated:
        return None
    if field.kind in MESSAGES:
        return dict
    return {"string": str, "double": float}.get(field.kind)


def _demanding(message: str, seen: frozenset[str] = frozenset()) -> bool:
    """Whether a field can be missing in a message, or in one that it may hold."""
    if message in seen:
        return False
    return any(
        field.required or (field.kind in MESSAGES and _demanding(field.kind, seen | {message}))
        for field in MESSAGES[message].values()
    )


_PLANS = {
    message: {field.name: (field, _usual(field)) for field in fields.values()}
    for message, fields in MESSAGES.items()
}
_DEMANDS = {
    message: (
        [field.name for field in fields.values() if field.required],
        [f for f in fields.values() if f.kind in MESSAGES and _demanding(f.kind)],
    )
    for message, fields in MESSAGES.items()
}
"""Fields of each message that are required, and those that hold messages in which one is."""


class ConversionError(ValueError):
    """The text to answer with status 400."""


def parse(body: bytes, message: str, *, what: str = "Call") -> Document:
    """Read one message.

    Parameters
    ----------
    body
        What was sent.
    message
        Key of :data:`~scheduler.embedded.schema.MESSAGES`.
    what
        How error texts call the message.

    Raises
    ------
    ConversionError
        In Mesos' words, as recorded from a master 1.12.
    """
    value = parse_json(body)
    try:
        return convert(value, message)
    except ConversionError as exc:
        raise ConversionError(f"Failed to convert JSON into {what} protobuf: {exc}") from None


def convert(value: Any, message: str) -> Document:
    """Check one message that has been read already.

    Raises
    ------
    ConversionError
        In Mesos' words.
    """
    if not isinstance(value, dict):
        raise ConversionError("Expecting a JSON object")
    document = _convert_message(value, message, 0)
    if missing := list(_missing(document, message, "")):
        raise ConversionError(f"Missing required fields: {', '.join(missing)}")
    return document


def parse_json(body: bytes) -> Any:
    """Read JSON.

    Raises
    ------
    ConversionError
        In Mesos' words.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        _syntax_error(body[: exc.start].decode(), "")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        _syntax_error(text[: exc.pos], text[exc.pos :])
    except (ValueError, RecursionError) as exc:  # digits without end, nesting without end
        raise ConversionError(f"Failed to parse body into JSON: {str(exc)[:100]}") from None


def _syntax_error(before: str, rest: str) -> NoReturn:
    near = rest.split("\n", 1)[0][:200]
    line = before.count("\n") + 1
    raise ConversionError(
        f"Failed to parse body into JSON: syntax error at line {line} near: {near}"
    ) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if math.isfinite(value := float(text)):
        return value
    raise ValueError("a number is out of range")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _convert_message(value: Mapping[str, Any], message: str, depth: int) -> Document:
    if depth > _MAX_DEPTH:
        raise ConversionError("Nested too deeply")
    document: Document = {}
    plan = _PLANS[message]
    for name, given in value.items():
        if given is None or name not in plan:
            continue
        field, usual = plan[name]
        found = type(given)
        if found is usual:  # the three kinds that nearly everything is made of
            if usual is dict:
                document[name] = _convert_message(given, field.kind, depth + 1)
                continue
            if usual is float or given.isascii():
                document[name] = given
                continue
        converted = _convert_field(given, field, depth)
        if converted is not None:
            document[name] = converted
    return document


def _convert_field(given: Any, field: Field, depth: int) -> Any:
    if not field.repeated:
        return _convert(given, field, depth)
    if not isinstance(given, list):
        _unexpected(given, field)
    items = (_convert(item, field, depth) for item in given)
    return [item for item in items if item is not None]


def _convert(given: Any, field: Field, depth: int) -> Any:
    """Return the value, or None for an enumerator that is not known."""
    kind = field.kind
    if kind in MESSAGES:
        return _convert_message(_typed(given, dict, field), kind, depth + 1)
    if kind in ENUMS:
        name = _typed(given, str, field)
        return name if name in ENUMS[kind] else None
    if kind in ("double", "int"):
        return _number(given, field)
    if kind == "bool":
        return _typed(given, bool, field)
    if kind == "any":
        return given
    text = _text(_typed(given, str, field), field)
    return _base64(text, field) if kind == "bytes" else text


def _typed(given: Any, wanted: type, field: Field) -> Any:
    if not isinstance(given, wanted):
        _unexpected(given, field)
    return given


def _text(text: str, field: Field) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no UTF-8 can carry it on
        raise ConversionError(f"Not valid Unicode in field '{field.name}'") from None
    return text


def _number(given: Any, field: Field) -> int | float:
    """Numbers may come as text, as protobuf's own JSON writes 64-bit integers."""
    if isinstance(given, str):
        try:
            given = float(given) if field.kind == "double" else int(given)
        except ValueError:
            _unexpected(given, field)
    if isinstance(given, bool) or not isinstance(given, int | float):
        _unexpected(given, field)
    if not -_MAX_INT < given < _MAX_INT and field.kind == "int":
        _unexpected(given, field)
    try:
        return int(given) if field.kind == "int" else _finite(repr(float(given)))
    except (OverflowError, ValueError):
        raise ConversionError(f"Number out of range for field '{field.name}'") from None


def _base64(text: str, field: Field) -> str:
    bad = _NOT_BASE64.search(text)
    try:
        if bad is None:
            base64.b64decode(text, validate=True)
            return text
        problem = f"Invalid character '{bad[0]}'"
    except binascii.Error as exc:
        problem = str(exc)
    raise ConversionError(f"Failed to base64 decode bytes field '{field.name}': {problem}")


def _unexpected(given: Any, field: Field) -> NoReturn:
    kinds = {str: "string", bool: "boolean", list: "array", dict: "object"}
    kind = kinds.get(type(given), "number")
    raise ConversionError(f"Not expecting a JSON {kind} for field '{field.name}'")


def _missing(document: Mapping[str, Any], message: str, prefix: str) -> Iterator[str]:
    """Yield paths of required fields that are not there, as protobuf lists them."""
    required, nested = _DEMANDS[message]
    for name in required:
        if name not in document:
            yield prefix + name
    for field in nested:
        if field.name not in document:
            continue
        if not field.repeated:
            yield from _missing(document[field.name], field.kind, f"{prefix}{field.name}.")
            continue
        for index, item in enumerate(document[field.name]):
            yield from _missing(item, field.kind, f"{prefix}{field.name}[{index}].")
