"""Agents that advertise in the form of MeerKAT's own controller, katsdpcontroller.

Their attributes are JSON in base64url (``katsdpcontroller.numa``, ``.gpus``, ``.interfaces``, ``.volumes``,
``.subsystems``, and ``.priority``); their resources ``katsdpcontroller.gpu.N.*`` and
``katsdpcontroller.interface.N.*``, the latter in bit/s. The facts about that form come from
katsdpcontroller's scheduler documentation and ``agent_mkconfig``.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from scheduler.quantities import Millis, Ranges, Resources, format_millis, millis
from scheduler.topology.parts import MAX_CPU, Gpu, Nic, NumaNode, Volume, refuse
from scheduler.topology.schema import Parts

PREFIX = "katsdpcontroller."

_BITS_PER_MEGABIT = 1_000_000
_GPU = re.compile(r"katsdpcontroller\.gpu\.(0|[1-9][0-9]{0,3})\.(compute|mem)")
_INTERFACE = re.compile(r"katsdpcontroller\.interface\.(0|[1-9][0-9]{0,3})\.bandwidth_(in|out)")
_OURS = re.compile(r"(gpu|nic)\.([0-9]+)\.(compute|mem|in|out)")

Cpu = Annotated[int, Field(ge=0, le=MAX_CPU)]
Node = Annotated[int, Field(ge=0)] | None
T = TypeVar("T")


class _Document(BaseModel):
    """Unknown members are ignored: deployed agents carry several that no longer mean anything."""

    model_config = ConfigDict(frozen=True, strict=True)


class _Gpu(_Document):
    name: str
    devices: list[str] = []
    driver_version: str | None = None
    compute_capability: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    numa_node: Node = None
    uuid: str | None = None


class _Interface(_Document):
    name: str
    network: str | list[str]
    ipv4_address: str
    numa_node: Node = None
    infiniband_devices: list[str] = []
    infiniband_multicast_loopback: bool = True


class _Volume(_Document):
    name: str
    host_path: str
    numa_node: Node = None


_NUMA = TypeAdapter(list[list[Cpu]])
_GPUS = TypeAdapter(list[_Gpu])
_INTERFACES = TypeAdapter(list[_Interface])
_VOLUMES = TypeAdapter(list[_Volume])
_SUBSYSTEMS = TypeAdapter(list[str])


def speaks_legacy(attributes: Mapping[str, str]) -> bool:
    """Whether an agent advertises in katsdpcontroller's form, and not (also) in ours."""
    return "sdp.schema" not in attributes and any(name.startswith(PREFIX) for name in attributes)


def read(attributes: Mapping[str, str]) -> Parts:
    """Read katsdpcontroller's attributes.

    Raises
    ------
    TopologyError
        Naming attribute, value and rule.
    """
    return Parts(
        numa=tuple(
            NumaNode(Ranges.of_values(cpus)) for cpus in _document(attributes, "numa", _NUMA)
        ),
        gpus=tuple(map(_gpu, _document(attributes, "gpus", _GPUS))),
        nics=tuple(map(_nic, _document(attributes, "interfaces", _INTERFACES))),
        volumes=tuple(
            Volume(name=v.name, path=v.host_path, numa=v.numa_node)
            for v in _document(attributes, "volumes", _VOLUMES)
        ),
        subsystems=tuple(_document(attributes, "subsystems", _SUBSYSTEMS)),
        priority=_priority(attributes.get(f"{PREFIX}priority")),
    )


def write(parts: Parts) -> dict[str, str]:
    """Write attributes that :func:`read` reads back, as far as katsdpcontroller's form goes.

    It has no place for SMT siblings, L3 caches, rack and island; capacities are in the resources alone.
    """
    documents: dict[str, list[Any]] = {
        "numa": [list(node.cores) for node in parts["numa"]],
        "gpus": [_gpu_document(gpu) for gpu in parts["gpus"]],
        "interfaces": [_interface_document(nic) for nic in parts["nics"]],
        "volumes": [
            _told(name=volume.name, host_path=volume.path, numa_node=volume.numa)
            for volume in parts["volumes"]
        ],
        "subsystems": list(parts["subsystems"]),
    }
    attributes = {f"{PREFIX}{name}": _encode(items) for name, items in documents.items() if items}
    if (priority := parts["priority"]) is not None:
        attributes[f"{PREFIX}priority"] = format_millis(priority)
    return attributes


def translate(resources: Resources) -> Resources:
    """Give resources the names and units of our schema; bandwidth is rounded down to 1 kbit/s.

    What both forms name is taken from katsdpcontroller's, since only agents that speak that form are
    translated.
    """
    scalars: dict[str, Millis] = {}
    for name, amount in resources.scalars.items():
        if match := _GPU.fullmatch(name):
            scalars[f"gpu.{match[1]}.{match[2]}"] = amount
        elif match := _INTERFACE.fullmatch(name):
            scalars[f"nic.{match[1]}.{match[2]}"] = amount // _BITS_PER_MEGABIT
        elif not _OURS.fullmatch(name):
            scalars[name] = amount
    return Resources(scalars, resources.ranges)


def untranslate(resources: Resources) -> Resources:
    """Undo :func:`translate`: the names and units under which the agent knows its resources."""
    scalars: dict[str, Millis] = {}
    for name, amount in resources.scalars.items():
        match = _OURS.fullmatch(name)
        if match is None:
            scalars[name] = amount
        elif match[1] == "gpu":
            scalars[f"{PREFIX}gpu.{match[2]}.{match[3]}"] = amount
        else:
            name = f"{PREFIX}interface.{match[2]}.bandwidth_{match[3]}"
            scalars[name] = amount * _BITS_PER_MEGABIT
    return Resources(scalars, resources.ranges)


def _document(attributes: Mapping[str, str], name: str, adapter: TypeAdapter[list[T]]) -> list[T]:
    attribute = f"{PREFIX}{name}"
    if attribute not in attributes:
        return []
    try:
        return adapter.validate_python(_decode(attributes[attribute]))
    except ValidationError as exc:
        first = exc.errors()[0]
        place = "/".join(map(str, first["loc"]))
        refuse(attribute, attributes[attribute], f"at {place or 'top'}: {first['msg']}")
    except (ValueError, RecursionError) as exc:
        refuse(attribute, attributes[attribute], f"not base64url of JSON: {exc}")


def _decode(text: str) -> Any:
    # "=" is outside Mesos' alphabet, so agents may have dropped the padding
    padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
    return json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))


def _encode(document: object) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    # spaces instead of base64's "=", which Mesos' alphabet lacks
    text += " " * (-len(text) % 3)
    return base64.urlsafe_b64encode(text.encode("ascii")).decode("ascii")


def _told(**members: object) -> dict[str, object]:
    """Return the members that are known."""
    return {name: value for name, value in members.items() if value is not None}


def _gpu_document(gpu: Gpu) -> dict[str, object]:
    return _told(
        name=gpu.name,
        devices=[] if gpu.device is None else [gpu.device],
        driver_version=gpu.driver,
        compute_capability=gpu.compute_capability,
        device_attributes={},  # required by some versions, no longer used
        numa_node=gpu.numa,
        uuid=gpu.uuid,
    )


def _interface_document(nic: Nic) -> dict[str, object]:
    return _told(
        name=nic.name,
        # old versions know one network alone, as a text
        network=nic.networks[0] if len(nic.networks) == 1 else list(nic.networks),
        ipv4_address=nic.address,
        numa_node=nic.numa,
        infiniband_devices=list(nic.infiniband) or None,
        infiniband_multicast_loopback=None if nic.multicast_loopback else False,
    )


def _gpu(gpu: _Gpu) -> Gpu:
    capability = gpu.compute_capability
    return Gpu(
        name=gpu.name,
        uuid=gpu.uuid,
        device=gpu.devices[0] if gpu.devices else None,
        numa=gpu.numa_node,
        compute_capability=None if capability is None else (capability[0], capability[1]),
        driver=gpu.driver_version,
    )


def _nic(interface: _Interface) -> Nic:
    network = interface.network
    return Nic(
        name=interface.name,
        networks=(network,) if isinstance(network, str) else tuple(network),
        address=interface.ipv4_address,
        numa=interface.numa_node,
        infiniband=tuple(interface.infiniband_devices),
        multicast_loopback=interface.infiniband_multicast_loopback,
    )


def _priority(value: str | None) -> Millis | None:
    """Read a priority, which katsdpcontroller allows to be negative: that is as low as zero here."""
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not abs(number) < 1e9:
        refuse(f"{PREFIX}priority", value, "expected a number")
    return millis(max(number, 0.0))
