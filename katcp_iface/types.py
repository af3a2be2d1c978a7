"""KATCP types of sensors: enumerations whose words are fixed, and such that only a task knows."""

from __future__ import annotations

import enum
import functools
import ipaddress
from typing import Any

import aiokatcp

from sdpcontroller.control import CaptureBlockState, ProductState

__all__ = [
    "CaptureBlockState",
    "MesosWord",
    "ProductState",
    "SystemWord",
    "TargetWord",
    "TaskWord",
    "address",
    "discrete",
    "python_type",
    "word",
]


class SystemWord(enum.Enum):
    """Reported state of the whole; upper case, as it is commanded."""

    INIT = "INIT"
    ON = "ON"
    DISABLE = "DISABLE"
    STANDBY = "STANDBY"
    OFF = "OFF"
    ALARM = "ALARM"
    FAULT = "FAULT"
    UNKNOWN = "UNKNOWN"

    @property
    def katcp_value(self) -> bytes:
        """The word on the wire; aiokatcp would write it in lower case."""
        return self.value.encode()


class TargetWord(enum.Enum):
    """Commanded state of the whole."""

    ON = "ON"
    DISABLE = "DISABLE"
    STANDBY = "STANDBY"
    OFF = "OFF"
    UNKNOWN = "UNKNOWN"

    @property
    def katcp_value(self) -> bytes:
        """The word on the wire."""
        return self.value.encode()


class MesosWord(enum.Enum):
    """The framework's link to the cluster."""

    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    LOST = "lost"
    UNKNOWN = "unknown"


class TaskWord(enum.Enum):
    """States of a task, as its state machine calls them."""

    PLANNED = "planned"
    PLACED = "placed"
    LAUNCHING = "launching"
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    DEAD = "dead"
    UNKNOWN = "unknown"


def word(kind: type[enum.Enum], text: str) -> enum.Enum:
    """Return the member for a word, or ``UNKNOWN`` where a record has a word that KATCP was not told of."""
    try:
        return kind(text)
    except ValueError:
        return kind["UNKNOWN"]


@functools.lru_cache(maxsize=1024)
def discrete(words: tuple[str, ...]) -> type[enum.Enum]:
    """Make an enumeration whose members are these words on the wire."""

    class Discrete(enum.Enum):
        @property
        def katcp_value(self) -> bytes:
            return str(self.value).encode()

    members = {f"word_{i}": text for i, text in enumerate(dict.fromkeys(words))}
    # A class with members cannot be subclassed, one without can: the functional form needs it.
    made: Any = Discrete
    kind: type[enum.Enum] = made("Discrete", members)
    return kind


_PYTHON_TYPES: dict[str, type] = {
    "integer": int,
    "float": float,
    "boolean": bool,
    "string": str,
    "address": aiokatcp.Address,
    "timestamp": aiokatcp.Timestamp,
}


def python_type(type_name: str, params: tuple[str, ...]) -> type:
    """Return the Python type of a sensor, from its KATCP type; text for types that KATCP has not."""
    if type_name == "discrete" and params:
        return discrete(params)
    return _PYTHON_TYPES.get(type_name, str)


def address(host: str, port: int) -> aiokatcp.Address | None:
    """Return an endpoint as KATCP's address, or None: KATCP knows IP addresses only, no host names."""
    try:
        return aiokatcp.Address(ipaddress.ip_address(host), port)
    except ValueError:
        return None
