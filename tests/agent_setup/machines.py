"""Machines that do not exist: hwloc's synthetic topologies with devices put in, their ``/sys`` and NVML."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

from agent_setup import gpus
from agent_setup.discover import Sources
from agent_setup.interfaces import read_interface


@dataclass(frozen=True)
class Card:
    """A network card with one port."""

    name: str
    address: str
    node: int
    speed: int = 100_000
    verbs: int | None = None
    """Number of its ``uverbs`` file; None: plain Ethernet."""
    loopback_off: bool = False


@dataclass(frozen=True)
class Accelerator:
    """A GPU."""

    uuid: str
    node: int
    mib: int = 81_559
    name: str = "NVIDIA A100-SXM4-80GB"
    mig: bool = False


@dataclass(frozen=True)
class Plan:
    """What a machine is made of."""

    description: str
    """In ``lstopo -i``'s language."""
    cards: tuple[Card, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    version: tuple[str, ...] = field(default=())
    """Further options: the version of the XML."""

    def card_slot(self, index: int) -> str:
        return f"0000:{0x20 + index:02x}:00.0"

    def gpu_slot(self, index: int) -> str:
        return f"0000:{0x80 + index:02x}:00.0"


@lru_cache(maxsize=256)
def synthetic(description: str, *options: str) -> str:
    """Return the XML of a machine that does not exist."""
    command = ["lstopo", "-i", description, *options, "--of", "xml"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def xml(plan: Plan) -> str:
    """Return hwloc's description, with the devices on their nodes."""
    text = synthetic(plan.description, *plan.version)
    root = ElementTree.fromstring(text)  # noqa: S314 - written by lstopo a moment ago
    for index, card in enumerate(plan.cards):
        devices = [("2", card.name), *([("3", f"mlx5_{index}")] if card.verbs is not None else [])]
        _attach(root, card.node, plan.card_slot(index), "0200 [15b3:101d]", devices)
    for index, gpu in enumerate(plan.accelerators):
        _attach(root, gpu.node, plan.gpu_slot(index), "0302 [10de:20b2]", [])
    return ElementTree.tostring(root, encoding="unicode")


def _attach(
    root: ElementTree.Element, node: int, slot: str, kind: str, devices: Iterable[tuple[str, str]]
) -> None:
    """Put a PCI device behind a bridge below the object that is nearest to a NUMA node."""
    parents = {child: parent for parent in root.iter() for child in parent}
    memory = next(
        (
            e
            for e in root.iter("object")
            if e.get("type") == "NUMANode" and e.get("os_index") == str(node)
        ),
        None,
    )
    if memory is None:  # hwloc 1.x without NUMA
        place = next(e for e in root.iter("object") if e.get("type") == "Machine")
    else:
        # in 1.x the node holds its cores itself, in 2.x it is a leaf beside them
        place = memory if memory.find("object") is not None else parents[memory]
    bridge = ElementTree.SubElement(place, "object", type="Bridge", bridge_type="0-1", depth="0")
    device = ElementTree.SubElement(bridge, "object", type="PCIDev", pci_busid=slot, pci_type=kind)
    for os_type, name in devices:
        ElementTree.SubElement(device, "object", type="OSDev", name=name, osdev_type=os_type)


def sys_class(plan: Plan, folder: Path) -> Path:
    """Write the part of ``/sys`` that tells of the cards; return its ``class``."""
    top = folder / "class"
    for index, card in enumerate(plan.cards):
        device = folder / "devices" / plan.card_slot(index)
        net = top / "net" / card.name
        for path in (device, net, folder / "drivers/mlx5_core"):
            path.mkdir(parents=True, exist_ok=True)
        (device / "numa_node").write_text(f"{card.node}\n")
        (device / "driver").symlink_to(folder / "drivers/mlx5_core")
        (net / "device").symlink_to(device)
        (net / "speed").write_text(f"{card.speed}\n")
        if card.loopback_off:
            (net / "settings").mkdir()
            (net / "settings/force_local_lb_disable").write_text(
                "Force local loopback disable is ON\n"
            )
        if card.verbs is not None:
            verbs = top / "infiniband_verbs" / f"uverbs{card.verbs}"
            verbs.mkdir(parents=True)
            (verbs / "device").symlink_to(device)
            (top / "misc/rdma_cm").mkdir(parents=True, exist_ok=True)
    return top


class FakeNvml:
    """NVML of a machine, at the edge that :class:`agent_setup.gpus.Nvml` names."""

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"NVML {value}")
            self.value = value

    def __init__(self, plan: Plan, *, init_error: int | None = None, lost: bool = False) -> None:
        self._plan, self._init_error, self._lost = plan, init_error, lost
        self.open = 0

    def nvmlInit(self) -> None:
        if self._init_error is not None:
            raise self.NVMLError(self._init_error)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"560.30"  # looks like a number, of which Mesos would drop the zero

    def nvmlDeviceGetCount(self) -> int:
        return len(self._plan.accelerators)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if self._lost:
            raise self.NVMLError(15)
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return self._plan.accelerators[handle].name

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return self._plan.accelerators[handle].uuid

    def nvmlDeviceGetMinorNumber(self, handle: int) -> int:
        return handle

    def nvmlDeviceGetPciInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(busId=f"0000{self._plan.gpu_slot(handle).upper()}".encode())

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=self._plan.accelerators[handle].mib << 20)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return (8, 0)

    def nvmlDeviceGetMigMode(self, handle: int) -> Sequence[int]:
        if "A100" not in self._plan.accelerators[handle].name:
            raise self.NVMLError(3)
        return [int(self._plan.accelerators[handle].mig)] * 2


def sources(plan: Plan, folder: Path) -> Sources:
    """Return the sources of facts about a machine, with its files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "machine.xml"
    path.write_text(xml(plan))
    top = sys_class(plan, folder)
    return Sources(
        lstopo_xml=path,
        interfaces=lambda: [
            read_interface(top, card.name, (IPv4Address(card.address),)) for card in plan.cards
        ],
        gpus=lambda nodes, exclude: gpus.find_gpus(
            nodes, load=lambda: FakeNvml(plan), exclude=exclude
        ),
    )
