"""Which interfaces serve which logical network, and what of them is advertised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from agent_setup.errors import DiscoveryError
from agent_setup.interfaces import Interface
from scheduler.errors import TopologyError
from scheduler.topology import Nic

LOOPBACK_MBPS: Final = 10_000
"""Nominal speed of a loopback interface, which has none of its own, Mbit/s."""


@dataclass(frozen=True, slots=True)
class Override:
    """What the operator says of an interface, over what the kernel says; None: as the kernel says."""

    speed_mbps: int | None = None
    numa: int | None = None
    multicast_loopback: bool | None = None
    infiniband: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """What is known of NUMA nodes besides what the kernel says of each interface."""

    nodes: int
    nic_nodes: Mapping[str, int] = field(default_factory=dict)
    """NUMA node by name of interface, where hwloc tells it."""


def match_networks(
    interfaces: Iterable[Interface],
    networks: Mapping[str, str | Sequence[str]],
    locality: Locality,
    overrides: Mapping[str, Override] | None = None,
) -> tuple[Nic, ...]:
    """Return the interfaces that serve a logical network, as the agent advertises them.

    Parameters
    ----------
    networks
        For each logical network, one or more of: name of an interface; address range (``10.100.0.0/16``).
    overrides
        By name of interface.

    Raises
    ------
    DiscoveryError
        If a network matches nothing, an interface would need two addresses or has no speed, two have the same
        address, or what is overridden serves no network.
    """
    known = {interface.name: interface for interface in interfaces}
    _check_addresses(known.values())
    overrides = overrides or {}
    chosen: dict[str, dict[str, IPv4Address]] = {}
    for network, selectors in networks.items():
        for selector in (selectors,) if isinstance(selectors, str) else selectors:
            for name, address in _matches(known, network, selector):
                chosen.setdefault(name, {})[network] = address
    if unused := sorted(set(overrides) - set(chosen)):
        raise DiscoveryError(f"interface {unused[0]} has settings, but serves no network")
    return tuple(
        _nic(known[name], served, overrides.get(name, Override()), locality)
        for name, served in sorted(chosen.items())
    )


def _check_addresses(interfaces: Iterable[Interface]) -> None:
    owners: dict[IPv4Address, str] = {}
    for interface in interfaces:
        for address in interface.addresses:
            if owners.setdefault(address, interface.name) != interface.name:
                raise DiscoveryError(
                    f"{address} is the address of {owners[address]} and of {interface.name}"
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
    override: Override,
    locality: Locality,
) -> Nic:
    if len(addresses := set(served.values())) > 1:
        shown = ", ".join(f"{network} at {address}" for network, address in served.items())
        raise DiscoveryError(f"interface {interface.name} would need one address, serves {shown}")
    told = _overridden(interface, override)
    try:
        return Nic(
            name=told.name,
            networks=tuple(served),
            address=str(addresses.pop()),
            numa=_node(told, locality) if override.numa is None else override.numa,
            infiniband=told.infiniband,
            multicast_loopback=told.multicast_loopback,
            speed_mbps=_speed(told),
        )
    except TopologyError as exc:
        raise DiscoveryError(f"interface {interface.name}: {exc}") from exc


def _overridden(interface: Interface, override: Override) -> Interface:
    told = {
        name: value
        for name in ("speed_mbps", "multicast_loopback", "infiniband")
        if (value := getattr(override, name)) is not None
    }
    return replace(interface, **told)


def _speed(interface: Interface) -> int:
    speed = interface.speed_mbps
    if speed is None and interface.is_loopback:
        speed = LOOPBACK_MBPS
    if speed is None:
        raise DiscoveryError(
            f"interface {interface.name} does not tell its speed: give it, in Mbit/s "
            f"(--speed {interface.name}=10000)"
        )
    return speed


def _node(interface: Interface, locality: Locality) -> int | None:
    """Return the NUMA node of an interface.

    A loopback interface is as near to one node as to another; since one must be told for tasks that want
    theirs near, it is the first.
    """
    if interface.is_loopback or locality.nodes == 1:
        return 0
    hwloc_node = locality.nic_nodes.get(interface.name)
    if None not in (hwloc_node, interface.numa) and hwloc_node != interface.numa:
        raise DiscoveryError(
            f"interface {interface.name}: hwloc puts it on NUMA node {hwloc_node}, "
            f"the kernel on {interface.numa}"
        )
    return hwloc_node if interface.numa is None else interface.numa
