"""Whether Mesos takes an agent up again with what it shall advertise now.

An agent that runs with ``--reconfiguration_policy=additive`` keeps its tasks over a restart as long as nothing
that it advertised before became less or different (Mesos' ``src/slave/compatibility.cpp``). Anything else stops
it at start, until its state, and with it all tasks, is given up: so it has to be drained first.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent_setup.errors import DiscoveryError
from agent_setup.forms import Files, Form, Message, messages
from scheduler.quantities import Ranges


def not_additive(form: Form, old: Files, new: Files) -> list[str]:
    """Return why an agent with the `old` files would not start with the `new` ones; empty if it would.

    Parameters
    ----------
    old
        What is there; without any file there is no agent yet, so anything goes.
    new
        What shall be there, as rendered in the same form.
    """
    if not old:
        return []
    try:
        attributes, resources = messages(form, old)
    except DiscoveryError as exc:
        return [f"what is there cannot be read, so it cannot be compared: {exc}"]
    new_attributes, new_resources = messages(form, new)
    return [
        *_lost(attributes, new_attributes, may_grow=False),
        *_lost(resources, new_resources, may_grow=True),
    ]


def _lost(old: list[Message], new: list[Message], *, may_grow: bool) -> Iterator[str]:
    there = {message["name"]: message for message in new}
    for message in old:
        name = message["name"]
        if name not in there:
            yield f"{name} is no longer there"
        elif not _holds(there[name], message, may_grow=may_grow):
            yield f"{name} was {_text(message)} and is {_text(there[name])}"


def _holds(new: Message, old: Message, *, may_grow: bool) -> bool:
    """Whether a value is accepted in the place of another.

    Ranges may grow, of attributes too; a scalar only if it is a resource.
    """
    if new["type"] != old["type"]:
        return False
    if old["type"] == "RANGES":
        return _ranges(new).issuperset(_ranges(old))
    if old["type"] == "SCALAR" and may_grow:
        return bool(old["scalar"]["value"] <= new["scalar"]["value"])
    return bool(_value(new) == _value(old))


def _ranges(message: Message) -> Ranges:
    return Ranges.of((r["begin"], r["end"]) for r in message["ranges"]["range"])


def _value(message: Message) -> object:
    return message[message["type"].lower()]["value"]


def _text(message: Message) -> str:
    return str(_ranges(message) if message["type"] == "RANGES" else _value(message))[:100]
