"""Numbers for what requests name."""

from __future__ import annotations

import numpy as np

from scheduler.packing.admission import Admission, GpuService, NicService, Traffic
from scheduler.packing.arrays import Ints


class Names:
    """Numbers for what requests name, and what of an agent is worth being looked at."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.services: dict[GpuService | NicService, int] = {}
        self.volumes: dict[str, int] = {}
        self.admissions: list[Admission] = []
        """By row of `Cluster.admits`. Ties rule out agents, too: tasks of other ties have rows of their own."""
        self.whole_cores = False
        """Whether anybody asks for whole physical cores."""
        self.one_l3 = False
        """Whether anybody asks for cores that share a cache."""
        self.exclusive = False
        """Whether anybody asks for a GPU for itself."""
        self.multicast = False
        """Whether anybody sends or receives multicast."""

    def service(self, service: GpuService | NicService) -> int:
        """Number of what a device must be to serve a request."""
        return self.services.setdefault(service, len(self.services))

    def families(self) -> Ints:
        """Return by number of the service what it is one of: GPUs, or interfaces of one network."""
        known: dict[str | None, int] = {}
        networks = [s.network if isinstance(s, NicService) else None for s in self.services]
        return np.array([known.setdefault(n, len(known)) for n in networks], np.int64)

    def volume(self, name: str) -> int:
        """Number of a volume's name."""
        return self.volumes.setdefault(name, len(self.volumes))

    def admission(self, admission: Admission) -> int:
        """Row for tasks that are admitted so, and are in the same ties."""
        self.admissions.append(admission)
        return len(self.admissions) - 1
