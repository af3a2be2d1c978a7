"""The parts of a machine, as frozen data that checks itself.

What is only shown to people (names of models, versions) is brought into Mesos' alphabet when it is stored;
what tasks are found by or use (networks, paths, addresses) is refused when it is outside that alphabet,
because a changed path is another path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import NoReturn

from scheduler.errors import TopologyError
from scheduler.quantities import Ranges

MAX_CPU = 65535
"""Largest logical CPU number that is believed (Linux' own limit, ``NR_CPUS``, is 8192)."""

_OUTSIDE = re.compile(r"[^A-Za-z0-9_/.\-]")
_TEXT = re.compile(r"[A-Za-z0-9_/.\-]{1,255}")
_NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(inf|infinity|nan(\(.*\))?)",
    re.IGNORECASE,
)
_HEXADECIMAL = re.compile(r"-?0x[0-9a-f]+", re.IGNORECASE)
_CANONICAL = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{0,2}[1-9])?")
"""Numbers that are written again as they were: not negative, to three decimals, without superfluous zeros."""


def refuse(attribute: str, value: object, rule: str) -> NoReturn:
    """Raise a :exc:`TopologyError` that names the attribute, its value and the rule."""
    text = str(value)
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    raise TopologyError(f"{attribute}={shown}: {rule}")


def keeps(text: str) -> bool:
    """Whether a text comes back from Mesos as it was written: what looks like a number may not."""
    return _CANONICAL.fullmatch(text) is not None or not is_number(text)


def is_number(text: str) -> bool:
    """Whether Mesos takes an attribute for a number (stout's ``numify``)."""
    return bool(_NUMBER.fullmatch(text) or _HEXADECIMAL.fullmatch(text))


def mesos_text(text: str) -> str:
    """Replace by ``-`` what Mesos does not allow in a text attribute (``A-Z a-z 0-9 _ / . -``)."""
    return _OUTSIDE.sub("-", text)


def require_text(attribute: str, value: str) -> None:
    """Refuse a value that is empty, too long or outside Mesos' alphabet."""
    if not _TEXT.fullmatch(value):
        refuse(attribute, value, "expected 1 to 255 of the characters A-Z a-z 0-9 _ / . -")
    if not keeps(value):
        refuse(attribute, value, "Mesos takes this for a number and changes it")


def _require_path(attribute: str, value: str) -> None:
    require_text(attribute, value)
    if not value.startswith("/"):
        refuse(attribute, value, "expected an absolute path")


def _require_size(attribute: str, value: int | None) -> None:
    if value is not None and not 0 <= value < 10**12:
        refuse(attribute, value, "expected a whole number from 0 to 999999999999")


def _show(part: object, name: str, value: str | None) -> None:
    """Store a text that is only shown, in Mesos' alphabet, and such that Mesos takes it for no number."""
    if value is not None:
        shown = mesos_text(value)[:254]
        object.__setattr__(part, name, shown if keeps(shown) else f"v{shown}")
        require_text(name, getattr(part, name))


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA node: the logical CPUs that this agent hands out, and the memory beside them."""

    cores: Ranges
    mem_mib: int | None = None
    """Capacity in MiB; None when the agent does not count memory by node."""

    def __post_init__(self) -> None:
        if self.cores and self.cores.intervals[-1][1] > MAX_CPU:
            refuse("cores", self.cores, f"the largest CPU number is {MAX_CPU}")
        _require_size("mem", self.mem_mib)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU; tasks draw shares of it."""

    name: str
    uuid: str | None = None
    device: str | None = None
    """Path of the device file."""
    numa: int | None = None
    """NUMA node that it hangs on; None when unknown."""
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None
    mem_mib: int | None = None
    """Capacity in MiB; None when the agent does not say."""

    def __post_init__(self) -> None:
        for field in ("name", "uuid", "driver"):
            _show(self, field, getattr(self, field))
        if self.device is not None:
            _require_path("device", self.device)
        if self.compute_capability is not None:
            major, minor = self.compute_capability
            if not (0 <= major <= 999 and 0 <= minor <= 9):
                refuse("compute_capability", f"{major}.{minor}", "expected e.g. 8.0")
        _require_size("mem", self.mem_mib)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network interface; tasks draw bandwidth of it."""

    name: str
    networks: tuple[str, ...]
    """Logical networks that it reaches."""
    address: str
    """IPv4 address."""
    numa: int | None = None
    """NUMA node that it hangs on; None when unknown."""
    infiniband: tuple[str, ...] = ()
    """Device files for ibverbs."""
    multicast_loopback: bool = True
    """Whether multicast sent by ibverbs is seen by receivers on the same interface."""
    speed_mbps: int | None = None
    """Capacity of each direction in Mbit/s; None when the agent does not say."""

    def __post_init__(self) -> None:
        require_text("name", self.name)
        if not self.networks or len(set(self.networks)) != len(self.networks):
            refuse("network", ",".join(self.networks), "expected one or more, each once")
        for network in self.networks:
            require_text("network", network)
        try:
            IPv4Address(self.address)
        except AddressValueError:
            refuse("address", self.address, "expected an IPv4 address")
        for device in self.infiniband:
            _require_path("infiniband", device)
        _require_size("speed", self.speed_mbps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A directory of the host that tasks may ask for by name."""

    name: str
    path: str
    numa: int | None = None
    """NUMA node that its disk hangs on; None when unknown."""
    disk_mib: int | None = None
    """Capacity in MiB; None when its space is not counted."""

    def __post_init__(self) -> None:
        require_text("name", self.name)
        _require_path("path", self.path)
        _require_size("disk", self.disk_mib)
