"""Numbers for what requests name."""

from __future__ import annotations

from scheduler.packing.admission import Admission, GpuService, NicService, Traffic


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

    def service(self, service: GpuService | NicService) -> int:
        """Number of what a device must be to serve a request."""
        return self.services.setdefault(service, len(self.services))

    def volume(self, name: str) -> int:
        """Number of a volume's name."""
        return self.volumes.setdefault(name, len(self.volumes))

    def admission(self, admission: Admission) -> int:
        """Row for tasks that are admitted so, and are in the same ties."""
        self.admissions.append(admission)
        return len(self.admissions) - 1
