"""The formulas of the programs that run when a capture block has ended."""

from __future__ import annotations

from typing import Final

from pipelines import catalogue
from scheduler.requests import TaskRequest, VolumeRequest
from sdpcontroller.workflows.resources.formula import Asked, Quantity, memory
from sdpcontroller.workflows.resources.programs import fixed
from sdpcontroller.workflows.resources.sizes import DATA_VOLUME

_SOURCE: Final = "held to by tests/pipelines/imaging/test_memory.py"


def _asked(cpus: Quantity, mem: Quantity) -> Asked:
    volumes = [VolumeRequest.of(DATA_VOLUME)]
    request = TaskRequest.of(cpus=cpus.value, mem_mib=mem.value, volumes=volumes)
    return Asked(request, (cpus, mem))


_imager_cpus = fixed("imager", "cpus", "CPU", 1, "one thread grids", "its default")


@memory(
    "imager",
    why="the interpreter, its images and the gridder's, and one block of visibilities",
    source=f"pipelines.catalogue.imager_bytes, {_SOURCE}",
)
def _imager_mem(size: int, terms: int) -> float:
    return catalogue.imager_bytes(size, terms)


def imager(*, size: int = catalogue.IMAGE_SIZE, terms: int = 1) -> Asked:
    """Imager: works in blocks, so its memory is that of its images and one block, however much there is.

    Parameters
    ----------
    size
        Pixels along a side.
    terms
        Spectral terms.
    """
    return _asked(_imager_cpus, _imager_mem(size=size, terms=terms))


_spectral_cpus = fixed("spectral_imager", "cpus", "CPU", 1, "one thread grids", "its default")


@memory(
    "spectral_imager",
    why="the interpreter, images and visibilities of one channel at a time, and a tile as it is read",
    source=f"pipelines.catalogue.spectral_imager_bytes, {_SOURCE}",
)
def _spectral_mem(size: int, n_antennas: int, dumps: int) -> float:
    return catalogue.spectral_imager_bytes(size, n_antennas, dumps)


def spectral_imager(n_antennas: int, dumps: int, *, size: int = catalogue.IMAGE_SIZE) -> Asked:
    """Imager of a range of channels, one after the other.

    Parameters
    ----------
    n_antennas, dumps
        Of what was observed of the target.
    size
        Pixels along a side.
    """
    mem = _spectral_mem(size=size, n_antennas=n_antennas, dumps=dumps)
    return _asked(_spectral_cpus, mem)


_joiner_cpus = fixed("cube_joiner", "cpus", "CPU", 0.5, "it copies on the disk", "its design")


@memory(
    "cube_joiner",
    why="the interpreter, some planes, and the picture",
    source=f"pipelines.catalogue.cube_joiner_bytes, {_SOURCE}",
)
def _joiner_mem(size: int) -> float:
    return catalogue.cube_joiner_bytes(size)


def cube_joiner(*, size: int = catalogue.IMAGE_SIZE) -> Asked:
    """Joins the parts of a cube."""
    return _asked(_joiner_cpus, _joiner_mem(size=size))
