"""Attributes of schema 1, read and written: ``docs/reference/agents.md``.

Reading is strict: an unknown name below ``sdp.`` is more likely a slip than a fact, and a slip that is
ignored shows only when a task runs in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TypedDict

from scheduler.errors import QuantityError, TopologyError
from scheduler.quantities import Millis, Ranges, Resources, format_millis, millis
from scheduler.topology.parts import Gpu, Nic, NumaNode, Volume, refuse

VERSION = "1"

_NUMBERED = re.compile(
    r"sdp\.(numa|smt|l3|gpu|nic|volume|subsystem)\.(0|[1-9][0-9]{0,3})((?:\..+)?)"
)
_FIELDS = {
    "numa": {"cores", "mem"},
    "smt": {""},
    "l3": {""},
    "gpu": {"name", "uuid", "device", "numa", "compute_capability", "driver", "mem"},
    "nic": {"name", "network", "address", "numa", "infiniband", "multicast_loopback", "speed"},
    "volume": {"name", "path", "numa", "disk"},
    "subsystem": {""},
}
_REPEATED = re.compile(r"(network|infiniband)\.(0|[1-9][0-9]{0,2})")
_PLAIN = {"sdp.schema", "sdp.priority", "sdp.rack", "sdp.island"}
_BOOLEANS = {"true": True, "false": False}

Facts = Mapping[str, str]
"""Attributes of one part, by the last portion of their name."""


class Parts(TypedDict, total=False):
    """The fields of :class:`scheduler.topology.Topology`."""

    numa: tuple[NumaNode, ...]
    smt: tuple[Ranges, ...]
    l3: tuple[Ranges, ...]
    gpus: tuple[Gpu, ...]
    nics: tuple[Nic, ...]
    volumes: tuple[Volume, ...]
    subsystems: tuple[str, ...]
    priority: Millis | None
    rack: str | None
    island: str | None


def read(attributes: Mapping[str, str]) -> Parts:
    """Read the attributes of schema 1, each part by itself.

    Raises
    ------
    TopologyError
        Naming attribute, value and rule.
    """
    version = attributes.get("sdp.schema")
    if version is None:
        raise TopologyError("sdp.schema is missing, but other attributes below sdp. are there")
    if version != VERSION:
        refuse("sdp.schema", version, f"this controller knows version {VERSION}")
    groups = _grouped(attributes)
    return Parts(
        numa=tuple(_numa(p, f) for p, f in _dense("numa", groups)),
        smt=tuple(_ranges(p, f[""]) for p, f in _dense("smt", groups)),
        l3=tuple(_ranges(p, f[""]) for p, f in _dense("l3", groups)),
        gpus=tuple(_gpu(p, f) for p, f in _dense("gpu", groups)),
        nics=tuple(_nic(p, f) for p, f in _dense("nic", groups)),
        volumes=tuple(_volume(p, f) for p, f in _dense("volume", groups)),
        subsystems=tuple(f[""] for _, f in _dense("subsystem", groups)),
        priority=_priority(attributes.get("sdp.priority")),
        rack=attributes.get("sdp.rack"),
        island=attributes.get("sdp.island"),
    )


def with_counted_memory(parts: Parts, resources: Resources) -> Parts:
    """Count memory by node where a resource shows that the agent does, though no attribute says so."""
    nodes = parts.get("numa", ())
    amounts = [resources.scalars.get(f"numa.{n}.mem") for n in range(len(nodes))]
    told = any(node.mem_mib is not None for node in nodes)
    if told or all(amount is None for amount in amounts):
        return parts
    # what is used up is not offered at all: a node without the resource, beside one with it, has 0 left
    counted = tuple(
        replace(node, mem_mib=-(-(amount or 0) // 1000))
        for node, amount in zip(nodes, amounts, strict=True)
    )
    return Parts(**{**parts, "numa": counted})


def _grouped(attributes: Mapping[str, str]) -> dict[str, dict[int, dict[str, str]]]:
    """Sort attributes by kind and number; names below ``sdp.`` that the schema lacks are refused."""
    groups: dict[str, dict[int, dict[str, str]]] = {kind: {} for kind in _FIELDS}
    for name, value in attributes.items():
        if not name.startswith("sdp.") or name in _PLAIN:
            continue
        match = _NUMBERED.fullmatch(name)
        if match is None:
            refuse(name, value, f"schema {VERSION} has no such attribute")
        kind, field = match[1], match[3].removeprefix(".")
        repeated = _REPEATED.fullmatch(field) if kind == "nic" else None
        if repeated is None and field not in _FIELDS[kind]:
            refuse(name, value, f"schema {VERSION} has no such attribute")
        groups[kind].setdefault(int(match[2]), {})[field] = value
    return groups


def _dense(kind: str, groups: Mapping[str, Mapping[int, Facts]]) -> Iterator[tuple[str, Facts]]:
    """Yield prefix and facts of every part of a kind, in order of their numbers."""
    group = groups[kind]
    for number in range(len(group)):
        if number not in group:
            rule = f"{len(group)} are advertised, numbers must run from 0"
            refuse(f"sdp.{kind}.{max(group)}", "", rule)
        yield f"sdp.{kind}.{number}", group[number]


@contextmanager
def _located(prefix: str) -> Iterator[None]:
    """Complete the name of the attribute in what a part says of itself."""
    try:
        yield
    except TopologyError as exc:
        raise TopologyError(f"{prefix}.{exc}") from exc


def _required(facts: Facts, field: str) -> str:
    if field not in facts:
        raise TopologyError(f"{field} is missing")
    return facts[field]


def _ranges(attribute: str, value: str) -> Ranges:
    try:
        return Ranges.parse(value)
    except QuantityError as exc:
        refuse(attribute, value, str(exc))


def _number(facts: Facts, field: str) -> int | None:
    value = facts.get(field)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", value):
        refuse(field, value, "expected a whole number of up to 12 digits")
    return int(value)


def _priority(value: str | None) -> Millis | None:
    if value is None:
        return None
    try:
        return millis(value)
    except QuantityError as exc:
        refuse("sdp.priority", value, str(exc))


def _numa(prefix: str, facts: Facts) -> NumaNode:
    with _located(prefix):
        cores = _ranges("cores", _required(facts, "cores"))
        return NumaNode(cores=cores, mem_mib=_number(facts, "mem"))


def _gpu(prefix: str, facts: Facts) -> Gpu:
    with _located(prefix):
        return Gpu(
            name=_required(facts, "name"),
            uuid=facts.get("uuid"),
            device=facts.get("device"),
            numa=_number(facts, "numa"),
            compute_capability=_capability(facts.get("compute_capability")),
            driver=facts.get("driver"),
            mem_mib=_number(facts, "mem"),
        )


def _capability(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    # Mesos turns a text that looks like a number into one, so "8.0" may come back as "8"
    match = re.fullmatch(r"([0-9]{1,3})(?:\.([0-9]))?", text)
    if match is None:
        refuse("compute_capability", text, "expected e.g. 8.0")
    return int(match[1]), int(match[2] or 0)


def _nic(prefix: str, facts: Facts) -> Nic:
    with _located(prefix):
        loopback = facts.get("multicast_loopback", "true")
        if loopback not in _BOOLEANS:
            refuse("multicast_loopback", loopback, "expected true or false")
        return Nic(
            name=_required(facts, "name"),
            networks=_repeated(facts, "network"),
            address=_required(facts, "address"),
            numa=_number(facts, "numa"),
            infiniband=_repeated(facts, "infiniband"),
            multicast_loopback=_BOOLEANS[loopback],
            speed_mbps=_number(facts, "speed"),
        )


def _volume(prefix: str, facts: Facts) -> Volume:
    with _located(prefix):
        return Volume(
            name=_required(facts, "name"),
            path=_required(facts, "path"),
            numa=_number(facts, "numa"),
            disk_mib=_number(facts, "disk"),
        )


def _repeated(facts: Facts, field: str) -> tuple[str, ...]:
    """Read a fact that is there once, as ``field``, or several times, as ``field.0``, ``field.1`` and so on."""
    several = {int(k[len(field) + 1 :]): v for k, v in facts.items() if k.startswith(f"{field}.")}
    if field in facts:
        if several:
            refuse(field, facts[field], f"either this or {field}.0, not both")
        return (facts[field],)
    if set(several) != set(range(len(several))):
        refuse(f"{field}.{max(several)}", several[max(several)], "numbers run from 0")
    return tuple(several[n] for n in range(len(several)))


def write(parts: Parts) -> dict[str, str]:
    """Write the attributes that :func:`read` reads back to equal parts."""
    attributes = {"sdp.schema": VERSION}
    for prefix, facts in _facts(parts):
        attributes |= {
            f"{prefix}.{field}".removesuffix("."): str(value)
            for field, value in facts.items()
            if value is not None
        }
    return attributes


def _facts(parts: Parts) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the prefix of every part and its facts; None is not written."""
    for n, node in enumerate(parts["numa"]):
        yield f"sdp.numa.{n}", {"cores": node.cores, "mem": node.mem_mib}
    for n, group in enumerate(parts["smt"]):
        yield f"sdp.smt.{n}", {"": group}
    for n, group in enumerate(parts["l3"]):
        yield f"sdp.l3.{n}", {"": group}
    for n, gpu in enumerate(parts["gpus"]):
        yield f"sdp.gpu.{n}", _gpu_facts(gpu)
    for n, nic in enumerate(parts["nics"]):
        yield f"sdp.nic.{n}", _nic_facts(nic)
    for n, volume in enumerate(parts["volumes"]):
        facts = {"name": volume.name, "path": volume.path}
        yield f"sdp.volume.{n}", {**facts, "numa": volume.numa, "disk": volume.disk_mib}
    for n, subsystem in enumerate(parts["subsystems"]):
        yield f"sdp.subsystem.{n}", {"": subsystem}
    priority = parts["priority"]
    shown = None if priority is None else format_millis(priority)
    yield "sdp", {"priority": shown, "rack": parts["rack"], "island": parts["island"]}


def _gpu_facts(gpu: Gpu) -> dict[str, object]:
    capability = gpu.compute_capability
    return {
        "name": gpu.name,
        "uuid": gpu.uuid,
        "device": gpu.device,
        "numa": gpu.numa,
        "compute_capability": None if capability is None else "{}.{}".format(*capability),
        "driver": gpu.driver,
        "mem": gpu.mem_mib,
    }


def _nic_facts(nic: Nic) -> dict[str, object]:
    return {
        "name": nic.name,
        **_numbered("network", nic.networks),
        "address": nic.address,
        "numa": nic.numa,
        **_numbered("infiniband", nic.infiniband),
        "multicast_loopback": None if nic.multicast_loopback else "false",
        "speed": nic.speed_mbps,
    }


def _numbered(field: str, values: Iterable[str]) -> dict[str, object]:
    """Name one value ``field``, several ``field.0``, ``field.1`` and so on."""
    several = tuple(values)
    if len(several) == 1:
        return {field: several[0]}
    return {f"{field}.{n}": value for n, value in enumerate(several)}
