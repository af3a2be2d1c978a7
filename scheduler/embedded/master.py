"""The master: the books of agents, frameworks and tasks, and who changes them how.

Subscriptions and updates of agents go in; events for schedulers and orders to agents come out. It does no I/O
and asks a :class:`~scheduler.embedded.clock.Clock` for the time, so that it can run on a virtual one. What it
answers and in which order are facts of Mesos 1.12, read from recorded conversations with a real master.
Subscriptions are in :mod:`~scheduler.embedded.subscriptions`, calls in :mod:`~scheduler.embedded.calls`, the
agents' comings and goings in :mod:`~scheduler.embedded.membership`.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.embedded import subscriptions
from scheduler.embedded.agent import Agent
from scheduler.embedded.clock import Clock, Timer
from scheduler.embedded.identifiers import new_uuid
from scheduler.embedded.maintenance import Maintenance
from scheduler.embedded.membership import Membership
from scheduler.embedded.messages import agent_message
from scheduler.embedded.model import VERSION, AgentInfo, TaskState
from scheduler.embedded.notices import master_status
from scheduler.embedded.observers import Observers
from scheduler.embedded.offers import OfferDesk
from scheduler.embedded.records import AgentRecord, Framework, Task
from scheduler.embedded.registry import Registry
from scheduler.embedded.stream import EventStream
from scheduler.embedded.updates import StatusUpdate

logger = logging.getLogger(__name__)

CAPABILITIES = ("AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2")
MAX_COMPLETED_FRAMEWORKS = 50
MAX_REMOVED_AGENTS = 1000
"""Agents that are not members any more and are still shown with their tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Behaviour that Mesos has flags for; times in seconds."""

    allocation_interval: float = 1.0
    """Between two allocation runs (Mesos: 1 s)."""
    prompt_allocation: bool = True
    """Whether to allocate at once when a task has ended; Mesos waits for the next run."""
    offer_timeout: float | None = None
    """After which an offer is rescinded; None: never."""
    agent_ping_timeout: float = 15.0
    max_agent_ping_timeouts: int = 5
    agent_reregister_timeout: float = 600.0
    """That agents have to register again with a new master."""
    authenticate_frameworks: bool = False
    """Whether frameworks have to prove who they are."""
    authenticate_operators: bool = False
    """Whether everybody else has to."""

    @property
    def patience(self) -> float:
        """Seconds that an agent may be silent."""
        return self.agent_ping_timeout * self.max_agent_ping_timeouts


class Master:
    """The master of one cluster.

    Parameters
    ----------
    clock
        The time.
    address
        Where the HTTP server listens; agents are reached there too.
    hostname
        Name of the master in its own descriptions.
    settings
        Times.
    registry
        What an earlier master has left; empty when it is not given.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        address: tuple[str, int],
        hostname: str = "localhost",
        settings: Settings | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.id = str(new_uuid())
        self.clock = clock
        self.address = address
        self.hostname = hostname
        self.settings = settings or Settings()
        self.registry = registry or Registry()
        self.start_time = clock.time()
        self.agents: dict[str, AgentRecord] = {}
        self.removed_agents: OrderedDict[str, AgentRecord] = OrderedDict()
        self.recovered: dict[str, AgentInfo] = dict(self.registry.admitted)
        """Agents of an earlier master that have not registered again yet."""
        self.frameworks: dict[str, Framework] = {}
        self.completed_frameworks: OrderedDict[str, Framework] = OrderedDict()
        self.observers = Observers(clock)
        self.maintenance = Maintenance(self)
        self.desk = OfferDesk(clock, self.agents, self.frameworks, self.id, self.maintenance)
        self.counters: Counter[str] = Counter()
        self.open_stream: Callable[[], EventStream] = EventStream
        """Makes the stream of a subscriber."""
        self._framework_count = 0
        self._agent_count = 0
        self.ready_at = 0.0
        """Monotonic time before which it still reads its registry, and answers nobody, s."""
        self.stopped = False
        """Whether this master is no more; nothing that still happens around it means anything."""
        self._interval: Timer | None = None
        self._prompt: Timer | None = None
        self._reregistration: Timer | None = None

    def start(self) -> None:
        """Begin to allocate, and to wait for the agents of an earlier master."""
        self._interval = self.clock.call_later(self.settings.allocation_interval, self._tick)
        if self.recovered:
            self._reregistration = self.clock.call_later(
                self.settings.agent_reregister_timeout, self._give_up_recovered
            )

    def stop(self) -> None:
        """End all streams and timers; tasks are not touched."""
        self.stopped = True
        for timer in (self._interval, self._prompt, self._reregistration):
            if timer is not None:
                timer.cancel()
        for framework in self.frameworks.values():
            subscriptions.stop_timers(framework)
            if framework.stream is not None:
                framework.stream.close()
        for agent in self.agents.values():
            agent.stop_waiting()
        self.observers.close()

    # Agents

    def new_agent_id(self) -> str:
        """Return an id that no agent has had."""
        number = self._agent_count
        self._agent_count += 1
        return f"{self.id}-S{number}"

    def register(self, info: AgentInfo, agent: Agent) -> AgentRecord:
        """Take an agent."""
        record = AgentRecord(info, agent, self.clock.time())
        self.agents[info.id] = record
        self.removed_agents.pop(info.id, None)
        self.recovered.pop(info.id, None)
        self.registry.admit(info)
        self.observers.agent_added(lambda: self.agent_message(record))
        self.allocate_soon(info.id)
        return record

    def forget_agent(self, record: AgentRecord) -> None:
        """Let an agent be no member any more; it is only shown."""
        record.stop_waiting()
        record.connected = record.frozen = False
        record.mailbox.clear()
        del self.agents[record.info.id]
        self.removed_agents[record.info.id] = record
        while len(self.removed_agents) > MAX_REMOVED_AGENTS:
            self.removed_agents.popitem(last=False)

    def find_agent(self, agent_id: str) -> AgentRecord | None:
        """Return an agent, or what is remembered of one."""
        return self.agents.get(agent_id) or self.removed_agents.get(agent_id)

    def status_update(self, agent_id: str, update: StatusUpdate, latest: TaskState) -> None:
        """Take a status update of an agent's task and pass it on."""
        record = self.agents.get(agent_id)
        framework = self.frameworks.get(update.framework_id)
        task = None if framework is None else framework.tasks.get(update.task_id)
        if record is None or not record.connected or record.frozen:
            return  # the agent will send it again
        if framework is None or task is None:
            return  # the agent has been told that nobody wants it
        self.set_task_state(task, latest)
        task.remember(update.status)
        self.counters[f"updates/{update.state.value}"] += 1
        framework.send("UPDATE", status=update.status)
        self.observers.task_updated(task, update.status, task.state)

    def executor_ended(self, agent_id: str, framework_id: str, executor_id: str) -> None:
        """Note the end of a default executor, which frees what it used itself."""
        record = self.agents.get(agent_id)
        if record is None or not self.release_executor(record, (framework_id, executor_id)):
            return
        if (framework := self.frameworks.get(framework_id)) is not None:
            ids = {"agent_id": {"value": agent_id}, "executor_id": {"value": executor_id}}
            framework.send("FAILURE", **ids, status=0)

    def executor_message(
        self, agent_id: str, framework_id: str, executor_id: str, data: str
    ) -> None:
        """Pass a message of an executor on to its framework."""
        if (framework := self.frameworks.get(framework_id)) is not None:
            framework.send(
                "MESSAGE",
                agent_id={"value": agent_id},
                executor_id={"value": executor_id},
                data=data,
            )

    def drained(self, record: AgentRecord) -> None:
        """Give an agent up that was to be emptied for that, as soon as it is empty."""
        agent_id = record.info.id
        if record.drain is None or not record.drain.mark_gone or agent_id not in self.agents:
            return
        if not any(framework.tasks_on(agent_id) for framework in self.frameworks.values()):
            Membership(self).mark_gone(agent_id)

    def release_executor(self, record: AgentRecord, key: tuple[str, str]) -> bool:
        """Free what an executor used; whether it was there."""
        pool = record.executors.pop(key, None)
        if pool is None:
            return False
        record.used -= pool
        self._freed(record.info.id)
        return True

    def _give_up_recovered(self) -> None:
        """Count the agents of an earlier master that have not come as unreachable."""
        now = self.clock.time()
        for agent_id in list(self.recovered):
            logger.warning("agent %s has not registered again: unreachable", agent_id)
            del self.recovered[agent_id]
            self.registry.mark_unreachable(agent_id, now)
            self.tell_failure(agent_id)

    def tell_failure(self, agent_id: str) -> None:
        """Tell every framework that an agent is lost."""
        for framework in self.frameworks.values():
            framework.send("FAILURE", agent_id={"value": agent_id})

    # Frameworks

    def subscribe(self, call: Mapping[str, Any]) -> EventStream:
        """Open the stream of a validated SUBSCRIBE; what is wrong with it comes as an ERROR event."""
        return subscriptions.subscribe(self, call)

    def disconnected(self, stream: EventStream) -> None:
        """Note that a stream's connection is gone; its framework may come back for a while."""
        subscriptions.disconnected(self, stream)

    def remove_framework(self, framework: Framework) -> None:
        """Forget a framework for good and kill its tasks."""
        subscriptions.remove(self, framework)

    def trim_completed(self) -> None:
        """Forget the oldest of the frameworks that are no more."""
        while len(self.completed_frameworks) > MAX_COMPLETED_FRAMEWORKS:
            self.completed_frameworks.popitem(last=False)

    def new_framework_id(self) -> str:
        """Return an id that no framework of this master has had."""
        number = self._framework_count
        self._framework_count += 1
        return f"{self.id}-{number:04d}"

    # Allocation

    def allocate_soon(self, agent_id: str | None = None) -> None:
        """Allocate when the present event has been dealt with.

        Parameters
        ----------
        agent_id
            The only agent that has more to give than before; None: it may be any.
        """
        if agent_id is None:
            self.desk.attention.everywhere()
        else:
            self.desk.attention.at(agent_id)
        if self._prompt is None:
            self._prompt = self.clock.call_later(0, self.allocate)

    def allocate(self) -> None:
        """Make offers of all that is free."""
        if self._prompt is not None:
            self._prompt.cancel()
            self._prompt = None
        offers = self.desk.run()
        self.maintenance.ask()
        self.counters["allocations"] += 1
        timeout = self.settings.offer_timeout
        if offers and timeout is not None:
            self.clock.call_later(timeout, lambda: self.desk.withdraw(offers, rescind=True))

    def _tick(self) -> None:
        self._interval = self.clock.call_later(self.settings.allocation_interval, self._tick)
        if self.desk.settled:
            self.maintenance.ask()
        else:
            self.allocate()

    def _freed(self, agent_id: str) -> None:
        self.desk.attention.at(agent_id)
        if self.settings.prompt_allocation:
            self.allocate_soon(agent_id)

    # Descriptions

    def describe(self) -> dict[str, Any]:
        """Return the ``MasterInfo``."""
        host, port = self.address
        return {
            "id": self.id,
            "ip": _little_endian(host),
            "port": port,
            "pid": f"master@{host}:{port}",
            "hostname": self.hostname,
            "version": VERSION,
            "address": {"hostname": self.hostname, "ip": host, "port": port},
            "capabilities": [{"type": name} for name in CAPABILITIES],
        }

    def agent_message(self, record: AgentRecord) -> dict[str, Any]:
        """Return the ``GetAgents.Agent`` of an agent."""
        return agent_message(record, self.frameworks.values())

    # Tasks

    def add_task(self, framework: Framework, task: Task) -> None:
        """Enter a task whose resources are taken from now on."""
        framework.tasks[task.info.id] = task
        self.agents[task.info.agent_id].used += task.info.pool
        self.observers.task_added(task)

    def tell(
        self,
        framework: Framework,
        task: Task,
        state: TaskState,
        *,
        reason: str,
        message: str,
        **extra: Any,
    ) -> None:
        """Send a status that the master has made."""
        told = framework.info.reportable(state)
        self.counters[f"updates/{told.value}"] += 1
        status = master_status(
            task.info.id,
            told,
            reason=reason,
            message=message,
            agent_id=task.info.agent_id,
            time=self.clock.time(),
            **extra,
        )
        framework.send("UPDATE", status=status)
        task.remember(status)
        self.observers.task_updated(task, status, told)

    def set_task_state(self, task: Task, state: TaskState) -> None:
        """Note a task's newest state; its resources are free as soon as that is terminal."""
        if not task.state.is_terminal:
            task.state = state
        if state.is_terminal:
            self._release(task)

    def lose(self, framework: Framework, task: Task, state: TaskState = TaskState.LOST) -> None:
        """Note that a task is gone for good with its agent."""
        self.set_task_state(task, framework.info.reportable(state))
        self.complete(framework, task)

    def set_aside(self, framework: Framework, task: Task) -> None:
        """Note that nobody knows about a task for now."""
        self._release(task)
        if task.state.is_terminal:
            self.complete(framework, task)
            return
        task.state = framework.info.reportable(TaskState.UNREACHABLE)
        framework.unreachable[task.info.id] = framework.tasks.pop(task.info.id)

    def _release(self, task: Task) -> None:
        if task.released:
            return
        task.released = True
        self.agents[task.info.agent_id].used -= task.info.pool
        self._freed(task.info.agent_id)

    def complete(self, framework: Framework, task: Task) -> None:
        """Forget a task but for the record."""
        if not task.state.is_terminal:
            task.state = TaskState.KILLED
        self._release(task)
        del framework.tasks[task.info.id]
        framework.completed.append(task)
        record = self.agents.get(task.info.agent_id)
        if record is not None and record.drain is not None:
            self.drained(record)


def _little_endian(address: str) -> int:
    """Write an IPv4 address as ``MasterInfo.ip`` has it; 0 for what is none."""
    parts = address.split(".")
    if len(parts) != 4 or not all(part.isdigit() and int(part) < 256 for part in parts):
        return 0
    return int.from_bytes(bytes(map(int, parts)), "little")
