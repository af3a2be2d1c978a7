"""From a machine to what its agent advertises.

``python -m agent_setup.discover --network cbf=10.100.0.0/16 --explain`` shows the machine to people;
without ``--explain`` it writes attributes and resources as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from agent_setup import hwloc, interfaces, sysfs
from agent_setup.errors import AgentSetupError, DiscoveryError
from agent_setup.interfaces import Interface
from agent_setup.machine import Machine
from agent_setup.share import SharedAgent, share_machine
from agent_setup.table import explain
from scheduler.errors import QuantityError, TopologyError
from scheduler.quantities import Ranges
from scheduler.topology import Gpu, NumaNode, Topology, Volume

__all__ = ["SharedAgent", "discover", "no_gpus", "share_machine"]

logger = logging.getLogger(__name__)


def no_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs of a machine without a driver for any: none."""
    return ()


def discover(
    *,
    lstopo_xml: Path | None = None,
    networks: Mapping[str, str | Sequence[str]] | None = None,
    speeds: Mapping[str, int] | None = None,
    volumes: Mapping[str, Path] | None = None,
    reserved_cores: Ranges | None = None,
    reserved_mem_mib: int = 0,
    subsystems: Sequence[str] = (),
    kernel_interfaces: Callable[[], Iterable[Interface]] = interfaces.kernel_interfaces,
    gpus: Callable[[], Iterable[Gpu]] = no_gpus,
) -> Topology:
    """Describe this machine.

    Where ``lstopo`` is not installed, ``/sys`` is read instead, and a warning says what is missing then.

    Parameters
    ----------
    lstopo_xml
        What ``lstopo --of xml`` wrote, instead of running it.
    networks
        For each logical network, the interfaces that reach it: names, or address ranges such as
        ``10.100.0.0/16``. Other interfaces are not advertised. A loopback interface is allowed.
    speeds
        Mbit/s by name of interface, over what the kernel says.
    volumes
        Directories by the name that tasks ask for.
    reserved_cores
        Logical CPUs that are kept for the system.
    reserved_mem_mib
        Memory that is kept for the system, taken from each NUMA node in proportion to its size.
    kernel_interfaces, gpus
        Where interfaces and GPUs come from.

    Raises
    ------
    DiscoveryError
        If facts are missing, malformed or contradict each other, with the reason.
    """
    machine = _machine(lstopo_xml)
    try:
        numa = _usable(machine.numa(), reserved_cores or Ranges(), reserved_mem_mib)
        cores = Ranges.of(pair for node in numa for pair in node.cores.intervals)
        nics = interfaces.match_networks(
            kernel_interfaces() if networks else (),
            networks or {},
            speeds=speeds or {},
            nodes=len(numa),
            nic_nodes=machine.nic_nodes,
        )
        return Topology(
            numa=numa,
            smt=_within(machine.smt, cores),
            l3=_within(machine.l3, cores) if machine.several_l3() else (),
            gpus=tuple(gpus()),
            nics=nics,
            volumes=tuple(_volume(name, path) for name, path in (volumes or {}).items()),
            subsystems=tuple(subsystems),
        )
    except TopologyError as exc:
        raise DiscoveryError(f"{machine.source}: {exc}") from exc


def _machine(lstopo_xml: Path | None) -> Machine:
    if lstopo_xml is not None:
        return hwloc.parse(hwloc.read_file(lstopo_xml), str(lstopo_xml))
    if shutil.which("lstopo-no-graphics") or shutil.which("lstopo"):
        return hwloc.parse(hwloc.run_lstopo())
    logger.warning(
        "lstopo is not installed (Debian, Ubuntu: apt-get install hwloc-nox); "
        "the machine is read from /sys instead, without the locality of its devices"
    )
    return sysfs.read()


def _usable(
    nodes: tuple[NumaNode, ...], reserved_cores: Ranges, reserved_mem_mib: int
) -> tuple[NumaNode, ...]:
    """Take away what is kept for the system."""
    total = sum(node.mem_mib or 0 for node in nodes)
    if reserved_mem_mib < 0 or reserved_mem_mib > total:
        raise DiscoveryError(f"reserved memory {reserved_mem_mib} MiB: the machine has {total} MiB")
    cores = Ranges.of(pair for node in nodes for pair in node.cores.intervals)
    if stray := reserved_cores - cores:
        raise DiscoveryError(f"reserved cores {stray} do not exist: the machine has {cores}")
    if reserved_cores == cores:
        raise DiscoveryError(f"reserved cores {reserved_cores}: no core is left for tasks")

    def left(memory: int) -> int:
        # rounded up, so that at least as much is kept as was asked for
        return memory - -(-reserved_mem_mib * memory // max(total, 1))

    return tuple(NumaNode(node.cores - reserved_cores, left(node.mem_mib or 0)) for node in nodes)


def _within(groups: Iterable[Ranges], cores: Ranges) -> tuple[Ranges, ...]:
    return tuple(group & cores for group in groups if group & cores)


def _volume(name: str, path: Path) -> Volume:
    if not path.is_dir():
        raise DiscoveryError(f"volume {name}: {path} is not a directory")
    return Volume(name=name, path=str(path.resolve()))


def _pairs(items: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise DiscoveryError(f"{option} {item}: expected NAME=VALUE")
        pairs[name] = value
    return pairs


def _speeds(items: Sequence[str]) -> dict[str, int]:
    speeds = _pairs(items, "--speed")
    for name, value in speeds.items():
        if not (value.isascii() and value.isdigit() and len(value) <= 9):
            raise DiscoveryError(f"--speed {name}={value}: expected whole Mbit/s")
    return {name: int(value) for name, value in speeds.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agent_setup.discover",
        description="Describe this machine as an agent advertises it.",
    )
    parser.add_argument("--lstopo-xml", type=Path, metavar="FILE", help="instead of running lstopo")
    parser.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="NAME=WHERE[,WHERE]",
        help="logical network, and the interface names or address ranges that reach it",
    )
    parser.add_argument(
        "--speed", action="append", default=[], metavar="INTERFACE=MBIT/S", help="over the kernel's"
    )
    parser.add_argument(
        "--volume", action="append", default=[], metavar="NAME=PATH", help="directory for tasks"
    )
    parser.add_argument(
        "--reserve-cores", default="[]", metavar="[CPUS]", help="kept for the system: [0-1,8]"
    )
    parser.add_argument(
        "--reserve-mem", type=int, default=0, metavar="MIB", help="kept for the system"
    )
    parser.add_argument("--explain", action="store_true", help="a table for people")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        networks = _pairs(options.network, "--network")
        topology = discover(
            lstopo_xml=options.lstopo_xml,
            networks={name: where.split(",") for name, where in networks.items()},
            speeds=_speeds(options.speed),
            volumes={n: Path(path) for n, path in _pairs(options.volume, "--volume").items()},
            reserved_cores=Ranges.parse(options.reserve_cores),
            reserved_mem_mib=options.reserve_mem,
        )
    except (AgentSetupError, QuantityError) as exc:
        sys.stderr.write(f"discover: {exc}\n")
        return 1
    if options.explain:
        sys.stdout.write(explain(topology) + "\n")
    else:
        facts = {
            "attributes": topology.to_attributes(),
            "resources": topology.resources().to_mesos(),
        }
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
