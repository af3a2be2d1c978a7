"""A machine as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent_setup.discover import Survey
from scheduler.quantities import Ranges, format_millis
from scheduler.topology import Topology


def explain(survey: Survey) -> str:
    """Return a table of what the machine is made of and what its agent has to give, without final new line."""
    parts = ("\n".join(_aligned(block)) for block in _blocks(survey) if len(block) > 1)
    return "\n\n".join([*parts, "\n".join(_aligned([*_facts(survey)]))])


def _facts(survey: Survey) -> Iterator[tuple[str, str]]:
    """Yield what concerns the agent as a whole, name and value."""
    topology, host = survey.topology, survey.host
    for name, unit in (("cpus", ""), ("mem", " MiB"), ("disk", " MiB")):
        yield name, format_millis(host.scalars.get(name, 0)) + unit
    yield "ports", str(host.ranges.get("ports", Ranges()))
    yield "priority", format_millis(topology.effective_priority)
    if topology.subsystems:
        yield "subsystems", ", ".join(topology.subsystems)
    if topology.rack is not None:
        yield "rack", topology.rack
    if topology.island is not None:
        yield "island", topology.island
    for note in survey.notes:
        yield "note", note


def _blocks(survey: Survey) -> Iterator[list[tuple[str, ...]]]:
    topology = survey.topology
    yield [
        ("NUMA node", "cores", "CPUs", "L3 groups", "memory/MiB"),
        *(
            (
                str(n),
                str(sum(1 for group in topology.smt if group & node.cores)),
                str(node.cores),
                _l3_groups(topology, node.cores),
                _or_dash(node.mem_mib),
            )
            for n, node in enumerate(topology.numa)
        ),
    ]
    yield [
        ("GPU", "name", "node", "memory/MiB", "uuid"),
        *(
            (str(n), gpu.name, _or_dash(gpu.numa), _or_dash(gpu.mem_mib), gpu.uuid or "-")
            for n, gpu in enumerate(topology.gpus)
        ),
    ]
    yield [
        (
            "interface",
            "address",
            "networks",
            "node",
            "Mbit/s",
            "driver",
            "infiniband",
            "loopback",
        ),
        *(
            (
                nic.name,
                nic.address,
                ",".join(nic.networks),
                _or_dash(nic.numa),
                _or_dash(nic.speed_mbps),
                survey.drivers.get(nic.name) or "-",
                ",".join(path.removeprefix("/dev/infiniband/") for path in nic.infiniband) or "-",
                "yes" if nic.multicast_loopback else "no",
            )
            for nic in topology.nics
        ),
    ]
    yield [
        ("volume", "path", "node", "space/MiB"),
        *(
            (volume.name, volume.path, _or_dash(volume.numa), _or_dash(volume.disk_mib))
            for volume in topology.volumes
        ),
    ]


def _l3_groups(topology: Topology, cores: Ranges) -> str:
    """Return how many groups of CPUs of a node share an L3 cache, if a node has several."""
    return str(sum(1 for group in topology.l3 if group & cores)) if topology.l3 else "-"


def _or_dash(value: int | Ranges | None) -> str:
    return "-" if value is None else str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
