"""From a survey to the attributes and resources of an agent, in its own form or katsdpcontroller's.

Nothing leaves here that the scheduler would not read as the same machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent_setup import mesos
from agent_setup.discover import Survey
from agent_setup.errors import DiscoveryError
from agent_setup.mesos import Pair
from scheduler.quantities import Resources, format_millis
from scheduler.topology import AgentSnapshot, Topology, legacy, merge_offers


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What an agent is started with."""

    attributes: Mapping[str, str]
    resources: Resources
    """By the names under which they are advertised."""

    def as_read(self) -> AgentSnapshot:
        """Return the agent as the scheduler sees it when all of it is offered.

        Raises
        ------
        DiscoveryError
            If the scheduler would quarantine it, with the reason.
        """
        messages = mesos.resource_messages(self.resource_pairs())
        return as_scheduler(self.attribute_pairs(), messages)

    def attribute_pairs(self) -> list[Pair]:
        """Return the attributes by name."""
        return sorted(self.attributes.items())

    def resource_pairs(self) -> list[Pair]:
        """Return the resources as text, by name."""
        scalars = {name: format_millis(n) for name, n in self.resources.scalars.items()}
        ranges = {name: str(members) for name, members in self.resources.ranges.items()}
        return sorted((scalars | ranges).items())


def advertise(survey: Survey, *, in_legacy_form: bool = False) -> Advertisement:
    """Return what the agent of a machine is started with.

    Parameters
    ----------
    in_legacy_form
        In the form of katsdpcontroller, which knows nothing of L3 caches, SMT siblings, racks and islands.

    Raises
    ------
    DiscoveryError
        If the scheduler would not read it as the machine that it is.
    """
    topology = survey.topology
    resources = survey.host + topology.resources()
    if in_legacy_form:
        attributes = legacy.write(topology.parts())
        resources = legacy.untranslate(resources)
        topology = _as_legacy(topology)
    else:
        attributes = topology.to_attributes()
    advertisement = Advertisement(attributes, resources)
    read = advertisement.as_read().topology
    if read != topology:
        raise DiscoveryError(f"the scheduler would read {_difference(topology, read)}")
    return advertisement


def as_scheduler(attributes: Iterable[Pair], resources: list[dict[str, Any]]) -> AgentSnapshot:
    """Return an agent as the scheduler sees it when all of it is offered.

    Parameters
    ----------
    resources
        ``Resource`` messages in their JSON form.

    Raises
    ------
    DiscoveryError
        If the scheduler would quarantine it, with the reason.
    """
    offer = {
        "id": {"value": "offer"},
        "agent_id": {"value": "agent"},
        "hostname": "agent",
        "attributes": mesos.attribute_messages(attributes),
        "resources": resources,
    }
    merged = merge_offers([offer])
    if merged.quarantined:
        raise DiscoveryError(f"the scheduler would refuse this: {merged.quarantined[0].reason}")
    return merged.agents[0]


def _as_legacy(topology: Topology) -> Topology:
    """Return what of a machine katsdpcontroller's attributes tell; capacities are in the resources."""
    counted = any(node.mem_mib for node in topology.numa)
    return replace(
        topology,
        numa=tuple(node if counted else replace(node, mem_mib=None) for node in topology.numa),
        smt=(),
        l3=(),
        gpus=tuple(replace(gpu, mem_mib=None) for gpu in topology.gpus),
        nics=tuple(replace(nic, speed_mbps=None) for nic in topology.nics),
        volumes=tuple(replace(volume, disk_mib=None) for volume in topology.volumes),
        rack=None,
        island=None,
    )


def _difference(meant: Topology, read: Topology) -> str:
    name = next(n for n in Topology.__slots__ if getattr(meant, n) != getattr(read, n))
    return f"{name} as {getattr(read, name)!r} instead of {getattr(meant, name)!r}"[:300]
