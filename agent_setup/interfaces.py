"""Network interfaces as the kernel knows them, matched to the logical networks that they serve."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import psutil

from agent_setup.errors import DiscoveryError
from scheduler.errors import TopologyError
from scheduler.topology import Nic

SYS_NET = Path("/sys/class/net")
LOOPBACK_MBPS = 10_000
"""Nominal speed of a loopback interface, which has none of its own, Mbit/s."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of this machine."""

    name: str
    addresses: tuple[IPv4Address, ...]
    speed_mbps: int | None = None
    """Mbit/s; None when the driver does not say."""
    numa: int | None = None
    infiniband: tuple[str, ...] = ()
    multicast_loopback: bool = True

    @property
    def is_loopback(self) -> bool:
        """Whether it has an address of 127/8."""
        return any(address.is_loopback for address in self.addresses)


def kernel_interfaces(sys_net: Path = SYS_NET) -> tuple[Interface, ...]:
    """Return the interfaces that have an IPv4 address, by name."""
    found = []
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        ipv4 = tuple(IPv4Address(a.address) for a in addresses if a.family == socket.AF_INET)
        if ipv4:
            found.append(read_interface(sys_net / name, ipv4))
    return tuple(found)


def read_interface(folder: Path, addresses: tuple[IPv4Address, ...]) -> Interface:
    """Complete an interface with what its folder below ``/sys/class/net`` tells."""
    verbs = folder / "device" / "infiniband_verbs"
    devices = sorted(device.name for device in verbs.iterdir()) if verbs.is_dir() else []
    # written by the driver of Mellanox' cards: "Force local loopback disable is ON"
    setting = _text(folder / "settings" / "force_local_lb_disable")
    return Interface(
        name=folder.name,
        addresses=addresses,
        speed_mbps=_positive(_text(folder / "speed")),
        numa=_positive(_text(folder / "device" / "numa_node")),
        infiniband=tuple(f"/dev/infiniband/{device}" for device in devices),
        multicast_loopback=not setting.endswith(" ON"),
    )


def _text(path: Path) -> str:
    """Return a file's text, empty where there is none or the driver refuses (as ``speed`` of a link down)."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _positive(text: str) -> int | None:
    """Return a number; None for what is not one, and for the -1 by which the kernel says «unknown»."""
    return int(text) if text.isascii() and text.isdigit() else None


def match_networks(
    interfaces: Iterable[Interface],
    networks: Mapping[str, str | Sequence[str]],
    *,
    speeds: Mapping[str, int],
    nodes: int,
    nic_nodes: Mapping[str, int],
) -> tuple[Nic, ...]:
    """Return the interfaces that serve a logical network, as the agent advertises them.

    Parameters
    ----------
    networks
        For each logical network, one or more of: name of an interface; address range (``10.100.0.0/16``).
    speeds
        Mbit/s by name of interface, over what the kernel says.
    nodes
        Number of NUMA nodes.
    nic_nodes
        NUMA node by name of interface, where hwloc tells it.

    Raises
    ------
    DiscoveryError
        If a network matches nothing, or an interface would need two addresses or has no speed.
    """
    known = {interface.name: interface for interface in interfaces}
    chosen: dict[str, dict[str, IPv4Address]] = {}
    for network, selectors in networks.items():
        for selector in (selectors,) if isinstance(selectors, str) else selectors:
            for name, address in _matches(known, network, selector):
                chosen.setdefault(name, {})[network] = address
    return tuple(
        _nic(known[name], served, speeds.get(name), nodes, nic_nodes.get(name))
        for name, served in sorted(chosen.items())
    )


def _matches(
    known: Mapping[str, Interface], network: str, selector: str
) -> list[tuple[str, IPv4Address]]:
    if selector in known:
        return [(selector, known[selector].addresses[0])]
    try:
        range_ = IPv4Network(selector)
    except ValueError:
        names = ", ".join(known) or "none"
        raise DiscoveryError(
            f"network {network}: {selector!r} is neither an interface with an IPv4 address "
            f"(there are: {names}) nor an address range such as 10.100.0.0/16"
        ) from None
    matches = [
        (name, next(address for address in interface.addresses if address in range_))
        for name, interface in known.items()
        if any(address in range_ for address in interface.addresses)
    ]
    if not matches:
        raise DiscoveryError(f"network {network}: no interface has an address in {selector}")
    return matches


def _nic(
    interface: Interface,
    served: Mapping[str, IPv4Address],
    speed: int | None,
    nodes: int,
    hwloc_node: int | None,
) -> Nic:
    if len(addresses := set(served.values())) > 1:
        shown = ", ".join(f"{network} at {address}" for network, address in served.items())
        raise DiscoveryError(f"interface {interface.name} would need one address, serves {shown}")
    if speed is None:
        speed = LOOPBACK_MBPS if interface.is_loopback else interface.speed_mbps
    if speed is None:
        raise DiscoveryError(
            f"interface {interface.name} does not tell its speed: give it, in Mbit/s "
            f"(--speed {interface.name}=10000)"
        )
    try:
        return Nic(
            name=interface.name,
            networks=tuple(served),
            address=str(addresses.pop()),
            numa=_node(interface, nodes, hwloc_node),
            infiniband=interface.infiniband,
            multicast_loopback=interface.multicast_loopback,
            speed_mbps=speed,
        )
    except TopologyError as exc:
        raise DiscoveryError(f"interface {interface.name}: {exc}") from exc


def _node(interface: Interface, nodes: int, hwloc_node: int | None) -> int | None:
    """Return the NUMA node of an interface.

    A loopback interface is as near to one node as to another; since one must be told for tasks that want
    theirs near, it is the first.
    """
    if interface.is_loopback or nodes == 1:
        return 0
    if None not in (hwloc_node, interface.numa) and hwloc_node != interface.numa:
        raise DiscoveryError(
            f"interface {interface.name}: hwloc puts it on NUMA node {hwloc_node}, "
            f"the kernel on {interface.numa}"
        )
    return hwloc_node if interface.numa is None else interface.numa
