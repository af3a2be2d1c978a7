"""Resources and attributes as the JSON endpoints show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.embedded.model import attribute_message, ranges_text
from scheduler.embedded.pool import Pool
from scheduler.quantities import Ranges, Resources, from_millis

_ALWAYS = ("cpus", "gpus", "mem", "disk")


def resources_json(resources: Resources | Pool) -> dict[str, Any]:
    """Write resources as a plain object: numbers, and ranges as text; whoever they are reserved for."""
    if isinstance(resources, Pool):
        resources = resources.plain
    shown: dict[str, Any] = dict.fromkeys(_ALWAYS, 0.0)
    shown |= {name: from_millis(amount) for name, amount in resources.scalars.items()}
    shown |= {name: ranges_text(members) for name, members in resources.ranges.items()}
    return shown


def attributes_json(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Write attributes as a plain object."""
    shown: dict[str, Any] = {}
    for name, text in attributes.items():
        message = attribute_message(name, text)
        if message["type"] == "SCALAR":
            shown[name] = message["scalar"]["value"]
        elif message["type"] == "RANGES":
            shown[name] = ranges_text(Ranges.parse(text))
        else:
            shown[name] = text
    return shown
