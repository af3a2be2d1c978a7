"""The scheduler, whole: one object that launches graphs, watches them, and takes them down.

Everything happens on one event loop: what Mesos says is handled event after event by one task, one other
task tries the graphs that wait for a place, a third keeps the timers. If one of them dies of a fault of
ours, the scheduler says so through :attr:`Scheduler.failed` and to everyone who waits, never silently.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from scheduler import batch, launch, restart
from scheduler.agents import Agents
from scheduler.background import Background
from scheduler.closing import Closing
from scheduler.closures import Closures
from scheduler.effects import Effects
from scheduler.equipment import Equipment
from scheduler.errors import FrameworkError, GraphError, RestartError, SchedulerError
from scheduler.figures import Figures, NoFigures
from scheduler.framework import WEEKS, Framework, FrameworkSettings
from scheduler.goahead import GoAhead
from scheduler.graph import PhysicalGraph
from scheduler.graphs import Graphs
from scheduler.images import ImageResolver, pinned
from scheduler.journal import GraphPhase, Journal
from scheduler.listeners import Listeners
from scheduler.occupancy import Occupancy
from scheduler.offers import OfferPool
from scheduler.permission import Permission, granted
from scheduler.policy import BATCH, REALTIME, Queue, for_whole_graphs
from scheduler.questions import Questions
from scheduler.queues import LaunchQueue
from scheduler.rebuilding import Rebuilding
from scheduler.recovery import restore
from scheduler.restart import RestartPlan
from scheduler.runs import GraphRun, LateValues, Runs, TaskEntry
from scheduler.shutdown import kill_until_dead
from scheduler.subscription import Subscription, Timing
from scheduler.tls import GoAheadTls
from scheduler.validation import require_seconds
from scheduler.views import AgentsChanged, BatchResult

logger = logging.getLogger(__name__)


class Scheduler(Questions):
    """Launches graphs of tasks on a Mesos cluster.

    An asynchronous context manager: entering it reads the journal and begins to subscribe (it does not wait for
    a master), leaving it ends the link and lets all tasks run on.

    Parameters
    ----------
    master
        ``host:port`` or ``zk://…``.
    journal
        Where intents are written before they become acts.
    framework_name, user, roles
        How Mesos shall know us. A role other than ``*`` gets what is reserved for it, and what is not. A task
        draws from one role only: with several, what is unreserved is offered to one of them at a time.
    goahead_host, goahead_port
        Where waiting tasks are answered; port 0 takes a free one.
    goahead_urls
        Base URLs at which tasks can reach this and other controllers; the own one if none are given.
    goahead_tls
        Certificate and key, and whom tasks believe; plain HTTP without.
    principal, secret, mesos_tls
        Credentials at the master; over TLS, if there is a context to check certificates with.
    may_act
        Whether this controller may act at the moment, by a lease that only one has; None: there is no lease.
    queues
        Where graphs can wait for their place; ``realtime`` and ``batch`` are used where none is named.
    images
        Turns the names of container images into digests when a graph is launched; left as they are without.
    figures
        Is told of offers, packing and waiting.
    """

    def __init__(
        self,
        *,
        master: str,
        journal: Journal,
        framework_name: str,
        user: str | None = None,
        roles: Sequence[str] = ("sdp",),
        goahead_host: str = "127.0.0.1",
        goahead_port: int = 0,
        goahead_urls: Sequence[str] = (),
        goahead_tls: GoAheadTls | None = None,
        principal: str | None = None,
        secret: str | None = None,
        mesos_tls: ssl.SSLContext | None = None,
        failover_timeout: float = WEEKS,
        timing: Timing | None = None,
        queues: Sequence[Queue] = (REALTIME, BATCH),
        images: ImageResolver | None = None,
        may_act: Callable[[], bool] | None = None,
        figures: Figures | None = None,
    ) -> None:
        self._settings = FrameworkSettings(
            master=master,
            name=framework_name,
            roles=tuple(roles),
            principal=principal,
            secret=secret,
            tls=mesos_tls,
            failover_timeout=failover_timeout,
            may_act=may_act,
            user=user if user is not None else getpass.getuser(),
        )
        self._timing = timing or Timing()
        self._journal = journal
        self._goahead_tls = tls = goahead_tls or GoAheadTls()
        self._gates = GoAhead(goahead_host, goahead_port, may_act=may_act, tls=tls.context)
        self._goahead_urls = tuple(goahead_urls)
        self._pool = OfferPool()
        self._images = images
        self._closures = closures = Closures()
        self._background = Background(self._died)
        listeners, agents = Listeners(), Agents(closures, self._settings.roles)
        self._figures = figures or NoFigures()
        self._effects = Effects(self._gates, self._background, listeners.tell)
        runs = Runs(journal, self._effects)
        tell, several = listeners.tell, len(roles) > 1
        occupancy = Occupancy(runs, self._end_for_others, tell, several_roles=several)
        offers = self._pool, agents, occupancy, self._want_offers, closures, self._figures
        super().__init__(
            runs=runs,
            queue=LaunchQueue(*offers),
            agents=agents,
            occupancy=occupancy,
            queues=queues,
            listeners=listeners,
        )
        self._closing = Closing(journal, closures, self._closed)
        self._framework: Framework | None = None
        self._equipment: Equipment | None = None
        self._graphs: Graphs | None = None
        self.failed: asyncio.Future[None] | None = None
        """Done only when the scheduler died of a fault of its own; holds the exception."""

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close(teardown=False)
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close(teardown=False)

    async def start(self) -> None:
        """Read the journal and begin to subscribe.

        Raises
        ------
        JournalError
            If the journal cannot be read.
        OSError
            If the go-ahead's address cannot be listened on.
        """
        state = await self._journal.load()
        self.failed = asyncio.get_running_loop().create_future()
        await self._gates.start()
        self._closures.drain(state.drained)
        self._framework = Framework(self._settings, state.framework_id, self._figures)
        self._effects.framework = self._framework
        self._subscription = Subscription(
            self._settings,
            self._framework,
            state.framework_id,
            journal=self._journal,
            runs=self._runs,
            queue=self._queue,
            pool=self._pool,
            agents=self._agents,
            timing=self._timing,
            tell=self._listeners.tell,
            figures=self._figures,
        )
        self._equipment = Equipment(
            framework=self._framework,
            gates=self._gates,
            journal=self._journal,
            queue=self._queue,
            runs=self._runs,
            controllers=self._goahead_urls or (self._gates.base_url,),
            goahead_tls=self._goahead_tls,
            goahead_deadline=self._timing.goahead,
            kill_interval=self._timing.kill_interval,
        )
        self._graphs = Graphs(self._equipment, self._background)
        kit, tell = self._equipment, self._listeners.tell
        self._subscription.rebuilding = Rebuilding(kit, self._graphs, self._background, tell)
        for run in await restore(state):
            self._graphs.take_up(run, self._timing.adoption)
            await asyncio.sleep(0)
        await self._framework.start()
        link = self._subscription
        for work in (link.listen(), link.keep_time(), self._queue.work()):
            self._background.spawn(work)

    async def loaded(self) -> None:
        """Wait until all that placing needs is loaded; the first graph waits for that, too."""
        await self._queue.loaded.wait()

    async def close(self, *, teardown: bool) -> None:
        """End the link to Mesos.

        Parameters
        ----------
        teardown
            Whether Mesos shall forget us and kill all our tasks; otherwise they run on, for a successor.

        Raises
        ------
        FrameworkError
            If Mesos could not be told to tear down. Everything else is closed all the same.
        """
        if self._background.closed:
            return
        await self._background.close()
        try:
            if self._framework is not None:
                await self._framework.stop(teardown=teardown)
            if teardown:
                await self._journal.record_framework_id(None)
        finally:
            await self._gates.stop()
            if self.failed is not None and not self.failed.done():
                self.failed.cancel()

    def _died(self, error: BaseException) -> None:
        """Tell everyone who waits that the scheduler died of a fault of its own."""
        if self.failed is not None and not self.failed.done():
            self.failed.set_exception(error)
        for run in self._runs:
            self._queue.withdraw(
                run.graph.graph_id, SchedulerError(f"the scheduler died: {error!r}")
            )
            run.ask_to_stop(f"the scheduler died: {error!r}")

    def _ready(self, *, with_master: bool = False) -> tuple[Equipment, Graphs]:
        if self._equipment is None or self._graphs is None or self._background.closed:
            raise FrameworkError("the scheduler is not running")
        if with_master and self._subscription is not None:
            self._subscription.require_master()
        return self._equipment, self._graphs

    def _end_for_others(self, run: GraphRun, entry: TaskEntry, cause: str) -> None:
        if self._equipment is not None and not self._background.closed:
            self._background.spawn(kill_until_dead(self._equipment, run, entry, cause))

    def _closed(self) -> None:
        self._queue.poke()
        self._listeners.tell(AgentsChanged())

    def _want_offers(self, wanted: bool) -> None:
        if self._subscription is not None and not self._background.closed:
            self._subscription.want_offers(wanted)

    # ------------------------------------------------------------------ commands

    async def launch(
        self,
        graph: PhysicalGraph,
        *,
        timeout: float,
        priority: int = 0,
        queue: str = REALTIME.name,
        late_values: LateValues | None = None,
    ) -> None:
        """Bring a graph up: returns when every task is ready.

        Cancelling it takes the graph down in the background.

        Parameters
        ----------
        timeout
            Seconds within which the graph must find its place.
        queue, priority
            Where it waits; higher comes first in its queue.
        late_values
            Given a task's name, returns what its go-ahead shall carry. Awaited before each go-ahead, when all
            that the task waits for is ready: what the task must find when it begins can be made here. A
            ``SchedulerError`` that it raises ends the launch.

        Raises
        ------
        GraphError
            If the graph cannot be run, one of that id exists, or there is no such queue.
        NoFitError, NeverFitsError, LaunchError
            If it could not be brought up. Its tasks are dead then, or still being killed if one does not end
            (its agent is unreachable, say); :meth:`tasks` shows them.
        ImageError
            If an image could not be resolved.
        JournalError
            If the intent could not be written.
        FrameworkError
            If there has been no Mesos master for longer than one takes to fail over.
        """
        _, graphs = self._ready(with_master=True)
        require_seconds(timeout)
        waits_in = self._queue_named(queue)
        if self._images is not None:
            graph = await pinned(graph, self._images)
        run = await graphs.admit(graph)
        run.queue, run.late_values = for_whole_graphs(waits_in), late_values
        await self._launch(run, timeout=timeout, priority=priority)

    async def resume(
        self,
        graph_id: str,
        *,
        timeout: float,
        priority: int = 0,
        queue: str = REALTIME.name,
        late_values: LateValues | None = None,
    ) -> None:
        """Go on with a launch that a predecessor began; as :meth:`launch` else.

        What of it already runs goes on where it was. What was not launched yet is placed anew. It must be
        called within ``Timing.adoption`` seconds after :meth:`start`.

        Raises
        ------
        GraphError
            If there is no such launch (any more), or no such queue.
        """
        _, graphs = self._ready()
        waits_in = self._queue_named(queue)
        run = graphs.resume(graph_id)
        run.queue, run.late_values = for_whole_graphs(waits_in), late_values
        await self._launch(run, timeout=timeout, priority=priority, resume=True)

    def adopt(
        self,
        graph_id: str,
        *,
        queue: str = REALTIME.name,
        late_values: LateValues | None = None,
    ) -> None:
        """Take care of a graph that was up under a predecessor: what :meth:`restart_task` will need.

        Raises
        ------
        GraphError
            If there is no such graph, or it is not up; or there is no such queue.
        """
        waits_in = self._queue_named(queue)
        run = self._runs.get(graph_id)
        if run is None or run.phase is not GraphPhase.UP:
            raise GraphError(f"there is no graph {graph_id} that is up")
        run.queue, run.late_values = for_whole_graphs(waits_in), late_values

    async def _launch(
        self, run: GraphRun, *, timeout: float, priority: int, resume: bool = False
    ) -> None:
        equipment, graphs = self._ready()
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            if resume and self._subscription is not None:
                await self._subscription.known(timeout)
            run.walked = True
            await launch.launch(equipment, run, deadline=deadline, priority=priority, resume=resume)
        except asyncio.CancelledError:
            graphs.abandon(run, "the launch was cancelled")
            raise
        except Exception:
            if run.dead:
                await graphs.bury(run, keep_views=True)
            else:  # something does not end: go on with it
                graphs.abandon(run, "its launch failed")
            raise

    async def restart_task(self, graph_id: str, name: str, *, timeout: float) -> RestartPlan:
        """Start one task of a graph that is up anew, under a new id; see :mod:`scheduler.restart`.

        Whether, and where, is said by its template's policy. Returns when it is ready, with what had to be
        restarted along with it. Cancelling it ends those tasks; the others run on in any case.

        Parameters
        ----------
        timeout
            Seconds within which the old one must be dead and the new one must have found its place.

        Raises
        ------
        RestartError
            If it cannot be restarted, with the reason; nothing has happened then.
        NoFitError, LaunchError
            If it did not come up again. It is dead then, or told to end, and so is what came along.
        JournalError
            If the intent could not be written.
        """
        equipment, graphs = self._ready(with_master=True)
        require_seconds(timeout)
        run = self._runs.get(graph_id)
        if run is None:
            raise RestartError(f"there is no graph {graph_id}")
        return await restart.restart(
            equipment,
            run,
            name,
            timeout=timeout,
            abandon=lambda names, cause: graphs.end_tasks(run, names, cause),
        )

    async def run_batch(
        self,
        graph: PhysicalGraph,
        *,
        attempts: int = 2,
        timeout: float,
        priority: int = 0,
        queue: str = BATCH.name,
        concluded: Callable[[BatchResult], Awaitable[None]] | None = None,
        retries: Permission = granted,
    ) -> BatchResult:
        """Run every node of a graph until it has finished, or its attempts are used up.

        A graph that a predecessor began is gone on with: what has finished is not run again. Cancelling it
        takes the graph down in the background.

        Parameters
        ----------
        timeout
            Seconds after which everything is ended, finished or not.
        concluded
            Awaited with the result before the graph is forgotten: what must survive can be written there.
        retries
            When a node may be tried again; what waits for that is told by :attr:`TaskView.held`.

        Raises
        ------
        GraphError
            If the graph is none that runs to completion, one of that id exists, or there is no such queue.
        ImageError
            If an image could not be resolved.
        JournalError
            If the intent could not be written.
        """
        equipment, graphs = self._ready()
        batch.check(graph)
        require_seconds(timeout)
        waits_in = self._queue_named(queue)
        if self._images is not None:
            graph = await pinned(graph, self._images)
        run = await graphs.admit_batch(graph)
        run.queue, run.batch = waits_in, True
        deadline = asyncio.get_running_loop().time() + timeout
        terms = batch.Terms(
            attempts=attempts, deadline=deadline, priority=priority, retries=retries
        )
        return await batch.conduct(equipment, graphs, run, terms, concluded)

    async def stop(self, graph_id: str, *, force: bool = False) -> None:
        """Take a graph down in the order of its KILL edges; returns when all its tasks are dead.

        A graph that is not known is down already. A launch that goes on raises ``LaunchError``.

        Parameters
        ----------
        force
            Kill all tasks at once, without order and without their time of grace; also when another call takes
            the graph down in order already.
        """
        _, graphs = self._ready()
        if (run := self._runs.get(graph_id)) is not None:
            if force:
                run.hurry()
            await graphs.stop(run, "it is taken down")

    async def drain(self, host: str, reason: str = "") -> None:
        """Let a host get no new tasks, until :meth:`undrain`; those that run there go on.

        It is remembered over restarts, whether such a host is there now or not.

        Raises
        ------
        JournalError
            If that could not be written; nothing has changed then.
        """
        self._ready()
        await self._closing.drain(host, reason)

    async def undrain(self, host: str) -> None:
        """Let a host get new tasks again; raises as :meth:`drain`."""
        self._ready()
        await self._closing.undrain(host)
