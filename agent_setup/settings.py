"""What an operator says of an agent: everything that cannot be found out, or shall be otherwise.

It is a TOML file, described in ``docs/operations-agents.md``; the command's options are laid over it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent_setup.errors import DiscoveryError
from agent_setup.networks import Override
from agent_setup.share import PORTS
from scheduler.errors import QuantityError
from scheduler.quantities import Ranges

MAX_BYTES = 1 << 20
MAX_ENTRIES = 256
"""Networks, interfaces, volumes and so on, each."""


def _ranges(value: object) -> Ranges:
    if isinstance(value, Ranges):
        return value
    try:
        return Ranges.parse(str(value))
    except QuantityError as exc:
        raise ValueError(str(exc)) from exc


def _several(value: object) -> object:
    """Take one text for a list of one."""
    return (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )


Count = Annotated[int, Field(ge=0, lt=10**12)]
Node = Annotated[int, Field(ge=0, lt=1024)]
CpuSet = Annotated[Ranges, BeforeValidator(_ranges)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_several), Field(max_length=MAX_ENTRIES)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )


class InterfaceSettings(_Table):
    """An interface, over what the kernel says."""

    speed_mbps: Annotated[int, Field(gt=0, lt=10**9)] | None = None
    numa: Node | None = None
    multicast_loopback: bool | None = None
    infiniband: Texts | None = None

    def override(self) -> Override:
        """Return it in the form of :mod:`agent_setup.networks`."""
        return Override(self.speed_mbps, self.numa, self.multicast_loopback, self.infiniband)


class VolumeSettings(_Table):
    """A directory that tasks may ask for by name."""

    path: str
    numa: Node | None = None
    disk_mib: Count | None = None
    """Space that is counted, MiB; None: not counted."""


class Reserved(_Table):
    """What is kept for the system."""

    cores: CpuSet = Ranges()
    """Logical CPUs."""
    mem_mib: Count | None = None
    """MiB; None: as much as Mesos keeps by itself, 1 GiB, or half of a machine with less than 2."""


class Settings(_Table):
    """All that an operator can say of an agent."""

    networks: Annotated[dict[str, Texts], Field(max_length=MAX_ENTRIES)] = {}
    """Logical networks, with the interfaces that reach them: names or address ranges."""
    interfaces: Annotated[dict[str, InterfaceSettings], Field(max_length=MAX_ENTRIES)] = {}
    volumes: Annotated[dict[str, VolumeSettings], Field(max_length=MAX_ENTRIES)] = {}
    reserved: Reserved = Reserved()
    gpus: bool = True
    """Whether GPUs are looked for."""
    exclude_gpus: Texts = ()
    """UUIDs of GPUs that tasks do not get."""
    subsystems: Texts = ()
    priority: Annotated[float, Field(ge=0, lt=10**9)] | None = None
    rack: str | None = None
    island: str | None = None
    cpus: Annotated[int, Field(gt=0, lt=10**6)] | None = None
    """CPUs to be shared; None: as many as there are logical CPUs left."""
    mem_mib: Count | None = None
    """Memory of all tasks, MiB; None: what is installed, less what is reserved."""
    disk_mib: Count | None = None
    """Space for tasks' sandboxes, MiB; None: as Mesos counts it, below `work_dir`."""
    work_dir: str = "/var/lib/mesos"
    """Where Mesos keeps the sandboxes."""
    ports: CpuSet = PORTS


def load(path: Path | None, overlays: Iterable[Mapping[str, Any]] = ()) -> Settings:
    """Return what a file says, with further tables laid over it in turn.

    Raises
    ------
    DiscoveryError
        In one line, naming the place, if the file cannot be read or a value is not what it must be.
    """
    merged: Mapping[str, Any] = {} if path is None else _read(path)
    for overlay in overlays:
        merged = _merged(merged, overlay)
    try:
        return Settings.model_validate(merged)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DiscoveryError(f"settings: {place}: {first['msg']}") from exc


def parse(text: str, source: str) -> dict[str, Any]:
    """Read TOML.

    Raises
    ------
    DiscoveryError
        If it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise DiscoveryError(f"{source}: not TOML: {exc}") from exc


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DiscoveryError(f"{path}: cannot be read: {exc}") from exc
    if len(content) > MAX_BYTES:
        raise DiscoveryError(f"{path}: more than {MAX_BYTES >> 20} MiB")
    return parse(text, str(path))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another; tables in both are merged, anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(under, value)
        else:
            merged[key] = value
    return merged
