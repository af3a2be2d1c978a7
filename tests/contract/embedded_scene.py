"""A recorded scene with the embedded cluster, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.allocator import Grant
from scheduler.embedded.clock import VirtualClock
from scheduler.embedded.executors import Outcome
from scheduler.embedded.pool import Pool
from scheduler.embedded.reconfiguration import ReconfigurationPolicy
from scheduler.embedded.registry import RegistryKind
from scheduler.errors import ClusterError
from scheduler.quantities import Ranges, Resources
from tests.conftest import PATIENCE
from tests.contract.recording import Line, acts, starts
from tests.contract.stage import Stage, Times, make_cluster
from tests.contract.story import Story


class EmbeddedScene:
    """Does with an embedded cluster what was done with the recorded processes.

    When things happen that take another time on every machine (an agent registers, a task starts, masters
    shuffle their agents) is taken from the recording; what happens then is not.

    Parameters
    ----------
    story
        How far we are.
    work_dir
        For the cluster.
    """

    def __init__(self, story: Story, work_dir: Path) -> None:
        self.story = story
        self._work_dir = work_dir
        self._clusters = 0
        self._clock = VirtualClock(story.recording.epoch)
        self._stage = Stage(self._clock)
        self._cluster: Cluster | None = None
        self._session: aiohttp.ClientSession | None = None
        self._exits: dict[str, int] = {}
        self._target: str | None = None
        """Which agent is asked over HTTP; None: the master."""

    @property
    def now(self) -> float:
        """Seconds since the beginning of the scene."""
        return self._clock.monotonic()

    def path_of(self, text: str) -> str:
        """Put our folder of sandboxes in the place of the recorded one."""
        return text.replace("<work_dir>/agent1", self._folder)

    async def wait_a_little(self, deadline: float) -> bool:
        """Let the next thing happen; False when nothing will before the deadline."""
        due = self._clock.next_timer()
        if due is None or due > deadline:
            return False
        await self.advance(due)
        return True

    async def offer_now(self) -> None:
        """Let the master allocate."""
        self._running.master.allocate()
        await self.settle()

    def offerable(self) -> Sequence[Grant]:
        """Return what an allocation run would offer now."""
        if self._cluster is None or self._cluster.master.stopped:
            return []
        return self._cluster.master.desk.grants()

    async def advance(self, until: float) -> None:
        """Let virtual time pass, with everything that happens in it."""
        while (due := self._clock.next_timer()) is not None and due <= until:
            self._clock.advance(max(0.0, due - self._clock.monotonic()))
            for _ in range(6):
                await asyncio.sleep(0)
        self._clock.advance(max(0.0, until - self._clock.monotonic()))
        await self.settle()

    async def settle(self) -> None:
        """Return when everything that can happen now has happened, and has reached us."""
        for _ in range(12):
            await asyncio.sleep(0)
        self._clock.advance(0)
        for _ in range(4):
            await asyncio.sleep(0)
        if self._cluster is None or self._cluster.master.stopped or not self.story.inboxes:
            return
        if self._clock.monotonic() < self._cluster.master.ready_at:
            return
        if self._session is None:
            self._session = aiohttp.ClientSession()
        async with self._session.get(f"{self.base}/health") as response:
            await response.read()  # what was sent before this has been received by now
        for _ in range(4):
            await asyncio.sleep(0)

    @property
    def base(self) -> str:
        """Where the master is reached."""
        return "http://{}:{}".format(*self._running.address)

    @property
    def _folder(self) -> str:
        """Where the cluster keeps sandboxes."""
        return str((self._work_dir / str(self._clusters)).resolve())

    @property
    def _running(self) -> Cluster:
        assert self._cluster is not None
        return self._cluster

    async def process(self, line: Line) -> None:
        """Do with processes what was done in the recording."""
        action, which = line["action"], line.get("which", "")
        if action == "start" and which == "master":
            await self._start_master(line)
        elif action == "start":
            await self._start_agent(line)
        elif action == "signal":
            await self._signal(which, line["signal"])
        elif action == "exited" and which in self._exits:
            ended = self._exits.pop(which)
            self.story.compared += 1
            if ended != line["returncode"]:
                self.story.differ("process.exit", line["returncode"], ended)
        elif "kill -9 executor_pid of" in action:
            container = self._stage.containers[action.split()[-1]]
            container.lose(Outcome.executor_lost("Executor terminated"))
        elif "kill -9 mesos-docker-executor of" in action:
            container = self._stage.containers[action.split()[-1]]
            container.lose(Outcome.executor_lost("Container terminated"))
        elif action.startswith("docker rm -f"):
            container = self._stage.containers[action.split()[-1]]
            container.lose(Outcome(False, "Container exited with status 137"))

    async def note(self, line: Line) -> None:
        """Heed what only a note tells: of containers ended from outside, and of whom is asked now."""
        if re.match(r"[A-Z]\d?: ", line["text"]):
            self._target = "agent1" if "agent end points" in line["text"] else None
        victims = {"docker kill": "dkill", "docker stop -t 1": "dstop"}
        if (victim := victims.get(line["text"])) is not None:
            outcome = Outcome(False, "Container exited with status 137")
            self._stage.containers[victim].lose(outcome)

    async def _start_master(self, line: Line) -> None:
        flags = _flags(line["argv"])
        if self._cluster is not None and self._cluster.master.stopped:
            await self._running.start_master(self._recovery(), agents=False)
            agents = self._running.agents
            agents.meet(self._running.master)
            for agent in agents:
                self._register_later(line, agent.info.spec.hostname)
            self._arrange_offers()
            return
        await self.close()
        self._clusters += 1
        self.story.interval = _seconds(flags.get("allocation_interval", "1secs"))
        folder = self._work_dir / str(self._clusters)
        override = any(
            later.kind == "process" and "--http_command_executor" in (later.get("argv") or ())
            for later in self._until_next_cluster(line)
        )
        credentials = None
        if "authenticate_http_frameworks" in flags:
            credentials = self._work_dir / "credentials"
            credentials.write_text("p s\n")  # as the recorded Authorization headers have it
            credentials.chmod(0o600)
        self._cluster = make_cluster(
            self._stage,
            folder,
            offer_timeout=_seconds(flags["offer_timeout"]) if "offer_timeout" in flags else None,
            agent_ping_timeout=_seconds(flags.get("agent_ping_timeout", "15secs")),
            max_agent_ping_timeouts=int(flags.get("max_agent_ping_timeouts", "5")),
            registry=RegistryKind(flags.get("registry", "replicated_log")),
            kill_override=override,
            framework_credentials=credentials,
        )
        await self._cluster.__aenter__()
        self._arrange_offers()
        self.story.names.learn(flags["hostname"], self._cluster.master.hostname)

    def _register_later(self, line: Line, hostname: str) -> None:
        """Let an agent find a new master when the recorded one did."""
        when = self._evidence(line, hostname)
        if when is not None:
            agents = self._running.agents
            delay = max(0.0, when - line.time - 0.01)
            self._clock.call_later(delay, lambda: agents.register(hostname))

    def _arrange_offers(self) -> None:
        """Let agents be offered in an order in which the recorded master may have shuffled them."""
        desk = self._running.master.desk

        def arrange(free: dict[str, Pool]) -> dict[str, Pool]:
            wanted = self._next_offers()
            for order in itertools.islice(itertools.permutations(free), 24):
                arranged = {agent_id: free[agent_id] for agent_id in order}
                desk.arrange = lambda found: found
                grants = desk.grants_of(arranged)
                desk.arrange = arrange
                if wanted <= {(grant.agent_id, grant.role) for grant in grants}:
                    return arranged
            return free

        desk.arrange = arrange

    def _next_offers(self) -> set[tuple[str, str]]:
        """Return agents and roles of the next recorded offers of frameworks with several roles."""
        for line in self.story.recording.after(self.story.line.number - 1):
            if line.kind == "event" and line["event"]["type"] == "OFFERS":
                return {
                    (
                        self.story.names.get(offer["agent_id"]["value"]) or "",
                        offer.get("allocation_info", {}).get("role", ""),
                    )
                    for offer in line["event"]["offers"]["offers"]
                    if offer["id"]["value"] not in self.story.matched
                }
        return set()

    def _until_next_cluster(self, line: Line) -> list[Line]:
        lines = []
        for later in self.story.recording.after(line.number):
            if starts(later, "master"):
                break
            lines.append(later)
        return lines

    def _recovery(self) -> float:
        """Return how long the recorded master answered 404 or 503 after its start."""
        for later in self.story.recording.after(self.story.line.number):
            if later.kind == "event":
                return 0.0
            if later.kind == "response" and later.get("status") in (404, 503):
                return later.time - self.story.line.time + 0.05
        return 0.0

    async def close(self) -> None:
        """End the cluster, and begin a new time."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._cluster is None:
            return
        cluster, self._cluster = self._cluster, None
        ending = asyncio.ensure_future(cluster.__aexit__(None, None, None))
        while not ending.done():
            await asyncio.sleep(0)
            due = self._clock.next_timer()
            if due is not None:  # kills need their grace periods
                self._clock.advance(min(1.0, max(0.0, due - self._clock.monotonic())))
            await asyncio.sleep(0.001)
        await ending
        self._clock = VirtualClock(self.story.recording.epoch)
        self._clock.advance(self.story.line.time)
        self._stage = Stage(self._clock)

    async def _start_agent(self, line: Line) -> None:
        flags = _flags(line["argv"])
        spec = _spec(flags)
        self.story.names.learn(flags["ip"], self._running.address[0])
        policy = ReconfigurationPolicy(flags.get("reconfiguration_policy", "equal"))
        when = self._registration(line, spec.hostname)
        delay = 0.0 if when is None else max(0.0, when - line.time - 0.01)
        self._clock.call_later(delay, lambda: self._register(spec, policy))
        await self.settle()

    def _register(self, spec: AgentSpec, policy: ReconfigurationPolicy) -> None:
        if self._cluster is None:
            return
        try:
            taken = self._running.agents.start(spec, policy)
        except ClusterError as exc:
            self._exits[spec.hostname] = 1
            self._refusal = str(exc)
            return
        if not taken:
            self._exits[spec.hostname] = 0
        ours = self._running.agents[spec.hostname].info.id
        recorded = self._recorded_agent(spec.hostname)
        if recorded is not None:
            self.story.names.forget(recorded)
            self.story.names.learn(recorded, ours)

    def _recorded_agent(self, hostname: str) -> str | None:
        """Return the id that an agent of that name got next in the recording."""
        for later in self.story.recording.lines[self._index(self.story.line) :]:
            if later.kind == "event" and later["event"]["type"] == "OFFERS":
                for offer in later["event"]["offers"]["offers"]:
                    if offer["hostname"] == hostname:
                        return str(offer["agent_id"]["value"])
            if starts(later, "master") and later is not self.story.line:
                break
        return None

    def _index(self, line: Line) -> int:
        return next(n for n, other in enumerate(self.story.recording.lines) if other is line)

    def _registration(self, line: Line, hostname: str) -> float | None:
        """Return when an agent that is started here showed itself first."""
        first = not any(
            earlier.kind == "request" and earlier.number < line.number
            for earlier in self.story.recording.lines
        )
        if first or self._cluster is None or not self.story.inboxes:
            return None
        return self._evidence(line, hostname)

    def _evidence(self, line: Line, hostname: str) -> float | None:
        """Return when the master told something first that only a registered agent can be the cause of."""
        agent_id = self._recorded_agent(hostname)
        for later in self.story.recording.after(line.number):
            if starts(later, "master") or starts(later, hostname):
                return None
            if acts(later, "exited", hostname):
                return later.time
            if later.kind != "event":
                continue
            event = later["event"]
            if event["type"] == "OFFERS":
                offered = [o["agent_id"]["value"] for o in event["offers"]["offers"]]
                if agent_id in offered:
                    return later.time
            if event["type"] == "UPDATE":
                status = event["update"]["status"]
                mine = status.get("agent_id", {}).get("value") == agent_id
                if mine and status.get("reason") == "REASON_AGENT_REREGISTERED":
                    return later.time
        return None

    async def _signal(self, which: str, name: str) -> None:
        if which == "master":
            await self._running.stop_master()
            await self.settle()
            return
        agents = self._running.agents
        actions = {
            "SIGKILL": agents.kill,
            "SIGTERM": agents.kill,
            "SIGUSR1": agents.unregister,
            "SIGSTOP": agents.freeze,
            "SIGCONT": agents.thaw,
        }
        actions[name](which)
        await self.settle()

    def address_of(self, line: Line) -> str:
        """Return where a request goes: to the master, or to an agent, whose endpoints are below a path here."""
        if self._target is None or line["path"].startswith("/slave("):
            return self.base
        return self.base + self._running.agents[self._target].info.path

    def foresee(self, line: Line) -> None:
        """Tell the stage when what happened to the tasks that this call launches."""
        body = line["body"]
        if not isinstance(body, dict) or body.get("type") != "ACCEPT":
            return
        accept = body.get("accept")
        for operation in accept.get("operations", []) if isinstance(accept, dict) else []:
            if not isinstance(operation, dict):
                continue
            group = operation.get("launch_group", {}).get("task_group", {})
            tasks = operation.get("launch", {}).get("task_infos", []) + group.get("tasks", [])
            seen: set[str] = set()
            for task in tasks:
                if isinstance(task, dict) and "task_id" in task:
                    task_id = task["task_id"]["value"]
                    again = sum(t.get("task_id") == task["task_id"] for t in tasks) > 1
                    if task_id not in seen:
                        self._foresee_task(line, task_id, again=again)
                    seen.add(task_id)

    def _foresee_task(self, line: Line, task_id: str, *, again: bool) -> None:
        """Tell the stage of one task; `again`: its id comes twice, so that a refusal is of the other."""
        found: dict[str, float] = {}
        for told, status in self.story.recording.statuses(line.number):
            if status["task_id"]["value"] != task_id:
                continue
            if told.get("stream", "").partition("/")[0] != line.get("who"):
                continue
            made_by_agent = status["source"] == "SOURCE_AGENT"
            when = min(told.time, status["timestamp"] - self.story.recording.epoch)
            if status["source"] == "SOURCE_MASTER":
                refused = status.get("reason") in ("REASON_TASK_INVALID", "REASON_INVALID_OFFERS")
                if refused and not found and not again:
                    return  # it was never launched
                continue
            if status["state"] == "TASK_STARTING":
                found.setdefault("starting", when)
            elif status["state"] == "TASK_RUNNING":
                found.setdefault("running", when)
            elif status["state"] != "TASK_KILLING":
                found.setdefault("ended", when)
                if made_by_agent:
                    found.setdefault("starting", when)
                break
        self._stage.expect(task_id, Times(**found))

    async def forget(self, stream_id: str) -> None:
        """Return when the master has noticed that a stream's connection is gone."""
        async with asyncio.timeout(PATIENCE):
            # It has no event for that to wait for.
            while self._is_connected(stream_id):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.001)

    def _is_connected(self, stream_id: str) -> bool:
        frameworks = self._running.master.frameworks.values()
        return any(f.stream is not None and f.stream.id == stream_id for f in frameworks)


def _flags(argv: list[str]) -> dict[str, str]:
    pairs = (re.sub(r"^--(no-)?", "", word).partition("=") for word in argv[1:])
    return {name: value for name, _, value in pairs}


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"ms": 1e-3, "secs": 1.0, "mins": 60.0}[unit]


def _spec(flags: Mapping[str, str]) -> AgentSpec:
    """Read how a recorded agent was started."""
    scalars: dict[str, int] = {}
    ranges: dict[str, Ranges] = {}
    for part in flags["resources"].split(";"):
        name, _, value = part.partition(":")
        if value.startswith("["):
            ranges[name] = Ranges.parse(value)
        else:
            scalars[name] = round(float(value) * 1000)
    attributes = dict(part.split(":", 1) for part in flags.get("attributes", "").split(";") if part)
    return AgentSpec(
        flags["hostname"],
        Resources(scalars, ranges),
        attributes,
        default_role=flags.get("default_role", "*"),
    )
