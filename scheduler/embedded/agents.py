"""The agents of a cluster as processes that start, die, hang and come back.

In Mesos each agent is a process of its own. Here all live in one, and what would happen to such a process is
done to them: a killed agent hears and says nothing, and its tasks run on; one that is started again has what it
had.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from scheduler.embedded.agent import Agent
from scheduler.embedded.master import Master
from scheduler.embedded.membership import Membership
from scheduler.embedded.model import AgentInfo, AgentSpec
from scheduler.embedded.reconfiguration import ReconfigurationPolicy, incompatibility
from scheduler.errors import ClusterError

logger = logging.getLogger(__name__)


class AgentState(enum.Enum):
    """What a process of an agent is doing."""

    RUNNING = "running"
    FROZEN = "frozen"
    """Stopped by SIGSTOP, or cut off from the network: it does nothing, and its connection stays open."""
    DEAD = "dead"


@dataclass(slots=True, eq=False)
class _Process:
    agent: Agent
    state: AgentState = AgentState.RUNNING
    ended: bool = False
    """Whether it has ended itself in good order, with its tasks."""


class Agents:
    """Agents by their host names.

    Parameters
    ----------
    make
        Makes an agent from what is known of it.
    address
        Where an agent is reached over HTTP.
    """

    def __init__(
        self,
        make: Callable[[AgentInfo], Agent],
        address: Callable[[AgentSpec], tuple[str, int]],
    ) -> None:
        self._make = make
        self._address = address
        self._processes: dict[str, _Process] = {}
        self._master: Master | None = None

    def __iter__(self) -> Iterator[Agent]:
        return (process.agent for process in self._processes.values())

    def __contains__(self, hostname: str) -> bool:
        return hostname in self._processes

    def __getitem__(self, hostname: str) -> Agent:
        """Return an agent.

        Raises
        ------
        ClusterError
            If there is none of that name.
        """
        return self._process(hostname).agent

    def state(self, hostname: str) -> AgentState:
        """Return what an agent is doing."""
        return self._process(hostname).state

    def start(
        self,
        spec: AgentSpec,
        policy: ReconfigurationPolicy = ReconfigurationPolicy.EQUAL,
        *,
        fresh: bool = False,
    ) -> bool:
        """Start an agent, or start it again with what it had.

        Parameters
        ----------
        spec
            What it has (now).
        policy
            What of that may be different from before.
        fresh
            Whether its work folder is empty: then it is another agent on the same machine.

        Returns
        -------
        bool
            Whether the master has taken it; else it has ended again.

        Raises
        ------
        ClusterError
            If it runs already, or may not come back like that; the message is what the agent would log.
        """
        process = self._processes.get(spec.hostname)
        if process is not None and process.state is not AgentState.DEAD:
            raise ClusterError(f"agent {spec.hostname!r} runs already")
        if process is None or fresh:
            process = self._new(spec)
            self._processes[spec.hostname] = process
        elif not process.ended and (
            problem := incompatibility(process.agent.info.spec, spec, policy)
        ):
            text = f"Failed to perform recovery: {problem}"
            raise ClusterError(f"EXIT with status 1: {text}")
        agent = process.agent
        agent.info = replace(agent.info, spec=spec)
        process.state, process.ended = AgentState.RUNNING, False
        if self._master is None:
            return True
        if not Membership(self._master).register(agent):
            process.state, process.ended = AgentState.DEAD, True
        return process.state is AgentState.RUNNING

    def enter(self, spec: AgentSpec, agent_id: str) -> Agent:
        """Enter an agent with an id of before; it registers when there is a master."""
        number = len(self._processes) + 1
        info = AgentInfo(agent_id, number, spec, self._address(spec))
        process = _Process(self._make(info))
        self._processes[spec.hostname] = process
        return process.agent

    def kill(self, hostname: str) -> None:
        """Let an agent's process die (SIGKILL, SIGTERM): its tasks run on."""
        process = self._process(hostname)
        if process.state is AgentState.DEAD:
            return
        process.state = AgentState.DEAD
        self._cut_off(process)

    def reboot(self, hostname: str) -> None:
        """Let the machine go down: the agent dies, and so do all its tasks; it is to be started again."""
        process = self._process(hostname)
        process.state = AgentState.DEAD
        self._cut_off(process)
        process.agent.lose_everything()

    def unregister(self, hostname: str) -> None:
        """Let an agent end in good order (SIGUSR1): it unregisters and kills its tasks."""
        process = self._process(hostname)
        if process.state is AgentState.RUNNING and self._is_member(process):
            Membership(self._required()).unregister(process.agent.info.id)
        process.state, process.ended = AgentState.DEAD, True
        process.agent.shutdown()

    def freeze(self, hostname: str) -> None:
        """Let an agent hang (SIGSTOP), or the network between it and its master."""
        process = self._process(hostname)
        if process.state is AgentState.RUNNING:
            process.state = AgentState.FROZEN
            if self._is_member(process):
                Membership(self._required()).freeze(process.agent.info.id)

    def thaw(self, hostname: str) -> None:
        """Let a frozen agent go on (SIGCONT)."""
        process = self._process(hostname)
        if process.state is not AgentState.FROZEN:
            return
        process.state = AgentState.RUNNING
        if self._is_member(process):
            Membership(self._required()).thaw(process.agent.info.id)
        elif self._master is not None:
            Membership(self._master).register(process.agent)

    def detach(self) -> None:
        """Let there be no master for a while."""
        self._master = None
        for process in self._processes.values():
            process.agent.detach()

    def attach(self, master: Master) -> None:
        """Let all agents that can register with a new master."""
        self.meet(master)
        for hostname in self._processes:
            self.register(hostname)

    def meet(self, master: Master) -> None:
        """Let agents know who the master is; they register one by one."""
        self._master = master
        for process in self._processes.values():
            process.agent.attach(master)

    def register(self, hostname: str) -> None:
        """Let an agent that runs register with the master."""
        process = self._process(hostname)
        if process.state is AgentState.RUNNING:
            Membership(self._required()).register(process.agent)

    def _new(self, spec: AgentSpec) -> _Process:
        master = self._required()
        known = self._processes.get(spec.hostname)
        number = len(self._processes) + 1 if known is None else known.agent.info.number
        info = AgentInfo(master.new_agent_id(), number, spec, self._address(spec))
        return _Process(self._make(info))

    def _cut_off(self, process: _Process) -> None:
        if self._is_member(process):
            Membership(self._required()).disconnect(process.agent.info.id)

    def _is_member(self, process: _Process) -> bool:
        return self._master is not None and process.agent.info.id in self._master.agents

    def _process(self, hostname: str) -> _Process:
        process = self._processes.get(hostname)
        if process is None:
            raise ClusterError(f"there is no agent {hostname!r}")
        return process

    def _required(self) -> Master:
        if self._master is None:
            raise ClusterError("there is no master")
        return self._master
