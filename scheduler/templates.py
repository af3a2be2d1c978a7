"""Templates of commands and environments, filled in from a flat namespace.

A template is text with fields in braces; literal braces are doubled. A field is looked up *as written* in a
mapping from field text to value: there is no attribute access, no indexing and no conversion, so a hostile
document can reach nothing but what stands in this table.

===============================  ====================================================================
``{task.id}``, ``{task.name}``   id of the execution; name within the graph
``{graph.id}``                   id of the physical graph
``{host}``, ``{address}``        the agent's hostname; the address at which it is reached
``{ports[katcp]}``               number of the task's own port
``{endpoint[ingest.0:katcp]}``   ``address:port`` of a port of another task (needs a PORT edge)
``{of[ingest.0:gpu[0].uuid]}``   any field of another task (needs a RESOURCES edge)
``{env[ingest.0:GROUP]}``        a variable of another task's environment (needs a RESOLVED edge)
``{cores}``, ``{core[main]}``    comma list of the pinned logical CPUs; the one of that name
``{cpuset}``                     all logical CPUs that are the task's own: held ones, too
``{numa}``                       NUMA node of the cores; empty without cores
``{gpu[0].uuid}``                also ``.device``, ``.number``, ``.name``, ``.compute_capability``,
                                 ``.ordinal`` (its number among those that CUDA sees)
``{interface[cbf].address}``     also ``.name``, ``.number``, ``.infiniband``; of several requests on one
                                 network, the first
``{nic[0].address}``             the same by the number of the request
``{volume[data].path}``          the host directory behind the volume
``{sandbox}``                    the task's own directory
``{capture_block}`` …            whatever the physical graph adds in its values
===============================  ====================================================================
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from scheduler.errors import GraphError

if TYPE_CHECKING:
    from scheduler.requests import TaskRequest

GPU_FACTS = ("uuid", "device", "number", "ordinal", "name", "compute_capability")
INTERFACE_FACTS = ("address", "name", "number", "infiniband")
COMMON_FIELDS = frozenset(
    ("task.id", "task.name", "graph.id", "host", "address", "cores", "cpuset", "numa", "sandbox")
)

VALUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""What the name of an extra value of a physical graph looks like."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@functools.lru_cache(maxsize=10_000)
def _compiled(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a template in the form of the ``%`` operator, and its fields; it is filled in again and again.

    Of one without fields, the text that it stands for.
    """
    tokens = list(_split(text))
    names = tuple(token for is_field, token in tokens if is_field)
    if not names:
        return "".join(token for _, token in tokens), ()
    form = "".join("%s" if is_field else token.replace("%", "%%") for is_field, token in tokens)
    return form, names


def _split(text: str) -> Iterator[tuple[bool, str]]:
    """Split into (is a field, text) pairs."""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if match[1] is not None:
            yield True, match[1]
        elif token in ("{{", "}}"):
            yield False, token[0]
        elif token in ("{", "}"):
            raise GraphError(
                f"{_short(text)} has a lonely {token!r} (write {token * 2!r} to mean one)"
            )
        else:
            yield False, token


def fields(text: str) -> list[str]:
    """Return the fields that a template names, in order.

    Raises
    ------
    GraphError
        If a brace has no partner.
    """
    return list(_compiled(text)[1])


def resolve(text: str, values: Mapping[str, str]) -> str:
    """Fill in a template.

    Raises
    ------
    GraphError
        If a brace has no partner, or a field is not in `values`.
    """
    form, names = _compiled(text)
    try:
        return form % tuple([values[name] for name in names]) if names else form
    except KeyError as exc:
        unknown = str(exc.args[0])[:80]
        raise GraphError(f"{_short(text)} names {{{unknown}}}, which does not exist") from None


def own_fields(request: TaskRequest) -> set[str]:
    """Return the fields that a task gets from what it asks for itself."""
    names = set(COMMON_FIELDS)
    names.update(f"ports[{port}]" for port in request.ports)
    names.update(f"core[{core}]" for core in request.cores)
    for index in range(len(request.gpus)):
        names.update(f"gpu[{index}].{fact}" for fact in GPU_FACTS)
    for index, nic in enumerate(request.nics):
        names.update(f"nic[{index}].{fact}" for fact in INTERFACE_FACTS)
        names.update(f"interface[{nic.network}].{fact}" for fact in INTERFACE_FACTS)
    names.update(f"volume[{volume.name}].path" for volume in request.volumes)
    return names


def field_of(task: str, field: str) -> str:
    """Return the field under which others know a field of a task."""
    return f"of[{task}:{field}]"


def variable_of(task: str, variable: str) -> str:
    """Return the field under which others know a variable of a task's environment."""
    return f"env[{task}:{variable}]"


def problems(text: str, known: Collection[str]) -> list[str]:
    """Say what is wrong with a template, for people; nothing, if it can be resolved from `known`."""
    try:
        unknown = [name for name in fields(text) if name not in known]
    except GraphError as exc:
        return [str(exc)]
    return [f"{_short(text)} names {{{name[:80]}}}{_advice(name, known)}" for name in unknown]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


_FOREIGN: Final = {
    "endpoint[": "port of a task that this one has a PORT",
    "of[": "field of a task that this one has a RESOURCES",
    "env[": "variable of a task that this one has a RESOLVED",
}


def _advice(name: str, known: Collection[str]) -> str:
    for start, what in _FOREIGN.items():
        if name.startswith(start):
            return f", which is no {what} edge to"
    stem = re.split(r"[\[.]", name, maxsplit=1)[0]
    near = sorted(other for other in known if re.split(r"[\[.]", other, maxsplit=1)[0] == stem)[:5]
    return ", which does not exist" + (f"; there is {{{'}, {'.join(near)}}}" if near else "")
