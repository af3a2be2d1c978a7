"""A machine as hwloc's ``lstopo --of xml`` describes it, versions 1.x and 2.x.

In hwloc 2 a NUMANode is a leaf beside the cores that it serves, in 1.x an ancestor of them; in both it has a
``cpuset``, so that the tree need not be looked at. A 1.x machine with uniform memory has no NUMANode at all.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from xml.etree import ElementTree

from agent_setup import xmltree
from agent_setup.errors import DiscoveryError
from agent_setup.machine import Machine, MemoryNode, pci_address
from scheduler.errors import TopologyError
from scheduler.quantities import Ranges
from scheduler.topology.parts import MAX_CPU

Element = ElementTree.Element

_TIMEOUT = 60.0
_NETWORK = "2"
"""``osdev_type`` of a network interface."""
_EVERYTHING = "0xf...f"
"""How hwloc writes a set without end."""
_BITMAP = re.compile(r"(0x[0-9a-fA-F]{1,8}|)(,(0x[0-9a-fA-F]{1,8}|))*")


def run_lstopo() -> str:
    """Return the XML that ``lstopo`` writes of this machine.

    Raises
    ------
    DiscoveryError
        If it is not installed, fails or hangs.
    """
    program = shutil.which("lstopo-no-graphics") or shutil.which("lstopo")
    if program is None:
        raise DiscoveryError(
            "lstopo is not installed. On Debian or Ubuntu: apt-get install hwloc-nox"
        )
    command = [program, "--of", "xml"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=True, text=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as exc:
        raise DiscoveryError(f"{' '.join(command)} failed: {exc}") from exc
    return done.stdout


def read_file(path: Path) -> str:
    """Return the XML in a file.

    Raises
    ------
    DiscoveryError
        If it cannot be read, or is larger than any machine's.
    """
    try:
        if path.stat().st_size > xmltree.MAX_BYTES:
            raise DiscoveryError(f"{path}: more than {xmltree.MAX_BYTES >> 20} MiB, not a topology")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DiscoveryError(f"{path}: cannot be read: {exc}") from exc


def parse(xml: str, source: str = "lstopo") -> Machine:
    """Read what ``lstopo --of xml`` wrote.

    Raises
    ------
    DiscoveryError
        Naming element, value and rule.
    """
    root = xmltree.parse(xml, source)
    if root.tag != "topology":
        raise DiscoveryError(f"{source}: <{root.tag[:40]}> instead of <topology> of hwloc")
    objects = list(root.iter("object"))
    machine = next((o for o in objects if o.get("type") in ("Machine", "System")), None)
    if machine is None:
        raise DiscoveryError(f"{source}: no object of type Machine")
    try:
        cpus = _cpus(objects, machine)
        devices = list(_devices(machine, None))
        return Machine(
            nodes=_nodes(objects, machine, cpus),
            smt=_smt(objects, cpus),
            l3=tuple(_groups((o for o in objects if _is_l3(o)), cpus)),
            nic_nodes=_located(devices, "OSDev", "name"),
            pci_nodes=_located(devices, "PCIDev", "pci_busid"),
            source=source,
        )
    except (TopologyError, ValueError) as exc:
        raise DiscoveryError(f"{source}: {exc}") from exc


def _bitmap(element: Element, name: str) -> Ranges:
    """Read a set: words of 32 bits in hexadecimal, the highest first, separated by commas."""
    text = element.get(name, "")
    if text == _EVERYTHING:
        return Ranges(((0, MAX_CPU),))
    if not text or not _BITMAP.fullmatch(text) or len(text) > 11 * (MAX_CPU + 1) // 32:
        shown = text if len(text) < 80 else f"{text[:77]}..."
        raise ValueError(f"{element.get('type')} {name}={shown!r} is not a set of hwloc")
    bits = 0
    for word in text.split(","):
        bits = bits << 32 | int(word or "0", 16)
    return Ranges.of_values(n for n in range(bits.bit_length()) if bits >> n & 1)


def _number(element: Element, name: str, default: str | None = None) -> int:
    text = element.get(name, default)
    if text is None or not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"{element.get('type')} {name}={text!r} is not a whole number")
    return int(text)


def _cpus(objects: list[Element], machine: Element) -> Ranges:
    """Return the logical CPUs that may be used: those that have a PU and are allowed."""
    numbers = [_number(o, "os_index") for o in objects if o.get("type") == "PU"]
    if len(set(numbers)) != len(numbers):
        raise ValueError("two PU objects have the same os_index")
    if not numbers or max(numbers) > MAX_CPU:
        raise ValueError(f"expected PU objects with os_index from 0 to {MAX_CPU}")
    cpus = Ranges.of_values(numbers)
    return cpus & _bitmap(machine, "allowed_cpuset") if machine.get("allowed_cpuset") else cpus


def _nodes(objects: list[Element], machine: Element, cpus: Ranges) -> dict[int, MemoryNode]:
    found = [o for o in objects if o.get("type") == "NUMANode"]
    if not found:
        return {0: MemoryNode(cpus, _number(machine, "local_memory", "0"))}
    nodes: dict[int, MemoryNode] = {}
    owned = Ranges()
    for number, element in sorted(((_number(o, "os_index"), o) for o in found), key=itemgetter(0)):
        if number in nodes:
            raise ValueError(f"two NUMANode objects have os_index {number}")
        local = _bitmap(element, "cpuset") & cpus
        if local and owned.issuperset(local):
            # High-bandwidth memory or CXL: a node of memory alone, for which hwloc repeats the CPUs nearby.
            local = Ranges()
        owned |= local
        nodes[number] = MemoryNode(local, _number(element, "local_memory", "0"))
    return nodes


def _smt(objects: list[Element], cpus: Ranges) -> tuple[Ranges, ...]:
    groups = list(_groups((o for o in objects if o.get("type") == "Core"), cpus))
    covered = {cpu for group in groups for cpu in group}
    groups += (Ranges.of_values([cpu]) for cpu in cpus if cpu not in covered)
    return tuple(groups)


def _groups(elements: Iterator[Element], cpus: Ranges) -> Iterator[Ranges]:
    for element in elements:
        if group := _bitmap(element, "cpuset") & cpus:
            yield group


def _is_l3(element: Element) -> bool:
    kind = element.get("type")
    return kind == "L3Cache" or (kind == "Cache" and element.get("depth") == "3")


def _devices(element: Element, node: int | None) -> Iterator[tuple[Element, int]]:
    """Yield devices with the node of the nearest object above that has just one."""
    if element.get("nodeset"):
        nodes = list(_bitmap(element, "nodeset"))
        node = nodes[0] if len(nodes) == 1 else None
    if node is not None and _is_device(element):
        yield element, node
    for child in element.iterfind("object"):
        yield from _devices(child, node)


def _is_device(element: Element) -> bool:
    return element.get("type") == "PCIDev" or element.get("osdev_type") == _NETWORK


def _located(devices: Iterable[tuple[Element, int]], kind: str, identity: str) -> dict[str, int]:
    """Return the nodes of the devices of a kind by the attribute that names them."""
    located: dict[str, int] = {}
    for element, node in devices:
        name = element.get(identity)
        if element.get("type") != kind or not name:
            continue
        key = pci_address(name) if kind == "PCIDev" else name
        if located.setdefault(key, node) != node:
            raise ValueError(f"{kind} {key} is on NUMA node {located[key]} and on {node}")
    return located
