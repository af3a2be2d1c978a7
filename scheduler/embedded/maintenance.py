"""Planned maintenance: windows in which machines are not there, and asking frameworks to leave them.

A machine is *up*, *draining* as soon as a window is scheduled for it, and *down* from ``/machine/down`` on.
Offers of a draining machine say when it will be unavailable; who holds something of it is sent an inverse
offer, again and again while it is declined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scheduler.embedded.messages import nanoseconds
from scheduler.embedded.records import AgentRecord, Framework

if TYPE_CHECKING:
    from scheduler.embedded.master import Master

DEFAULT_REFUSE = 5.0
"""Seconds after which an inverse offer that was answered without filters comes again."""
MAX_WINDOWS = 10_000


class MaintenanceError(ValueError):
    """A request that cannot be followed; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A ``MachineID``; an agent is on it when both are equal."""

    hostname: str
    ip: str

    @classmethod
    def from_mesos(cls, document: Mapping[str, Any]) -> Machine:
        """Read a ``MachineID``.

        Raises
        ------
        MaintenanceError
            If it names nothing.
        """
        machine = cls(document.get("hostname", "").lower(), document.get("ip", ""))
        if not machine.hostname and not machine.ip:
            raise MaintenanceError("Both 'hostname' and 'ip' for a machine are empty")
        return machine

    def to_mesos(self) -> dict[str, str]:
        """Write a ``MachineID``."""
        named = {"hostname": self.hostname, "ip": self.ip}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True, slots=True)
class _InverseOffer:
    framework_id: str
    agent_id: str


class Maintenance:
    """The maintenance of one cluster.

    Parameters
    ----------
    master
        Whose machines these are.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self.windows: list[Mapping[str, Any]] = []
        """The schedule's ``Window`` messages."""
        self.down: set[Machine] = set()
        self._unavailable: dict[Machine, Mapping[str, Any]] = {}
        self._outstanding: dict[str, _InverseOffer] = {}
        self._refused: dict[tuple[str, str], float] = {}
        self._answers: dict[tuple[Machine, str], dict[str, Any]] = {}

    def unavailability(self, record: AgentRecord) -> Mapping[str, Any] | None:
        """Return when an agent's machine will not be there, None when nothing is planned."""
        return self._unavailable.get(machine_of(record)) if self._unavailable else None

    def is_down(self, record: AgentRecord) -> bool:
        """Whether an agent's machine may have no agents now."""
        return machine_of(record) in self.down

    # What operators ask for

    def schedule(self, document: Mapping[str, Any]) -> None:
        """Replace the schedule.

        Raises
        ------
        MaintenanceError
            If a machine is in two windows, or one that is down would be in none.
        """
        windows = document.get("windows", [])
        unavailable = _by_machine(windows)
        if missing := sorted(m.hostname for m in self.down - unavailable.keys()):
            raise MaintenanceError(
                f"Machine '{missing[0]}' is deactivated and cannot be removed from the schedule"
            )
        changed = {
            machine
            for machine in unavailable.keys() | self._unavailable.keys()
            if unavailable.get(machine) != self._unavailable.get(machine)
        }
        self.windows, self._unavailable = list(windows), unavailable
        self._answers = {k: v for k, v in self._answers.items() if k[0] not in changed}
        for record in self._master.agents.values():
            if machine_of(record) in changed:
                self._rescind(record.info.id)
        desk = self._master.desk
        desk.withdraw(list(desk.offers.values()), rescind=True)
        self._master.allocate_soon()

    def take_down(self, machines: Iterable[Machine]) -> list[AgentRecord]:
        """Note that machines are down; return the agents that are to be removed therefore.

        Raises
        ------
        MaintenanceError
            If a machine is not in the schedule, or down already.
        """
        wanted = set(machines)
        for machine in wanted:
            if machine not in self._unavailable or machine in self.down:
                raise MaintenanceError(
                    f"Machine '{machine.hostname}' is not in DRAINING mode and cannot be "
                    "brought down"
                )
        self.down |= wanted
        return [r for r in self._master.agents.values() if machine_of(r) in wanted]

    def bring_up(self, machines: Iterable[Machine]) -> None:
        """Note that machines are back, and end their windows.

        Raises
        ------
        MaintenanceError
            If a machine is not down.
        """
        wanted = set(machines)
        for machine in wanted:
            if machine not in self.down:
                raise MaintenanceError(
                    f"Machine '{machine.hostname}' is not in DOWN mode and cannot be brought up"
                )
        self.down -= wanted
        windows: list[Mapping[str, Any]] = []
        for window in self.windows:
            left = [m for m in window["machine_ids"] if Machine.from_mesos(m) not in wanted]
            if left:
                windows.append({**window, "machine_ids": left})
        self.windows, self._unavailable = windows, _by_machine(windows)

    def describe_schedule(self) -> dict[str, Any]:
        """Return the ``Schedule``."""
        return {"windows": list(self.windows)} if self.windows else {}

    def describe_status(self) -> dict[str, Any]:
        """Return the ``ClusterStatus``: what drains, with the answers of frameworks, and what is down."""
        draining = [self._draining(m) for m in self._unavailable if m not in self.down]
        down = [m.to_mesos() for m in self._unavailable if m in self.down]
        status = {"draining_machines": draining, "down_machines": down}
        return {name: machines for name, machines in status.items() if machines}

    def _draining(self, machine: Machine) -> dict[str, Any]:
        answers = [answer for (where, _), answer in self._answers.items() if where == machine]
        shown: dict[str, Any] = {"id": machine.to_mesos()}
        return shown | ({"statuses": answers} if answers else {})

    # What frameworks are asked

    def ask(self) -> None:
        """Send inverse offers to those who hold something of a machine that is to go."""
        if not self._unavailable:
            return
        asked = {(o.framework_id, o.agent_id) for o in self._outstanding.values()}
        now = self._master.clock.monotonic()
        for framework in self._master.frameworks.values():
            made = [
                self._make(framework, record)
                for record in self._master.agents.values()
                if self.unavailability(record) is not None
                and record.active
                and _holds(framework, record)
                and (framework.info.id, record.info.id) not in asked
                and self._refused.get((framework.info.id, record.info.id), 0.0) <= now
            ]
            if made and framework.connected:
                framework.send("INVERSE_OFFERS", inverse_offers=made)

    def answer(
        self,
        framework: Framework,
        offer_ids: Sequence[str],
        *,
        accepted: bool,
        filters: Mapping[str, Any],
    ) -> None:
        """Take a framework's answer; ids that are not (any more) its own are ignored."""
        refuse = filters.get("refuse_seconds", DEFAULT_REFUSE)
        until = self._master.clock.monotonic() + (DEFAULT_REFUSE if refuse < 0 else refuse)
        for offer_id in offer_ids:
            offer = self._outstanding.get(offer_id)
            if offer is None or offer.framework_id != framework.info.id:
                continue
            del self._outstanding[offer_id]
            self._refused[offer.framework_id, offer.agent_id] = until
            if (record := self._master.agents.get(offer.agent_id)) is not None:
                self._answers[machine_of(record), framework.info.id] = {
                    "framework_id": {"value": framework.info.id},
                    "status": "ACCEPT" if accepted else "DECLINE",
                    "timestamp": nanoseconds(self._master.clock.time()),
                }

    def withdraw(self, framework_id: str) -> None:
        """Forget what a framework that is away has been asked."""
        self._outstanding = {
            i: o for i, o in self._outstanding.items() if o.framework_id != framework_id
        }
        self._refused = {k: v for k, v in self._refused.items() if k[0] != framework_id}

    def forget_agent(self, agent_id: str) -> None:
        """Forget what was asked about an agent that is no more."""
        self._outstanding = {i: o for i, o in self._outstanding.items() if o.agent_id != agent_id}
        self._refused = {k: v for k, v in self._refused.items() if k[1] != agent_id}

    def _rescind(self, agent_id: str) -> None:
        for offer_id, offer in self._outstanding.items():
            if offer.agent_id == agent_id:
                framework = self._master.frameworks[offer.framework_id]
                framework.send("RESCIND_INVERSE_OFFER", inverse_offer_id={"value": offer_id})
        self.forget_agent(agent_id)

    def _make(self, framework: Framework, record: AgentRecord) -> dict[str, Any]:
        offer_id = self._master.desk.new_id()
        self._outstanding[offer_id] = _InverseOffer(framework.info.id, record.info.id)
        return {
            "id": {"value": offer_id},
            "url": record.info.url,
            "framework_id": {"value": framework.info.id},
            "agent_id": {"value": record.info.id},
            "unavailability": self.unavailability(record),
        }


def machine_of(record: AgentRecord) -> Machine:
    """Return the machine that an agent is on."""
    return Machine(record.info.spec.hostname.lower(), record.info.ip)


def _holds(framework: Framework, record: AgentRecord) -> bool:
    if any(offer.framework_id == framework.info.id for offer in record.offers.values()):
        return True
    return any(not task.released for task in framework.tasks_on(record.info.id))


def _by_machine(windows: Sequence[Mapping[str, Any]]) -> dict[Machine, Mapping[str, Any]]:
    if len(windows) > MAX_WINDOWS:
        raise MaintenanceError(f"More than {MAX_WINDOWS} windows")
    found: dict[Machine, Mapping[str, Any]] = {}
    for window in windows:
        unavailability = window["unavailability"]
        if unavailability.get("duration", {}).get("nanoseconds", 0) < 0:
            raise MaintenanceError("Unavailability 'duration' is negative")
        if not window.get("machine_ids"):
            raise MaintenanceError("List of machines in the maintenance window is empty")
        for document in window["machine_ids"]:
            machine = Machine.from_mesos(document)
            if machine in found:
                raise MaintenanceError(
                    f"Machine '{machine.hostname}' appears more than once in the schedule"
                )
            found[machine] = unavailability
    return found
