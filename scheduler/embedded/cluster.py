"""The embedded cluster: a Mesos-compatible master and its agents, in one process."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from scheduler.embedded.agent import Agent
from scheduler.embedded.agents import Agents
from scheduler.embedded.authentication import Credentials
from scheduler.embedded.checkpoint import Checkpoint
from scheduler.embedded.checks import Prober
from scheduler.embedded.clock import Clock, LoopClock
from scheduler.embedded.executors import Executor
from scheduler.embedded.executors.process import ProcessExecutor
from scheduler.embedded.faults import Faults
from scheduler.embedded.http import make_application
from scheduler.embedded.master import Master, Settings
from scheduler.embedded.model import AgentInfo, AgentSpec
from scheduler.embedded.operator_api import OperatorApi
from scheduler.embedded.recovery import Recover, recover
from scheduler.embedded.registry import Registry, RegistryKind
from scheduler.embedded.scheduler_api import SchedulerApi
from scheduler.errors import ClusterError
from scheduler.listening import SocketSite, begin

logger = logging.getLogger(__name__)

_WILDCARDS = ("0.0.0.0", "::", "")
_SHUTDOWN_TIMEOUT = 5.0
"""Seconds for open HTTP connections to end."""


class Cluster:
    """An async context manager that serves a cluster.

    When it is left, all tasks are killed (SIGTERM, their grace period, SIGKILL) and nothing of them survives.
    When it was killed itself, the next one with the same work folder takes up its agents and tasks.

    Parameters
    ----------
    agents
        The agents to start.
    work_dir
        Where sandboxes are; made when it is not there.
    host, port
        Where to listen; port 0 takes any that is free.
    allocation_interval
        Seconds between two allocation runs.
    prompt_allocation
        Whether freed resources are offered at once rather than at the next run.
    offer_timeout
        Seconds after which an offer that has not been answered is rescinded; None: never.
    agent_ping_timeout, max_agent_ping_timeouts
        An agent that is away for their product (seconds) counts as unreachable.
    kill_override
        Whether the kill policy of a KILL call overrides the task's (``--http_command_executor``).
    agent_reregister_timeout
        Seconds that agents have to register again after the master was exchanged.
    registry
        What of the master survives that.
    framework_credentials, operator_credentials
        Files with who may use the scheduler API, and everything else; None: everybody may.
    executor
        What runs tasks; local processes when it is not given.
    prober
        Looks after tasks with checks; on this machine's network when it is not given.
    clock
        The time; that of the event loop when it is not given.
    checkpoint
        Whether it is written down what a later run with the same work folder must know.
    recover
        What becomes of tasks that an earlier run with the same work folder has left.

    Raises
    ------
    ClusterError
        If two agents have the same name, or credentials cannot be read; on entering, if it cannot listen
        there, or another cluster has the work folder.
    """

    def __init__(
        self,
        agents: Sequence[AgentSpec],
        *,
        work_dir: Path,
        host: str = "127.0.0.1",
        port: int = 5050,
        allocation_interval: float = 1.0,
        prompt_allocation: bool = True,
        offer_timeout: float | None = None,
        agent_ping_timeout: float = 15.0,
        max_agent_ping_timeouts: int = 5,
        kill_override: bool = False,
        agent_reregister_timeout: float = 600.0,
        registry: RegistryKind = RegistryKind.IN_MEMORY,
        framework_credentials: Path | None = None,
        operator_credentials: Path | None = None,
        executor: Executor | None = None,
        prober: Prober | None = None,
        clock: Clock | None = None,
        checkpoint: bool = True,
        recover: Recover = Recover.RECONNECT,
    ) -> None:
        self._writes = checkpoint
        self._recover = recover
        self._specs = _distinct(agents)
        self._work_dir = work_dir.resolve()
        self._host, self._port = host, port
        self._settings = Settings(
            allocation_interval=allocation_interval,
            prompt_allocation=prompt_allocation,
            offer_timeout=offer_timeout,
            agent_ping_timeout=agent_ping_timeout,
            max_agent_ping_timeouts=max_agent_ping_timeouts,
            agent_reregister_timeout=agent_reregister_timeout,
            authenticate_frameworks=framework_credentials is not None,
            authenticate_operators=operator_credentials is not None,
        )
        self._framework_credentials = _credentials(framework_credentials)
        self._operator_credentials = _credentials(operator_credentials)
        self._registry = Registry(registry)
        self._given_clock = clock
        self._prober = prober
        self._kill_override = kill_override
        self._executor = executor or ProcessExecutor(self._work_dir)
        self._checkpoint = Checkpoint(self._work_dir)
        self._running: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._lock: int | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.BaseSite | None = None
        self._api: SchedulerApi | None = None
        self._master: Master | None = None
        self._operator_api: OperatorApi | None = None
        self._clock: Clock | None = None
        self.agents = Agents(self._make_agent, self._agent_address)
        """The agents, which can be killed, frozen, started again …"""
        self.faults = Faults(self)
        """What can be made go wrong."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port at which the master (and every agent) is reached."""
        return self.master.address

    @property
    def master(self) -> Master:
        """The master of a cluster that has been entered."""
        if self._master is None:
            raise ClusterError("the cluster has not been started")
        return self._master

    async def __aenter__(self) -> Self:
        self._failed = asyncio.get_running_loop().create_future()
        self._lock = _lock(self._work_dir)
        try:
            await self._begin(_listen(self._host, self._port))
        except BaseException:
            await self._executor.close()
            os.close(self._lock)
            raise
        logger.info("serving %d agents on %s:%d", len(self._specs), *self.address)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lock is None:
            raise ClusterError("the cluster has not been started")
        if self._site is not None:
            await self._site.stop()  # first of all: who reconnects must find nobody
        if self._api is not None:
            self._api.close()
        if self._master is not None:
            self._master.stop()
        cancelled = await self._end_tasks()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._executor.close()
        os.close(self._lock)
        if cancelled:
            raise asyncio.CancelledError
        if error is None:
            self._raise_failure()

    async def stop_master(self) -> None:
        """Let the master die: connections break, nobody listens; agents and tasks go on."""
        if self._site is None or self._api is None or self._runner is None:
            raise ClusterError("there is no master")
        master, self._port = self.master, self.address[1]
        self.agents.detach()
        master.stop()
        self._api.cut()  # in the same turn of the loop: or streams would end in good order
        if self._operator_api is not None:
            self._operator_api.cut()
        await self._site.stop()
        await self._runner.cleanup()
        self._registry = master.registry.inherited()
        self._site = self._api = self._runner = None

    async def start_master(self, recovery: float = 0.0, *, agents: bool = True) -> None:
        """Start another master, at the same address, with what the registry still knows.

        Parameters
        ----------
        recovery
            Seconds that it needs to read its registry; it answers 503 as long.
        agents
            Whether the agents find it at once; else :attr:`agents` has to be attached.
        """
        if self._site is not None:
            raise ClusterError("there is a master already")
        listener = _listen(self._host, self._port)
        self._make_master(listener.getsockname()[1])
        await self._serve(listener, recovery)
        if agents:
            self.agents.attach(self.master)

    async def _end_tasks(self) -> bool:
        """Kill all tasks and wait for their end; at once, and True, when that is cancelled."""
        cancelled = False
        for agent in self.agents:
            agent.kill_everything()
        while self._running:
            try:
                await asyncio.wait(self._running)
            except asyncio.CancelledError:  # impatience: nothing must be left all the same
                cancelled = True
                for agent in self.agents:
                    agent.kill_everything(grace=0.0)
        return cancelled

    async def serve_forever(self) -> None:
        """Serve until cancelled.

        Raises
        ------
        Exception
            What an internal fault of the cluster has raised; it is not left half working.
        """
        if self._failed is None:
            raise ClusterError("the cluster has not been started")
        await asyncio.shield(self._failed)

    def disconnect_agent(self, hostname: str) -> None:
        """Cut an agent off from the master; its tasks run on."""
        self.agents.kill(hostname)

    def reconnect_agent(self, hostname: str) -> None:
        """Let an agent that was cut off be reached again."""
        self.agents.start(self.agents[hostname].info.spec)

    async def _begin(self, listener: socket.socket) -> None:
        """Start a master and all agents, with what they had, and listen only then."""
        try:
            self._clock = self._given_clock or LoopClock(self._fail)
            master = self._make_master(listener.getsockname()[1])
            await recover(self._checkpoint, self._specs, self.agents, self._executor, self._recover)
            self.agents.attach(master)
            for spec in self._specs:
                if spec.hostname not in self.agents:
                    self.agents.start(spec)
            self._save_agents()
        except BaseException:
            listener.close()
            raise
        await self._serve(listener)

    async def _serve(self, listener: socket.socket, recovery: float = 0.0) -> None:
        """Let the master listen."""
        master = self.master
        try:
            master.ready_at = master.clock.monotonic() + recovery
            self.faults.befall(master)
            self._api = SchedulerApi(
                master, self._framework_credentials, gate=self.faults.before_call
            )
            self._operator_api = OperatorApi(master)
            application = make_application(
                master, self._api, self._operator_api, self._operator_credentials
            )
            self._runner = web.AppRunner(
                application,
                handler_cancellation=True,  # a lost connection must be noticed at once
                access_log=None,
                shutdown_timeout=_SHUTDOWN_TIMEOUT,
            )
            await self._runner.setup()
            self._site = SocketSite(self._runner, listener)
            await begin(self._site.start(), self._runner.cleanup)
        except BaseException:
            listener.close()
            raise
        master.start()

    def _make_master(self, port: int) -> Master:
        if self._clock is None:
            raise ClusterError("the cluster has not been started")
        host = "127.0.0.1" if self._host in _WILDCARDS else self._host
        self._master = Master(
            self._clock,
            address=(host, port),
            hostname=host,
            settings=self._settings,
            registry=self._registry,
        )
        return self._master

    def _agent_address(self, spec: AgentSpec) -> tuple[str, int]:
        host, port = self.master.address
        return (spec.hostname if self._host in _WILDCARDS else host, port)

    def _save_agents(self) -> None:
        self._checkpoint.save_agents(agent.info for agent in self.agents)

    def _make_agent(self, info: AgentInfo) -> Agent:
        return Agent(
            info,
            self._executor,
            self.master,
            self.master.clock,
            work_dir=self._work_dir,
            spawn=self._spawn,
            kill_override=self._kill_override,
            prober=self._prober,
            checkpoint=self._checkpoint if self._writes else None,
        )

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Notice the end of a background task; a failed one ends the whole cluster."""
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        logger.critical("internal fault: the cluster ends", exc_info=error)
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # it counts as seen, should nobody be waiting

    def _raise_failure(self) -> None:
        if self._failed is not None and self._failed.done():
            self._failed.result()


def _distinct(agents: Sequence[AgentSpec]) -> Sequence[AgentSpec]:
    """Refuse agents of one name."""
    names = Counter(agent.hostname for agent in agents)
    if repeated := sorted(name for name, count in names.items() if count > 1):
        raise ClusterError(f"several agents are called {', '.join(repeated)}")
    return agents


def _lock(work_dir: Path) -> int:
    """Take the work folder; a lock ends with the process, however that ends."""
    work_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(work_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise ClusterError(f"another cluster runs in {work_dir}") from exc
    return handle


def _credentials(path: Path | None) -> Credentials | None:
    return None if path is None else Credentials.read(path)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as exc:
        raise ClusterError(f"cannot listen on {host}:{port}: {exc}") from exc
