"""The master: a state machine of agents, frameworks and tasks.

Subscriptions and updates of agents go in; events for schedulers and orders to agents come out. It does no I/O
and asks a :class:`~scheduler.embedded.clock.Clock` for the time, so that it can run on a virtual one. What it
answers and in which order are facts of Mesos 1.12, read from recorded conversations with a real master. The
calls of a subscribed framework are in :mod:`~scheduler.embedded.calls`.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.embedded.agent import Agent
from scheduler.embedded.clock import Clock, Timer
from scheduler.embedded.model import AgentInfo, FrameworkInfo, TaskState
from scheduler.embedded.offers import OfferDesk
from scheduler.embedded.records import AgentRecord, Framework, FrameworkState, Task
from scheduler.embedded.stream import EventStream
from scheduler.embedded.updates import StatusUpdate
from scheduler.embedded.validation import validate_framework

logger = logging.getLogger(__name__)

VERSION = "1.12.0"
"""The Mesos version whose behaviour this is."""
CAPABILITIES = ("AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2")
HEARTBEAT_INTERVAL = 15.0
"""Seconds between HEARTBEAT events."""
MAX_COMPLETED_FRAMEWORKS = 50
_LONGEST_FAILOVER = 10 * 365 * 86400.0


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
    """

    def __init__(
        self,
        clock: Clock,
        *,
        address: tuple[str, int],
        hostname: str = "localhost",
        settings: Settings | None = None,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.clock = clock
        self.address = address
        self.hostname = hostname
        self.settings = settings or Settings()
        self.start_time = clock.time()
        self.agents: dict[str, AgentRecord] = {}
        self.frameworks: dict[str, Framework] = {}
        self.completed_frameworks: OrderedDict[str, Framework] = OrderedDict()
        self.desk = OfferDesk(clock, self.agents, self.frameworks, self.id)
        self.counters: Counter[str] = Counter()
        self._framework_count = 0
        self._interval: Timer | None = None
        self._prompt: Timer | None = None

    def start(self) -> None:
        """Begin to allocate."""
        self._interval = self.clock.call_later(self.settings.allocation_interval, self._tick)

    def stop(self) -> None:
        """End all streams and timers; tasks are not touched."""
        for timer in (self._interval, self._prompt):
            if timer is not None:
                timer.cancel()
        for framework in self.frameworks.values():
            self._stop_timers(framework)
            if framework.stream is not None:
                framework.stream.close()
        for agent in self.agents.values():
            if agent.loss is not None:
                agent.loss.cancel()

    # Agents

    def register(self, info: AgentInfo, agent: Agent) -> None:
        """Take a new agent."""
        self.agents[info.id] = AgentRecord(info, agent, self.clock.time())
        self.allocate_soon()

    def status_update(self, agent_id: str, update: StatusUpdate, latest: TaskState) -> None:
        """Take a status update of an agent's task and pass it on."""
        framework = self.frameworks.get(update.framework_id)
        task = None if framework is None else framework.tasks.get(update.task_id)
        if framework is None or task is None or not self.agents[agent_id].connected:
            return  # the agent will send it again, or has been told that nobody wants it
        self.set_task_state(task, latest)
        task.remember(update.status)
        self.counters[f"updates/{update.state.value}"] += 1
        framework.send("UPDATE", status=update.status)

    # Frameworks

    def subscribe(self, call: Mapping[str, Any]) -> EventStream:
        """Open the stream of a validated SUBSCRIBE; what is wrong with it comes as an ERROR event."""
        body = call["subscribe"]
        stream = EventStream()
        framework_id = body["framework_info"].get("id", {}).get("value", "")
        known = self.frameworks.get(framework_id)
        suppressed = body.get("suppressed_roles", [])
        problem = validate_framework(
            body["framework_info"], suppressed, None if known is None else known.info
        )
        if problem is None and framework_id in self.completed_frameworks:
            problem = "Framework has been removed"
        if problem is not None:
            stream.send({"type": "ERROR", "error": {"message": problem}})
            stream.close()
            return stream
        info = FrameworkInfo.from_mesos(body["framework_info"], framework_id or self._new_id())
        framework = self._add(info) if known is None else self._return(known, info)
        framework.suppressed = set(suppressed)
        self._connect(framework, stream)
        return stream

    def disconnected(self, stream: EventStream) -> None:
        """Note that a stream's connection is gone; its framework may come back for a while."""
        framework = next((f for f in self.frameworks.values() if f.stream is stream), None)
        stream.close()
        if framework is None:
            return
        logger.info("framework %s disconnected", framework.info.id)
        framework.set_state(FrameworkState.DISCONNECTED)
        framework.stream = None
        self._stop_timers(framework)
        self.desk.withdraw(framework.offers.values(), rescind=False)
        self.desk.clear_filters(framework.info.id)
        timeout = min(max(0.0, framework.info.failover_timeout), _LONGEST_FAILOVER)
        if timeout == 0:
            self.remove_framework(framework)
        else:
            remove = self.remove_framework
            framework.failover = self.clock.call_later(timeout, lambda: remove(framework))
        self.allocate_soon()

    def remove_framework(self, framework: Framework) -> None:
        """Forget a framework for good and kill its tasks."""
        logger.info("framework %s removed", framework.info.id)
        self.desk.withdraw(framework.offers.values(), rescind=False)
        self.desk.clear_filters(framework.info.id)
        self._stop_timers(framework)
        framework.set_state(FrameworkState.REMOVED)
        framework.unregistered_time = self.clock.time()
        for task in list(framework.tasks.values()):
            self._release(task)
            self.complete(framework, task)
        for agent in self.agents.values():
            if agent.connected:  # others are told when they return
                agent.agent.shutdown_framework(framework.info.id)
        if framework.stream is not None:
            framework.stream.close()
            framework.stream = None
        del self.frameworks[framework.info.id]
        self.completed_frameworks[framework.info.id] = framework
        while len(self.completed_frameworks) > MAX_COMPLETED_FRAMEWORKS:
            self.completed_frameworks.popitem(last=False)
        self.allocate_soon()

    # Allocation

    def allocate_soon(self) -> None:
        """Allocate when the present event has been dealt with."""
        if self._prompt is None:
            self._prompt = self.clock.call_later(0, self.allocate)

    def allocate(self) -> None:
        """Make offers of all that is free."""
        if self._prompt is not None:
            self._prompt.cancel()
            self._prompt = None
        offers = self.desk.run()
        self.counters["allocations"] += 1
        timeout = self.settings.offer_timeout
        if offers and timeout is not None:
            self.clock.call_later(timeout, lambda: self.desk.withdraw(offers, rescind=True))

    def _tick(self) -> None:
        self._interval = self.clock.call_later(self.settings.allocation_interval, self._tick)
        self.allocate()

    # What becomes of a subscription

    def _new_id(self) -> str:
        number = self._framework_count
        self._framework_count += 1
        return f"{self.id}-{number:04d}"

    def _add(self, info: FrameworkInfo) -> Framework:
        logger.info("framework %s (%s) subscribes", info.id, info.name)
        framework = Framework(info, self.clock.time())
        self.frameworks[info.id] = framework
        return framework

    def _return(self, framework: Framework, info: FrameworkInfo) -> Framework:
        """Let a known framework subscribe again, over a live stream or after a disconnection."""
        logger.info("framework %s (%s) subscribes again", info.id, info.name)
        framework.info = framework.info.updated(info)
        framework.reregistered_time = self.clock.time()
        self._stop_timers(framework)
        self.desk.withdraw(framework.offers.values(), rescind=False)
        if framework.stream is not None:
            framework.send("ERROR", message="Framework failed over")
            framework.stream.close()
            framework.stream = None
            framework.set_state(FrameworkState.DISCONNECTED)
        return framework

    def _connect(self, framework: Framework, stream: EventStream) -> None:
        framework.stream = stream
        framework.set_state(FrameworkState.CONNECTED)
        framework.send(
            "SUBSCRIBED",
            framework_id={"value": framework.info.id},
            heartbeat_interval_seconds=HEARTBEAT_INTERVAL,
            master_info=self.describe(),
        )
        self._heartbeat(framework)
        for agent in self.agents.values():
            if agent.connected:
                agent.agent.resume_updates(framework.info.id)
        self.allocate_soon()

    def _heartbeat(self, framework: Framework) -> None:
        framework.heartbeat = self.clock.call_later(
            HEARTBEAT_INTERVAL, lambda: self._heartbeat(framework)
        )
        framework.send("HEARTBEAT")

    def _stop_timers(self, framework: Framework) -> None:
        for timer in (framework.heartbeat, framework.failover):
            if timer is not None:
                timer.cancel()
        framework.heartbeat = framework.failover = None

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

    # Tasks

    def set_task_state(self, task: Task, state: TaskState) -> None:
        """Note a task's newest state; its resources are free as soon as that is terminal."""
        if not task.state.is_terminal:
            task.state = state
        if state.is_terminal:
            self._release(task)

    def lose(self, framework: Framework, task: Task) -> None:
        """Note that a task is gone for good with its agent."""
        self.set_task_state(task, TaskState.LOST)
        self.complete(framework, task)

    def set_aside(self, framework: Framework, task: Task) -> None:
        """Note that nobody knows about a task for now."""
        self._release(task)
        if task.state.is_terminal:
            self.complete(framework, task)
            return
        task.state = TaskState.UNREACHABLE
        framework.unreachable[task.info.id] = framework.tasks.pop(task.info.id)

    def take_back(self, framework: Framework, task: Task, state: TaskState) -> None:
        """Note that a task that was set aside is there again, in this state."""
        framework.tasks[task.info.id] = task
        task.state = state
        if not state.is_terminal:
            self.agents[task.info.agent_id].used += task.info.pool
            task.released = False

    def _release(self, task: Task) -> None:
        if task.released:
            return
        task.released = True
        self.agents[task.info.agent_id].used -= task.info.pool
        if self.settings.prompt_allocation:
            self.allocate_soon()

    def complete(self, framework: Framework, task: Task) -> None:
        """Forget a task but for the record."""
        if not task.state.is_terminal:
            task.state = TaskState.KILLED
        del framework.tasks[task.info.id]
        framework.completed.append(task)


def _little_endian(address: str) -> int:
    """Write an IPv4 address as ``MasterInfo.ip`` has it; 0 for what is none."""
    parts = address.split(".")
    if len(parts) != 4 or not all(part.isdigit() and int(part) < 256 for part in parts):
        return 0
    return int.from_bytes(bytes(map(int, parts)), "little")
