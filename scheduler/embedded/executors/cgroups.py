"""Memory and CPU limits of tasks through the kernel's control groups, version 1 or 2.

All groups of one cluster are below one of its own, ``sdp-…`` at the root of the hierarchy. Memory is a hard
limit, CPUs are shares that count when there are not enough, as with Mesos' ``cgroups/mem`` and ``cgroups/cpu``.
All tasks together weigh as much against the machine's other processes as they would without groups. Everything
here blocks.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

logger = logging.getLogger(__name__)

ROOT: Final = Path("/sys/fs/cgroup")
MIN_MEMORY: Final = 32 << 20
"""Bytes that a group may use at least, as with Mesos."""
_SHARES_PER_CPU: Final = 1024
_MIN_SHARES: Final = 2
_MAX_SHARES: Final = 262_144
_REMOVAL_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The control groups of one task."""

    memory: Path
    cpu: Path
    """The same folder as `memory` in version 2."""
    limit: int
    """Bytes."""

    @property
    def entries(self) -> list[str]:
        """Files into which a process writes its number to join."""
        return [str(folder / "cgroup.procs") for folder in {self.memory, self.cpu}]

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed something in here because the limit was reached."""
        for name in ("memory.oom_control", "memory.events"):
            for line in _read(self.memory / name).splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value) > 0
        return False

    def peak(self) -> int | None:
        """Return the most memory that was used, bytes."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if text := _read(self.memory / name).strip():
                return int(text)
        return None

    def statistics(self) -> str:
        """Return the kernel's account of the memory."""
        return _read(self.memory / "memory.stat")

    def remove(self) -> None:
        """Remove the groups; their processes have ended."""
        for folder in {self.memory, self.cpu}:
            _remove(folder)


class Cgroups:
    """Makes control groups for the tasks of one cluster.

    Parameters
    ----------
    memory, cpu
        The cluster's own groups; the same in version 2.
    """

    def __init__(self, memory: Path, cpu: Path) -> None:
        self._memory = memory
        self._cpu = cpu

    @classmethod
    def open(cls, work_dir: Path, root: Path = ROOT) -> Self | None:
        """Make the cluster's own group; None, with a line in the log, where that is not permitted.

        Parameters
        ----------
        work_dir
            The cluster's work folder; from it comes the name.
        root
            Where control groups are mounted.
        """
        name = f"sdp-{hashlib.sha256(str(work_dir).encode()).hexdigest()[:12]}"
        try:
            if (root / "cgroup.controllers").exists():
                folder = root / name
                folder.mkdir(exist_ok=True)
                (folder / "cgroup.subtree_control").write_text("+memory +cpu")
                return cls(folder, folder)
            memory, cpu = root / "memory" / name, root / "cpu" / name
            memory.mkdir(exist_ok=True)
            cpu.mkdir(exist_ok=True)
        except OSError as exc:
            logger.info("no control groups, so memory is watched from outside: %s", exc)
            return None
        return cls(memory, cpu)

    def create(self, container_id: str, memory: int, cpus: int) -> Cgroup:
        """Make the groups of a task.

        Parameters
        ----------
        container_id
            Their name.
        memory
            Bytes that it may use; 0: as many as it wants.
        cpus
            Thousandths of a CPU.

        Raises
        ------
        OSError
            If the kernel refuses.
        """
        limit = max(memory, MIN_MEMORY) if memory else 0
        group = Cgroup(self._memory / container_id, self._cpu / container_id, limit)
        for folder in {group.memory, group.cpu}:
            folder.mkdir(parents=True)
        if limit:
            second = group.memory == group.cpu
            name = "memory.max" if second else "memory.limit_in_bytes"
            (group.memory / name).write_text(str(limit))
        self._weigh(group.cpu, cpus * _SHARES_PER_CPU // 1000)
        tasks = sum(entry.is_dir() for entry in self._cpu.iterdir())
        self._weigh(self._cpu, tasks * _SHARES_PER_CPU)
        return group

    def find(self, container_id: str, memory: int) -> Cgroup | None:
        """Return the groups that an earlier run has made for a task."""
        limit = max(memory, MIN_MEMORY) if memory else 0
        group = Cgroup(self._memory / container_id, self._cpu / container_id, limit)
        return group if group.memory.is_dir() and group.cpu.is_dir() else None

    def _weigh(self, group: Path, shares: int) -> None:
        shares = min(max(_MIN_SHARES, shares), _MAX_SHARES)
        if self._memory == self._cpu:
            (group / "cpu.weight").write_text(str(_weight(shares)))
        else:
            (group / "cpu.shares").write_text(str(shares))

    def clear(self) -> None:
        """Remove groups that an earlier run has left empty."""
        for folder in {self._memory, self._cpu}:
            for group in folder.iterdir():
                if group.is_dir() and not _read(group / "cgroup.procs"):
                    _remove(group)

    def close(self) -> None:
        """Remove the cluster's own groups, unless something is still in them."""
        for folder in {self._memory, self._cpu}:
            try:
                folder.rmdir()
            except OSError as exc:
                logger.debug("%s stays: %s", folder, exc)


def _weight(shares: int) -> int:
    """Translate shares (version 1, 2 to 262144) into a weight (version 2, 1 to 10000), as runc does."""
    return 1 + (shares - _MIN_SHARES) * 9999 // (_MAX_SHARES - _MIN_SHARES)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _remove(folder: Path) -> None:
    """Remove a group; what was killed in it takes a moment to leave it."""
    for _ in range(_REMOVAL_TRIES):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
    logger.warning("control group %s stays behind", folder)
