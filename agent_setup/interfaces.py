"""Network interfaces as the kernel knows them.

What a virtual interface (VLAN, bond) does not know itself is asked of the interfaces that it lies on.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import psutil

SYS_CLASS = Path("/sys/class")

_MAX_STACK = 4
"""Interfaces that lie on each other: a VLAN on a bond on two ports is three."""
_UNKNOWN_SPEED = 2**32 - 1
"""Some drivers write the kernel's -1, «unknown», without sign."""
_ARPHRD_INFINIBAND = 32
"""Of ``linux/if_arp.h``."""
_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) Gb/sec")
"""Of an InfiniBand port: ``100 Gb/sec (4X EDR)``."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of this machine."""

    name: str
    addresses: tuple[IPv4Address, ...]
    speed_mbps: int | None = None
    """Mbit/s; None when the driver does not say."""
    numa: int | None = None
    infiniband: tuple[str, ...] = ()
    """Device files that a task needs for ibverbs."""
    multicast_loopback: bool = True
    driver: str = ""
    """Of the kernel; empty for a virtual interface that lies on nothing."""

    @property
    def is_loopback(self) -> bool:
        """Whether it has an address of 127/8."""
        return any(address.is_loopback for address in self.addresses)


def kernel_interfaces(sys_class: Path = SYS_CLASS) -> tuple[Interface, ...]:
    """Return the interfaces that have an IPv4 address, by name."""
    addresses: dict[str, list[IPv4Address]] = {}
    for label, entries in sorted(psutil.net_if_addrs().items()):
        name = label.partition(":")[0]  # "eth0:1" is a further address of eth0
        ipv4 = (IPv4Address(e.address) for e in entries if e.family == socket.AF_INET)
        addresses.setdefault(name, []).extend(ipv4)
    return tuple(
        read_interface(sys_class, name, tuple(found)) for name, found in addresses.items() if found
    )


def read_interface(sys_class: Path, name: str, addresses: tuple[IPv4Address, ...]) -> Interface:
    """Complete an interface with what the files below ``/sys/class`` tell.

    Whether multicast that leaves by ibverbs comes back to the same interface is told only by the driver of
    Mellanox' own distribution, as «Force local loopback disable is ON» (or OFF) in
    ``settings/force_local_lb_disable``; everywhere else it is taken to come back, the hardware's default.
    """
    folder = sys_class / "net" / name
    devices = list(_devices(folder, _MAX_STACK))
    nodes = {node for device in devices if (node := _number(device / "numa_node")) is not None}
    settings = {_text(device.parent / "settings/force_local_lb_disable") for device in devices}
    return Interface(
        name=name,
        addresses=addresses,
        speed_mbps=_speed(folder, devices),
        numa=nodes.pop() if len(nodes) == 1 else None,
        infiniband=_verbs(sys_class, devices),
        multicast_loopback=not any(text.endswith(" ON") for text in settings),
        driver="+".join(sorted({(device / "driver").resolve().name for device in devices})),
    )


def _devices(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the device of an interface, or those of the interfaces that it lies on.

    They are given as ``…/net/NAME/device``, so that the interface is still known.
    """
    if (folder / "device").is_dir():
        yield folder / "device"
    elif depth > 1:
        for lower in sorted(folder.glob("lower_*")):
            yield from _devices(folder.parent / lower.name.removeprefix("lower_"), depth - 1)


def _speed(folder: Path, devices: list[Path]) -> int | None:
    """Return the speed in Mbit/s; IP over InfiniBand has none of its own, but that of its port."""
    speed = _number(folder / "speed")
    if speed not in (None, 0, _UNKNOWN_SPEED):
        return speed
    if _number(folder / "type") != _ARPHRD_INFINIBAND:
        return None
    port = (_number(folder / "dev_port") or 0) + 1
    rates = {
        float(match[1])
        for device in devices
        for path in device.glob(f"infiniband/*/ports/{port}/rate")
        if (match := _RATE.match(_text(path)))
    }
    return int(1000 * rates.pop()) if len(rates) == 1 else None


def _verbs(sys_class: Path, devices: list[Path]) -> tuple[str, ...]:
    """Return the files through which ibverbs reaches the devices of an interface.

    Each ``/sys/class/infiniband_verbs/uverbsN`` points to the device that it belongs to; so does the folder
    ``infiniband_verbs`` of the device itself, where the kernel has one. ``rdma_cm`` is what
    libraries use to find a device by its address.
    """
    wanted = {device.resolve() for device in devices}
    names = {
        entry.name
        for entry in sorted((sys_class / "infiniband_verbs").glob("uverbs*"))
        if (entry / "device").resolve() in wanted
    }
    for device in devices:
        names |= {entry.name for entry in (device / "infiniband_verbs").glob("uverbs*")}
    if names and (sys_class / "misc/rdma_cm").exists():
        names.add("rdma_cm")
    return tuple(f"/dev/infiniband/{name}" for name in sorted(names))


def _text(path: Path) -> str:
    """Return a file's text, empty where there is none or the driver refuses (as ``speed`` of a link down)."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    """Return a file's number; None for what is not one, and for the -1 by which the kernel says «unknown»."""
    text = _text(path)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
