"""The files from which an agent takes what it advertises, in three forms.

=========== ====================================== ====================================================
form        files                                  read by
=========== ====================================== ====================================================
directory   ``attributes/NAME``,                   the start script of Mesos' packages
            ``resources/NAME``                     (``/etc/mesos-slave``)
json        ``attributes``, ``resources.json``     ``--attributes=file://…``, ``--resources=file://…``
environment one file                               systemd: ``EnvironmentFile=``
=========== ====================================== ====================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

from agent_setup import mesos
from agent_setup.advertise import Advertisement, as_scheduler
from agent_setup.errors import DiscoveryError
from scheduler.topology import AgentSnapshot

Files = Mapping[str, str]
"""Text by path relative to where the form is written; one file alone has the path ``""``."""

MAX_ARGUMENT: Final = 128 * 1024 - 256
"""Bytes of one argument or environment variable that Linux hands to a program (``MAX_ARG_STRLEN``), less its
name."""

_OURS: Final = re.compile(
    r"sdp\..+|katsdpcontroller\..+|(numa|gpu|nic|volume)\.[0-9]+\..+|cpus|mem|disk|ports|cores"
)
_VARIABLE = re.compile(r'MESOS_(ATTRIBUTES|RESOURCES)="([^"\\$\n]*)"')


class Form(Enum):
    """How attributes and resources are written."""

    DIRECTORY = "directory"
    JSON = "json"
    ENVIRONMENT = "environment"

    @property
    def default_path(self) -> Path:
        """Where the files are written, unless told otherwise."""
        return Path(
            {
                Form.DIRECTORY: "/etc/mesos-slave",
                Form.JSON: "/etc/sdp-agent",
                Form.ENVIRONMENT: "/etc/default/sdp-agent",
            }[self]
        )


def is_ours(name: str) -> bool:
    """Whether a file of the directory form, by its name, is one that may be replaced or removed."""
    return _OURS.fullmatch(name) is not None


def render(form: Form, advertisement: Advertisement) -> Files:
    """Write an advertisement.

    Raises
    ------
    DiscoveryError
        If it is too long for an argument of a program.
    """
    attributes, resources = advertisement.attribute_pairs(), advertisement.resource_pairs()
    if form is Form.JSON:
        lines = (json.dumps(message) for message in advertisement.resources.to_mesos())
        return {
            "attributes": mesos.joined(attributes, "\n") + "\n",
            "resources.json": "[\n" + ",\n".join(lines) + "\n]\n",
        }
    texts = {"ATTRIBUTES": mesos.joined(attributes), "RESOURCES": mesos.joined(resources)}
    for name, text in texts.items():
        if len(text) > MAX_ARGUMENT:
            raise DiscoveryError(
                f"{len(text)} bytes of {name.lower()} are more than one argument holds "
                f"({MAX_ARGUMENT}): use the form json"
            )
    if form is Form.ENVIRONMENT:
        return {"": "".join(f'MESOS_{name}="{text}"\n' for name, text in texts.items())}
    return {f"attributes/{name}": f"{value}\n" for name, value in attributes} | {
        f"resources/{name}": f"{value}\n" for name, value in resources
    }


def read(form: Form, files: Files) -> AgentSnapshot:
    """Return the agent that is started from files, as the scheduler sees it.

    Raises
    ------
    DiscoveryError
        If the files are malformed, or the scheduler would refuse the agent.
    """
    attributes, resources = _READERS[form](files)
    return as_scheduler(attributes, resources)


def messages(form: Form, files: Files) -> tuple[list[Message], list[Message]]:
    """Return the ``Attribute`` and ``Resource`` messages that an agent makes of files.

    Raises
    ------
    DiscoveryError
        If an agent would not start with them.
    """
    attributes, resources = _READERS[form](files)
    return [*mesos.attribute_messages(attributes)], [*resources]


Message = Mapping[str, Any]
"""A message of Mesos in its JSON form."""
Read = tuple[list[mesos.Pair], list[dict[str, Any]]]


def _read_directory(files: Files) -> Read:
    pairs: dict[str, list[mesos.Pair]] = {"attributes": [], "resources": []}
    for path, text in files.items():
        kind, _, name = path.partition("/")
        pairs[kind].append((name, text.strip()))
    return pairs["attributes"], mesos.resource_messages(pairs["resources"])


def _read_json(files: Files) -> Read:
    try:
        resources = json.loads(files["resources.json"])
        attributes = files["attributes"]
    except (KeyError, ValueError, RecursionError) as exc:
        raise DiscoveryError(f"resources.json and attributes are not as written: {exc}") from exc
    return list(mesos.split(attributes)), resources


def _read_environment(files: Files) -> Read:
    values = {m[1]: m[2] for m in map(_VARIABLE.fullmatch, files[""].splitlines()) if m}
    if set(values) != {"ATTRIBUTES", "RESOURCES"}:
        raise DiscoveryError("the file does not set MESOS_ATTRIBUTES and MESOS_RESOURCES")
    resources = mesos.resource_messages(mesos.split(values["RESOURCES"]))
    return list(mesos.split(values["ATTRIBUTES"])), resources


_READERS: Final = {
    Form.DIRECTORY: _read_directory,
    Form.JSON: _read_json,
    Form.ENVIRONMENT: _read_environment,
}
