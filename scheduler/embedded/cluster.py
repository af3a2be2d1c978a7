"""The embedded cluster: a Mesos-compatible master and its agents, in one process."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from scheduler.embedded.agent import Agent
from scheduler.embedded.clock import Clock, LoopClock
from scheduler.embedded.executors import Executor
from scheduler.embedded.executors.process import ProcessExecutor
from scheduler.embedded.http import make_application
from scheduler.embedded.master import Master, Settings
from scheduler.embedded.membership import Membership
from scheduler.embedded.model import AgentInfo, AgentSpec
from scheduler.embedded.scheduler_api import SchedulerApi
from scheduler.errors import ClusterError

logger = logging.getLogger(__name__)

_WILDCARDS = ("0.0.0.0", "::", "")
_SHUTDOWN_TIMEOUT = 5.0
"""Seconds for open HTTP connections to end."""


class Cluster:
    """An async context manager that serves a cluster.

    When it is left, all tasks are killed (SIGTERM, their grace period, SIGKILL) and nothing of them survives. A
    task of an earlier run with the same work folder is killed at the start.

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
    executor
        What runs tasks; local processes when it is not given.

    Raises
    ------
    ClusterError
        If two agents have the same name; on entering, if it cannot listen there, or another cluster has
        the work folder.
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
        executor: Executor | None = None,
    ) -> None:
        names = [agent.hostname for agent in agents]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ClusterError(f"several agents are called {', '.join(repeated)}")
        self._specs = agents
        self._work_dir = work_dir.resolve()
        self._host, self._port = host, port
        self._settings = Settings(
            allocation_interval=allocation_interval,
            prompt_allocation=prompt_allocation,
            offer_timeout=offer_timeout,
            agent_ping_timeout=agent_ping_timeout,
            max_agent_ping_timeouts=max_agent_ping_timeouts,
        )
        self._kill_override = kill_override
        self._executor = executor or ProcessExecutor(self._work_dir)
        self._running: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._lock: int | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.BaseSite | None = None
        self._api: SchedulerApi | None = None
        self._master: Master | None = None
        self._agents: list[Agent] = []

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
            listener = _listen(self._host, self._port)
            try:
                await self._executor.recover(())
                await self._start(listener)
            except BaseException:
                listener.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._site is None or self._api is None or self._runner is None or self._lock is None:
            raise ClusterError("the cluster has not been started")
        await self._site.stop()  # first of all: who reconnects must find nobody
        self._api.close()
        self.master.stop()
        cancelled = await self._end_tasks()
        await self._runner.cleanup()
        await self._executor.close()
        os.close(self._lock)
        if cancelled:
            raise asyncio.CancelledError
        if error is None:
            self._raise_failure()

    async def _end_tasks(self) -> bool:
        """Kill all tasks and wait for their end; at once, and True, when that is cancelled."""
        cancelled = False
        for agent in self._agents:
            agent.kill_everything()
        while self._running:
            try:
                await asyncio.wait(self._running)
            except asyncio.CancelledError:  # impatience: nothing must be left all the same
                cancelled = True
                for agent in self._agents:
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
        Membership(self.master).disconnect(self._agent_id(hostname))

    def reconnect_agent(self, hostname: str) -> None:
        """Let an agent that was cut off be reached again."""
        Membership(self.master).reconnect(self._agent_id(hostname))

    def _agent_id(self, hostname: str) -> str:
        for agent in self._agents:
            if agent.info.spec.hostname == hostname:
                return agent.info.id
        raise ClusterError(f"there is no agent {hostname!r}")

    async def _start(self, listener: socket.socket) -> None:
        clock: Clock = LoopClock(self._fail)
        port = listener.getsockname()[1]
        host = "127.0.0.1" if self._host in _WILDCARDS else self._host
        master = Master(clock, address=(host, port), hostname=host, settings=self._settings)
        self._master = master
        for number, spec in enumerate(self._specs, start=1):
            self._add_agent(master, clock, number, spec)
        self._api = SchedulerApi(master)
        application = make_application(master, self._api)
        self._runner = web.AppRunner(
            application,
            handler_cancellation=True,  # a lost connection must be noticed at once
            access_log=None,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
        await self._runner.setup()
        self._site = web.SockSite(self._runner, listener)
        await self._site.start()
        master.start()
        logger.info("serving %d agents on %s:%d", len(self._specs), host, port)

    def _add_agent(self, master: Master, clock: Clock, number: int, spec: AgentSpec) -> None:
        host = spec.hostname if self._host in _WILDCARDS else master.address[0]
        info = AgentInfo(master.new_agent_id(), number, spec, (host, master.address[1]))
        agent = Agent(
            info,
            self._executor,
            master,
            clock,
            work_dir=self._work_dir,
            spawn=self._spawn,
            kill_override=self._kill_override,
        )
        self._agents.append(agent)
        Membership(master).register(agent)

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


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as exc:
        raise ClusterError(f"cannot listen on {host}:{port}: {exc}") from exc
