"""What operators do to agents: empty them, take them out of allocation, give them up for good."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.embedded.maintenance import Machine
from scheduler.embedded.master import Master
from scheduler.embedded.membership import Membership
from scheduler.embedded.records import AgentRecord, Drain


class UnknownAgentError(ValueError):
    """There is no such agent; the message is Mesos'."""


class Operations:
    """An operator's orders.

    Parameters
    ----------
    master
        Who follows them.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._membership = Membership(master)

    def drain(self, agent_id: str, max_grace: float | None, *, mark_gone: bool) -> None:
        """Kill all tasks of an agent and offer nothing of it, until it is reactivated.

        Parameters
        ----------
        agent_id
            The agent.
        max_grace
            Seconds that tasks may take; None: as their own kill policy says.
        mark_gone
            Whether the agent is given up when it is empty.

        Raises
        ------
        UnknownAgentError
            If there is no such agent.
        """
        record = self._record(agent_id, "Unknown agent")
        self._deactivate(record)
        record.drain = Drain(max_grace, mark_gone, self._master.clock.time())
        record.post(lambda agent: agent.drain(max_grace))
        self._master.drained(record)

    def deactivate(self, agent_id: str) -> None:
        """Offer nothing of an agent any more; its tasks run on."""
        self._deactivate(self._record(agent_id, "Unknown agent"))

    def reactivate(self, agent_id: str) -> None:
        """Offer an agent again.

        Raises
        ------
        UnknownAgentError
            If there is no such agent, or it is still being emptied.
        """
        record = self._record(agent_id, "Unknown agent")
        if record.drain is not None and record.agent.runs:
            raise UnknownAgentError("Agent is still in the DRAINING state")
        record.deactivated, record.drain = False, None
        self._master.allocate_soon()

    def mark_gone(self, agent_id: str) -> None:
        """Give an agent up for good."""
        if not self._membership.mark_gone(agent_id):
            raise UnknownAgentError(f"Agent '{agent_id}' not found")

    def machine_down(self, machines: Iterable[Machine]) -> None:
        """Take machines down whose maintenance begins.

        Raises
        ------
        MaintenanceError
            If one of them is not scheduled for it.
        """
        for record in self._master.maintenance.take_down(machines):
            record.post(lambda agent: agent.shutdown())
            self._membership.unregister(record.info.id, "Operator initiated 'Machine DOWN'")

    def _deactivate(self, record: AgentRecord) -> None:
        record.deactivated = True
        self._master.desk.withdraw(record.offers.values(), rescind=True)

    def _record(self, agent_id: str, text: str) -> AgentRecord:
        record = self._master.agents.get(agent_id)
        if record is None:
            raise UnknownAgentError(text)
        return record
