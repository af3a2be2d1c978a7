"""A machine as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scheduler.quantities import Ranges, format_millis
from scheduler.topology import Topology


def explain(topology: Topology) -> str:
    """Return a table of what the machine is made of."""
    blocks = [block for block in _blocks(topology) if len(block) > 1]
    facts = [f"priority  {format_millis(topology.effective_priority)}"]
    if topology.subsystems:
        facts.append(f"subsystems  {', '.join(topology.subsystems)}")
    return "\n\n".join(["\n".join(_aligned(block)) for block in blocks] + ["\n".join(facts)])


def _blocks(topology: Topology) -> Iterator[list[tuple[str, ...]]]:
    yield [
        ("NUMA node", "cores", "CPUs", "L3 groups", "memory/MiB"),
        *(
            (
                str(n),
                str(sum(1 for group in topology.smt if group & node.cores)),
                str(node.cores),
                str(sum(1 for group in topology.l3 if group & node.cores) or 1),
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
        ("interface", "address", "networks", "node", "Mbit/s", "infiniband"),
        *(
            (
                nic.name,
                nic.address,
                ",".join(nic.networks),
                _or_dash(nic.numa),
                _or_dash(nic.speed_mbps),
                ",".join(nic.infiniband) or "-",
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


def _or_dash(value: int | Ranges | None) -> str:
    return "-" if value is None else str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
