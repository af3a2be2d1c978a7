"""The requests about tasks, agents and the whole; as :mod:`katcp_iface.requests`.

Annotations are evaluated here, unlike in other modules: aiokatcp decodes arguments by them.
"""

import aiokatcp
from aiokatcp.server import RequestContext

from katcp_iface.hints import NO_HINT, hints
from katcp_iface.requests import CaptureRequests
from sdpcontroller.config.problems import suggestion
from sdpcontroller.control import (
    DrainAgent,
    LookUpImage,
    RestartTask,
    ResumeRepair,
    SetTargetState,
    ShutDown,
    TaskLog,
    UndrainAgent,
)


class ClusterRequests(CaptureRequests):
    """What runs where."""

    async def request_task_list(self, ctx: RequestContext, name: str | None = None) -> None:
        """List the tasks: state, host, and what they hold.

        Parameters
        ----------
        name : str, optional
            Only tasks of this product; fails if there is none of that name.

        Informs
        -------
        task : str
            Name of the task, product first: PRODUCT.TASK.
        state : str
            planned, placed, launching, waiting, starting, ready, stopping or dead; in brackets how it ended, or
            what it waits for where only an operator can let it go on.
        host : str
            Host of the task, once it is placed.
        resources : str
            What the task holds, as text.

        Returns
        -------
        informs : int
            Number of tasks.
        """
        ctx.informs(
            (
                f"{record.name}.{task.name}",
                f"{task.state} ({why})" if (why := task.outcome or task.held) else task.state,
                task.host,
                task.resources,
            )
            for record in self.chosen(name).values()
            for task in record.tasks.values()
        )

    async def request_task_restart(self, ctx: RequestContext, name: str, task: str) -> None:
        """Start one task of a product again, with those that the graph demands to come along.

        Replies when all of them are ready and, where a capture is on, take part in it. What may be restarted is
        said by the graph: a task in the way of the data of a capture may not.

        Parameters
        ----------
        name : str
            Name of the product.
        task : str
            Name of the task, without the product's.

        Informs
        -------
        task : str
            A task that was started again.

        Returns
        -------
        informs : int
            Number of tasks.
        """
        self.product(name)
        ctx.informs((restarted,) for restarted in await self.execute(RestartTask(name, task)))

    async def request_task_log(self, ctx: RequestContext, name: str, task: str) -> None:
        """Show the last lines that a task has written.

        Parameters
        ----------
        name : str
            Name of the product.
        task : str
            Name of the task, without the product's.

        Informs
        -------
        line : str
            A line of its standard error, or of its output where there is none.

        Returns
        -------
        informs : int
            Number of lines; 0 where its agent does not answer.
        """
        self.product(name)
        ctx.informs((line,) for line in await self.execute(TaskLog(name, task)))

    async def request_image_lookup(self, ctx: RequestContext, repo: str, tag: str) -> str:
        """Say what a tag of a container image means now.

        Parameters
        ----------
        repo : str
            Repository of the image, with its registry.
        tag : str
            Tag of the image.

        Returns
        -------
        image : str
            Full reference of the image, with its digest.
        """
        return await self.execute(LookUpImage(repo, tag))

    async def request_queue_list(self, ctx: RequestContext, name: str | None = None) -> None:
        """List the queues in which products and their postprocessing wait for a place, the highest first.

        Parameters
        ----------
        name : str, optional
            Only this queue; fails if there is none of that name.

        Informs
        -------
        name : str
            Name of the queue.
        priority : int
            Everybody of a higher queue is tried before all of a lower one.
        waiting : int
            Graphs that wait in it; of postprocessing each task by itself.
        oldest : float
            For how long the first of them waits [s]; 0 where nobody does.
        terms : str
            For which work it is, and what is particular to it, as text.

        Returns
        -------
        informs : int
            Number of queues.
        """
        queues = self.control.queues()
        chosen = [queue for queue in queues if name in (None, queue.name)]
        if name is not None and not chosen:
            known = [queue.name for queue in queues]
            raise aiokatcp.FailReply(
                f"there is no queue {name[:80]!r}{suggestion(name, known)} (queues: {', '.join(known)})"
            )
        ctx.informs((q.name, q.priority, q.waiting, q.oldest, q.terms) for q in chosen)

    async def request_agent_list(self, ctx: RequestContext, host: str | None = None) -> None:
        """List the agents: state, and what is free.

        Parameters
        ----------
        host : str, optional
            Only the agents on this host; fails if there is none.

        Informs
        -------
        host : str
            Host of the agent.
        state : {up, draining, quarantined, lost}
            State of the agent.
        free : str
            What is free on it, as text.
        reason : str
            Why it is not up, if it is not.

        Returns
        -------
        informs : int
            Number of agents.
        """
        agents = self.control.agents()
        chosen = [agent for agent in agents if host in (None, agent.host)]
        if host is not None and not chosen:
            hosts = sorted({agent.host for agent in agents})
            raise aiokatcp.FailReply(
                f"there is no agent on {host[:80]!r}{suggestion(host, hosts)} "
                f"(hosts: {', '.join(hosts) or 'none'})"
            )
        ctx.informs((agent.host, agent.state, agent.free, agent.reason) for agent in chosen)

    async def request_agent_drain(self, ctx: RequestContext, host: str, reason: str = "") -> None:
        """Let the agents on a host get no new tasks, until ?agent-undrain. Those that run there go on.

        It is remembered when the controller restarts. The host is empty when ?task-list shows no task there.

        Parameters
        ----------
        host : str
            Host of the agents; fails if there is none.
        reason : str, optional
            For people: ?agent-list shows it.

        Informs
        -------
        task : str
            A task that is still there, product first: PRODUCT.TASK.

        Returns
        -------
        informs : int
            Number of tasks.
        """
        ctx.informs((task,) for task in await self.execute(DrainAgent(host, reason)))

    async def request_agent_undrain(self, ctx: RequestContext, host: str) -> None:
        """Let the agents on a host get new tasks again; a host that was not drained stays as it is.

        Parameters
        ----------
        host : str
            Host of the agents, whether they are there now or not.
        """
        await self.execute(UndrainAgent(host))

    async def request_repair_resume(self, ctx: RequestContext) -> str:
        """Let products start tasks again by themselves, after many agents were lost at once.

        Until then the alarm `repair` says why they do not. It changes nothing when there is no such pause.

        Returns
        -------
        reason : str
            Why there was a pause; empty if there was none.
        """
        return await self.execute(ResumeRepair())


class SystemRequests(ClusterRequests):
    """The whole."""

    async def request_set_target_state(self, ctx: RequestContext, state: str) -> None:
        """Command the state of the whole. Replies when that is recorded; the sensor `state` follows it.

        ON takes products. DISABLE takes no new ones, and lets those that run finish. STANDBY aborts those that
        run. OFF does that, too; machines are switched off by ?sdp-shutdown only.

        Parameters
        ----------
        state : {ON, DISABLE, STANDBY, OFF}
            The state.
        """
        await self.execute(SetTargetState(state.upper()))

    async def request_request_timeout_hint(
        self, ctx: RequestContext, request: str | None = None
    ) -> None:
        """List how long clients ought to wait for the replies to requests that may take long.

        Hints are what the limits of the controller add up to, a failure's reasons included. They do not count
        a wait that a configuration asks for (config.shutdown_delay) or that another request of the same
        product causes. A request that is not listed is answered within seconds.

        Parameters
        ----------
        request : str, optional
            Only this request, whether it has a hint or not; fails if there is none of that name.

        Informs
        -------
        request : str
            Name of the request.
        timeout : float
            Seconds after which it has been answered; 0 where there is no hint.

        Returns
        -------
        informs : int
            Number of requests.
        """
        found = hints(self.control)
        if request is not None:
            if not self.knows(request):
                raise aiokatcp.FailReply(f"there is no request {request[:80]!r}: see ?help")
            found = {request: found.get(request, NO_HINT)}
        ctx.informs(found.items())

    async def request_sdp_shutdown(self, ctx: RequestContext) -> str:
        """Take all products down in order, then switch off the machines that can be.

        The target state is OFF from then on, also for a controller that is started later.

        Returns
        -------
        hosts : str
            Names of the machines that were switched off, comma-separated.
        """
        hosts = await self.execute(ShutDown())
        return ",".join(hosts)
