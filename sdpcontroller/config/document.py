"""JSON text → plain data, with everything refused that JSON leaves open or that is unreasonably large."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from sdpcontroller.errors import ConfigError

MAX_BYTES = 1 << 20
"""Largest document [bytes]; one of 256 antennas has 60 000. More would hold up the event loop."""
MAX_DEPTH = 32
"""Deepest nesting of objects and lists."""


def load(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ConfigError
        If `text` is too large or not JSON in UTF-8 (with the position), is no object or nested too deep;
        if it has a key twice, NaN, infinities or numbers that become one, or control characters.
    """
    size = len(text)
    if size > MAX_BYTES:
        raise ConfigError(f"the document has {size} bytes: at most {MAX_BYTES} are read")
    document = _decode(text)
    if not isinstance(document, dict):
        raise ConfigError(f"the document is a JSON {_json_type(document)}: it must be an object")
    _check_contents(document)
    return document


def checked(document: dict[str, Any]) -> dict[str, Any]:
    """Return what was read in another way, looked at as :func:`load` does; raises as that."""
    _check_contents(document)
    return document


def _decode(text: str | bytes) -> Any:
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite_float,
            parse_int=_short_int,
        )
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the document is not UTF-8: byte {error.start}: {error.reason}"
        ) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"the document is not JSON: {where}: {error.msg}") from None
    except RecursionError:
        raise ConfigError(f"the document is nested deeper than {MAX_DEPTH}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # the idiom relies on None
        raise ConfigError(f"the key {twice[:80]!r} stands twice in one object")
    return result


def _no_constant(word: str) -> Any:
    raise ConfigError(f"{word} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ConfigError(f"the number {text[:80]} is too large")
    return value


def _short_int(text: str) -> int:
    if len(text) > 20:
        raise ConfigError(f"the number {text[:80]} is too large")
    return int(text)


def _json_type(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _check_contents(document: Any) -> None:
    """Refuse deep nesting, and strings that cannot be passed on to KATCP, command lines and file names."""
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        for value in level:
            if isinstance(value, str) and not _is_plain(value):
                raise ConfigError(f"the string {value[:80]!r} has control or surrogate characters")
        if not level:
            return
    raise ConfigError(f"the document is nested deeper than {MAX_DEPTH}")


def _is_plain(text: str) -> bool:
    if text.isprintable():
        return True
    return not any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text)


def merge(document: Any, override: Any) -> Any:
    """Merge as RFC 7386 (JSON merge patch) has it: objects by member, null deletes, all else replaces."""
    if not isinstance(override, Mapping):
        return override
    merged = dict(document) if isinstance(document, Mapping) else {}
    for key, value in override.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged
