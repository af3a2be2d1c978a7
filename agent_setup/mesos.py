"""How a Mesos agent reads its options ``--attributes`` and ``--resources``.

A list is ``name:value;name:value``; a value in brackets is ranges, what looks like a number to C++ is a
scalar, anything else a text (Mesos' ``src/common/values.cpp``, ``attributes.cpp`` and stout's ``numify``). So a
text that looks like a number may not come back as it was written (``007`` as 7, ``1e3`` as 1000):
:func:`scheduler.topology.keeps` tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent_setup.errors import DiscoveryError
from scheduler.errors import QuantityError
from scheduler.quantities import Ranges
from scheduler.topology import is_number, keeps

Pair = tuple[str, str]
"""Name and value of an attribute or resource, as text."""


def joined(pairs: Iterable[Pair], separator: str = ";") -> str:
    """Write a list; Mesos takes a new line for a separator, too."""
    return separator.join(f"{name}:{value}" for name, value in pairs)


def split(text: str) -> Iterator[Pair]:
    """Read a list.

    Raises
    ------
    DiscoveryError
        If an entry has no name or no value, which stops an agent.
    """
    for token in filter(None, re.split("[;\n]", text)):
        name, _, value = token.partition(":")
        if not name or not value:
            raise DiscoveryError(f"{token[:80]!r} is not NAME:VALUE")
        yield name, value


def attribute_messages(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    """Return ``Attribute`` messages, in their JSON form, as an agent makes them.

    Raises
    ------
    DiscoveryError
        If a value is malformed, or is a text that Mesos would change.
    """
    messages = []
    for name, value in pairs:
        if not keeps(value) and not name.endswith(".compute_capability"):
            raise DiscoveryError(f"{name}={value}: Mesos takes this for a number and changes it")
        messages.append({"name": name, **_value(name, value)})
    return messages


def resource_messages(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    """Return ``Resource`` messages, in their JSON form, as an agent makes them.

    Raises
    ------
    DiscoveryError
        If a value is neither a number nor ranges.
    """
    messages = [{"name": name, **_value(name, value)} for name, value in pairs]
    for message in messages:
        if message["type"] == "TEXT":
            raise DiscoveryError(f"resource {message['name']}: neither a number nor ranges")
    return messages


def _value(name: str, text: str) -> Mapping[str, Any]:
    if text.startswith("["):
        try:
            ranges = Ranges.parse(text).intervals
        except QuantityError as exc:
            raise DiscoveryError(f"{name}: {exc}") from exc
        return {
            "type": "RANGES",
            "ranges": {"range": [{"begin": begin, "end": end} for begin, end in ranges]},
        }
    if is_number(text):
        number = float(int(text, 16)) if "x" in text.lower() else float(text)
        return {"type": "SCALAR", "scalar": {"value": number}}
    return {"type": "TEXT", "text": {"value": text}}
