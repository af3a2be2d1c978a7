"""NVIDIA GPUs as the driver's management library, NVML, tells of them.

The library's Python binding (``nvidia-ml-py``, module ``pynvml``) is optional: a machine without it, or
without a driver, has no GPUs. :class:`Nvml` is all that is used of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

from agent_setup.errors import DiscoveryError
from agent_setup.machine import MIB, pci_address
from scheduler.errors import TopologyError
from scheduler.topology import Gpu

_NOT_SUPPORTED, _DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND = 3, 9, 12
"""Of ``nvmlReturn_t`` in ``nvml.h``."""

Handle = Any
"""A device, as NVML refers to it."""


class Nvml(Protocol):
    """What is used of the module ``pynvml``."""

    NVMLError: type[Exception]
    """What every function raises; ``value`` is NVML's code."""

    def nvmlInit(self) -> None:
        """Load the driver's library; before anything else."""

    def nvmlShutdown(self) -> None:
        """Let it go."""

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        """Return the driver's version; bytes from older bindings, as of all texts."""

    def nvmlDeviceGetCount(self) -> int:
        """Return how many devices there are."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:
        """Return a device; indices follow the PCI bus, from 0."""

    def nvmlDeviceGetName(self, handle: Handle) -> str | bytes:
        """Return its model's name."""

    def nvmlDeviceGetUUID(self, handle: Handle) -> str | bytes:
        """Return its identity, the same after each start of the machine."""

    def nvmlDeviceGetMinorNumber(self, handle: Handle) -> int:
        """Return n of its ``/dev/nvidia<n>``."""

    def nvmlDeviceGetPciInfo(self, handle: Handle) -> Any:
        """Return where it is on the PCI bus, an ``nvmlPciInfo_t``."""

    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> Any:
        """Return an ``nvmlMemory_t``; its ``total`` is in bytes."""

    def nvmlDeviceGetCudaComputeCapability(self, handle: Handle) -> Sequence[int]:
        """Return its CUDA version, major and minor."""

    def nvmlDeviceGetMigMode(self, handle: Handle) -> Sequence[int]:
        """Return whether it is split into instances: now, and after the next reset."""


def installed_nvml() -> Nvml | None:
    """Return NVML's Python binding, None where it is not installed."""
    try:
        return cast(Nvml, importlib.import_module("pynvml"))
    except ImportError:
        return None


def find_gpus(
    pci_nodes: Mapping[str, int],
    *,
    load: Callable[[], Nvml | None] = installed_nvml,
    exclude: Collection[str] = (),
) -> tuple[Gpu, ...]:
    """Return the GPUs of this machine in NVML's order, that of their PCI addresses.

    Parameters
    ----------
    pci_nodes
        NUMA node by PCI address: what hwloc knows, and NVML does not.
    load
        Where NVML comes from.
    exclude
        UUIDs of GPUs that are kept from tasks.

    Raises
    ------
    DiscoveryError
        If a GPU does not answer, is in a mode that the schema cannot describe, or `exclude` names none.
    """
    nvml = load()
    if nvml is None:
        return _none(exclude)
    with _session(nvml) as works:
        if not works:
            return _none(exclude)
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
        by_uuid = {_text(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
        if unknown := sorted(set(exclude) - set(by_uuid)):
            raise DiscoveryError(f"GPU {unknown[0]} is to be left out, but there is none such")
        return tuple(
            _gpu(nvml, handle, uuid, driver, pci_nodes)
            for uuid, handle in by_uuid.items()
            if uuid not in exclude
        )


def _none(exclude: Collection[str]) -> tuple[Gpu, ...]:
    if exclude:
        raise DiscoveryError(f"GPU {min(exclude)} is to be left out, but no GPU is found")
    return ()


@contextmanager
def _session(nvml: Nvml) -> Iterator[bool]:
    """Open NVML; the value is whether there is a driver."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as exc:
        if _code(exc) not in (_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND):
            raise DiscoveryError(f"the NVIDIA driver does not answer: {exc}") from exc
        yield False
        return
    try:
        yield True
    except (nvml.NVMLError, TopologyError, ValueError) as exc:
        raise DiscoveryError(f"a GPU cannot be described: {exc}") from exc
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Nvml, handle: Handle, uuid: str, driver: str, pci_nodes: Mapping[str, int]) -> Gpu:
    if _sliced(nvml, handle):
        raise DiscoveryError(
            f"GPU {uuid} is cut into instances (MIG), which are not shares of a whole: "
            "switch that off (nvidia-smi -mig 0), or leave the GPU out (exclude_gpus)"
        )
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=uuid,
        device=f"/dev/nvidia{nvml.nvmlDeviceGetMinorNumber(handle)}",
        numa=pci_nodes.get(pci_address(_text(nvml.nvmlDeviceGetPciInfo(handle).busId))),
        compute_capability=(major, minor),
        driver=driver,
        mem_mib=int(nvml.nvmlDeviceGetMemoryInfo(handle).total) // MIB,
    )


def _sliced(nvml: Nvml, handle: Handle) -> bool:
    """Whether instances are, or after the next reset will be, what the GPU consists of."""
    try:
        return any(nvml.nvmlDeviceGetMigMode(handle))
    except nvml.NVMLError as exc:
        if _code(exc) == _NOT_SUPPORTED:  # GPUs before Ampere have no such mode
            return False
        raise


def _code(error: Exception) -> object:
    return getattr(error, "value", None)


def _text(value: str | bytes) -> str:
    """Decode what older bindings return as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
