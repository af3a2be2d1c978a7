"""Repeats a recorded scene: the same calls at the same moments, and compares what comes back."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.clock import VirtualClock
from scheduler.embedded.executors import Outcome
from scheduler.embedded.pool import Pool
from scheduler.embedded.reconfiguration import ReconfigurationPolicy
from scheduler.embedded.recordio import Decoder
from scheduler.embedded.registry import RegistryKind
from scheduler.errors import ClusterError, QuantityError
from scheduler.quantities import Ranges, Resources
from tests.contract import compare
from tests.contract.compare import Difference, Names
from tests.contract.recording import Line, Recording
from tests.contract.stage import Stage, Times, make_cluster

PATIENCE = 2.5
"""Seconds that an event may come later than recorded."""
SLACK = 1.0
"""Seconds, besides one allocation interval, after which a real master has offered what it could."""
_SKIPPED_HEADERS = {"Host", "Content-Length", "Connection"}


@dataclass
class Inbox:
    """What has come on one stream and was not recorded yet."""

    response: aiohttp.ClientResponse
    stream_id: str
    events: list[dict[str, Any]] = field(default_factory=list)
    offers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Offers that have come, by id."""
    heartbeats: int = 0
    opened: int = 0
    """Line of the subscription."""
    ended: str | None = None
    """``clean`` or ``broken``, once nothing more comes."""
    reader: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Take what comes, until the end."""
        decoder = Decoder()
        try:
            async for chunk in self.response.content.iter_any():
                for record in decoder.feed(chunk):
                    self._take(json.loads(record))
            self.ended = "clean"
        except (aiohttp.ClientError, ConnectionError):
            self.ended = "broken"

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "HEARTBEAT":
            self.heartbeats += 1
        elif event["type"] == "OFFERS":
            self.offers |= {o["id"]["value"]: o for o in event["offers"]["offers"]}
        else:
            self.events.append(event)


class Replay:
    """Repeats one recording against an embedded cluster in virtual time.

    Parameters
    ----------
    recording
        The scene.
    work_dir
        For the cluster.
    """

    def __init__(self, recording: Recording, work_dir: Path) -> None:
        self.recording = recording
        self.differences: list[Difference] = []
        self.compared = 0
        self._work_dir = work_dir
        self._clusters = 0
        self._names = Names()
        self._clock = VirtualClock(recording.epoch)
        self._stage = Stage(self._clock)
        self._cluster: Cluster | None = None
        self._session: aiohttp.ClientSession | None = None
        self._interval = 1.0
        self._inboxes: dict[str, Inbox] = {}
        self._answers: dict[int, tuple[int | None, str, Mapping[str, str]]] = {}
        self._requests: dict[int, Line] = {}
        self._offerable_since: dict[str, float] = {}
        self._exits: dict[str, int] = {}
        self._line = recording.lines[0]
        self._target: str | None = None
        """Which agent is asked over HTTP; None: the master."""
        self._matched: set[str] = set()
        """Recorded offers that came to us together with an earlier one."""
        self._came: dict[str, float] = {}

    async def run(self) -> None:
        """Repeat the whole scene."""
        async with aiohttp.ClientSession() as session:
            self._session = session
            try:
                for line in _in_order(self.recording.lines):
                    self._line = line
                    await self._advance(line.time)
                    handler = getattr(self, f"_{line.kind}", None)
                    if handler is not None:
                        await handler(line)
                    self._check_offerable()
            finally:
                await self._stop_cluster()

    # Time

    async def _advance(self, until: float) -> None:
        """Let virtual time pass, with everything that happens in it."""
        while (due := self._clock.next_timer()) is not None and due <= until:
            self._clock.advance(max(0.0, due - self._clock.monotonic()))
            for _ in range(6):
                await asyncio.sleep(0)
        self._clock.advance(max(0.0, until - self._clock.monotonic()))
        await self._settle()

    async def _settle(self) -> None:
        """Return when everything that can happen now has happened, and has reached us."""
        for _ in range(12):
            await asyncio.sleep(0)
        self._clock.advance(0)
        for _ in range(4):
            await asyncio.sleep(0)
        if self._cluster is None or self._session is None or not self._inboxes:
            return
        if self._clock.monotonic() < self._cluster.master.ready_at or self._cluster.master.stopped:
            return
        async with self._session.get(self._base + "/health") as response:
            await response.read()  # what was sent before this has been received by now
        for _ in range(4):
            await asyncio.sleep(0)

    @property
    def _base(self) -> str:
        return "http://{}:{}".format(*self._running.address)

    @property
    def _folder(self) -> str:
        """Where the cluster keeps sandboxes."""
        return str((self._work_dir / str(self._clusters)).resolve())

    @property
    def _running(self) -> Cluster:
        assert self._cluster is not None
        return self._cluster

    def _differ(self, what: str, recorded: object, ours: object) -> None:
        if ours == compare.NOTHING:
            what += " (missing)"
        elif recorded == compare.NOTHING:
            what += " (surplus)"
        name = self.recording.name
        self.differences.append(Difference(name, self._line.number, what, str(recorded), str(ours)))

    # Processes

    async def _process(self, line: Line) -> None:
        action, which = line["action"], line.get("which", "")
        if action == "start" and which == "master":
            await self._start_master(line)
        elif action == "start":
            await self._start_agent(line)
        elif action == "signal":
            await self._signal(which, line["signal"])
        elif action == "exited" and which in self._exits:
            ended = self._exits.pop(which)
            self.compared += 1
            if ended != line["returncode"]:
                self._differ("process.exit", line["returncode"], ended)
        elif "kill -9 executor_pid of" in action:
            container = self._stage.containers[action.split()[-1]]
            container.lose(Outcome.executor_lost("Executor terminated"))
        elif "kill -9 mesos-docker-executor of" in action:
            container = self._stage.containers[action.split()[-1]]
            container.lose(Outcome.executor_lost("Container terminated"))
        elif action.startswith("docker rm -f"):
            container = self._stage.containers[action.split()[-1]]
            container.lose(Outcome(False, "Container exited with status 137"))

    async def _note(self, line: Line) -> None:
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
        await self._stop_cluster()
        self._clusters += 1
        self._interval = _seconds(flags.get("allocation_interval", "1secs"))
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
        self._names.learn(flags["hostname"], self._cluster.master.hostname)

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
        for line in self.recording.after(self._line.number - 1):
            if line.kind == "event" and line["event"]["type"] == "OFFERS":
                return {
                    (
                        self._names.get(offer["agent_id"]["value"]) or "",
                        offer.get("allocation_info", {}).get("role", ""),
                    )
                    for offer in line["event"]["offers"]["offers"]
                    if offer["id"]["value"] not in self._matched
                }
        return set()

    def _until_next_cluster(self, line: Line) -> list[Line]:
        lines = []
        for later in self.recording.after(line.number):
            if _starts(later, "master"):
                break
            lines.append(later)
        return lines

    def _recovery(self) -> float:
        """Return how long the recorded master answered 404 or 503 after its start."""
        for later in self.recording.after(self._line.number):
            if later.kind == "event":
                return 0.0
            if later.kind == "response" and later.get("status") in (404, 503):
                return later.time - self._line.time + 0.05
        return 0.0

    async def _stop_cluster(self) -> None:
        if self._cluster is None:
            return
        for name in list(self._inboxes):
            self._close(name)
        cluster, self._cluster = self._cluster, None
        ending = asyncio.ensure_future(cluster.__aexit__(None, None, None))
        while not ending.done():
            await asyncio.sleep(0)
            due = self._clock.next_timer()
            if due is not None:  # kills need their grace periods
                self._clock.advance(min(1.0, max(0.0, due - self._clock.monotonic())))
            await asyncio.sleep(0.001)
        await ending
        self._clock = VirtualClock(self.recording.epoch)
        self._clock.advance(self._line.time)
        self._stage = Stage(self._clock)

    async def _start_agent(self, line: Line) -> None:
        flags = _flags(line["argv"])
        spec = _spec(flags)
        self._names.learn(flags["ip"], self._running.address[0])
        policy = ReconfigurationPolicy(flags.get("reconfiguration_policy", "equal"))
        when = self._registration(line, spec.hostname)
        delay = 0.0 if when is None else max(0.0, when - line.time - 0.01)
        self._clock.call_later(delay, lambda: self._register(spec, policy))
        await self._settle()

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
            self._names.forget(recorded)
            self._names.learn(recorded, ours)

    def _recorded_agent(self, hostname: str) -> str | None:
        """Return the id that an agent of that name got next in the recording."""
        for later in self.recording.lines[self._index(self._line) :]:
            if later.kind == "event" and later["event"]["type"] == "OFFERS":
                for offer in later["event"]["offers"]["offers"]:
                    if offer["hostname"] == hostname:
                        return str(offer["agent_id"]["value"])
            if _starts(later, "master") and later is not self._line:
                break
        return None

    def _index(self, line: Line) -> int:
        return next(n for n, other in enumerate(self.recording.lines) if other is line)

    def _registration(self, line: Line, hostname: str) -> float | None:
        """Return when an agent that is started here showed itself first."""
        first = not any(
            earlier.kind == "request" and earlier.number < line.number
            for earlier in self.recording.lines
        )
        if first or self._cluster is None or not self._inboxes:
            return None
        return self._evidence(line, hostname)

    def _evidence(self, line: Line, hostname: str) -> float | None:
        """Return when the master told something first that only a registered agent can be the cause of."""
        agent_id = self._recorded_agent(hostname)
        for later in self.recording.after(line.number):
            if _starts(later, "master") or _starts(later, hostname):
                return None
            if _acts(later, "exited", hostname):
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
            await self._settle()
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
        await self._settle()

    async def _end(self, line: Line) -> None:
        await self._stop_cluster()

    # Requests

    async def _request(self, line: Line) -> None:
        assert self._session is not None
        self._requests[line["id"]] = line
        body, data = line["body"], None
        if body is not None:
            self._foresee(line)
            translated = self._names.translate(body)
            if isinstance(body, dict) and body.get("type") in ("ACCEPT", "DECLINE"):
                self._name_once(body, translated)
            text = translated if isinstance(body, str) else json.dumps(translated)
            data = text.replace("<work_dir>/agent1", self._folder).encode()
        path = self._names.translate(line["path"]).replace("<work_dir>/agent1", self._folder)
        headers = {k: v for k, v in line["headers"].items() if k not in _SKIPPED_HEADERS}
        try:
            response = await self._session.request(
                line["method"],
                self._address_of(line) + path,
                data=data,
                headers=self._names.translate(headers),
                skip_auto_headers=["Content-Type", "Accept"],
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError):
            self._answers[line["id"]] = (None, "", {})
            return
        if "stream" in line.body and response.status == 200:
            await self._open(line, response)
        else:
            self._answers[line["id"]] = (response.status, await response.text(), response.headers)
        await self._settle()

    def _name_once(self, recorded: Mapping[str, Any], ours: dict[str, Any]) -> None:
        """Name an offer once that stands for several recorded ones; what was repeated stays so."""
        name = recorded["type"].lower()
        call = recorded.get(name)
        ids = call.get("offer_ids") if isinstance(call, Mapping) else None
        if not isinstance(ids, list):
            return
        stands_for: dict[str, str] = {}
        kept = []
        for theirs, mine in zip(ids, ours[name]["offer_ids"], strict=True):
            first = stands_for.setdefault(str(mine), str(theirs))
            if first == str(theirs):
                kept.append(mine)
        ours[name]["offer_ids"] = kept

    def _address_of(self, line: Line) -> str:
        """Return where a request goes: to the master, or to an agent, whose endpoints are below a path here."""
        if self._target is None or line["path"].startswith("/slave("):
            return self._base
        return self._base + self._running.agents[self._target].info.path

    async def _open(self, line: Line, response: aiohttp.ClientResponse) -> None:
        stream_id = response.headers.get("Mesos-Stream-Id", "")
        opened = next(x for x in self.recording.after(line.number) if x.kind == "stream_open")
        recorded = dict(opened["headers"]).get("Mesos-Stream-Id", "")
        if recorded:
            self._names.learn(recorded, stream_id)
        inbox = Inbox(response, stream_id, opened=line.number)
        inbox.reader = asyncio.ensure_future(inbox.read())
        self._inboxes[line["stream"]] = inbox
        self._answers[line["id"]] = (response.status, "", response.headers)

    def _foresee(self, line: Line) -> None:
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
        for told, status in self.recording.statuses(line.number):
            if status["task_id"]["value"] != task_id:
                continue
            if told.get("stream", "").partition("/")[0] != line.get("who"):
                continue
            made_by_agent = status["source"] == "SOURCE_AGENT"
            when = min(told.time, status["timestamp"] - self.recording.epoch)
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

    async def _response(self, line: Line) -> None:
        status, text, _ = self._answers[line["id"]]
        request = self._requests[line["id"]]
        what = request["path"].partition("?")[0]
        if isinstance(request["body"], dict) and "type" in request["body"]:
            what = f"{what} {request['body']['type']}"
        self.compared += 1
        if status != line.get("status"):
            self._differ(f"{what}: status", line.get("status"), f"{status} {text[:200]}")
            return
        if status is None or "body_truncated_from" in line.body:
            return
        recorded = self._names.translate(line.get("body"))
        if isinstance(recorded, str) and recorded.startswith("{"):
            recorded = json.loads(recorded)
        if isinstance(recorded, str):
            if compare.message(recorded) != compare.message(text):
                self._differ(f"{what}: body", recorded, text)
            return
        try:
            ours = json.loads(text)
        except ValueError:
            self._differ(f"{what}: body", recorded, text)
            return
        for path, theirs, mine in compare.differing(recorded, ours):
            self._differ(f"{what}: {path}", theirs, mine)

    async def _stream_open(self, line: Line) -> None:
        status, _, headers = self._answers[line["id"]]
        self.compared += 1
        if str(status) != line["status_line"].split()[1]:
            self._differ("stream: status", line["status_line"], status)
        wanted = {k for k, _ in line["headers"]} - {"Date", "Content-Length"}
        missing = wanted - set(headers)
        if missing:
            self._differ("stream: headers", sorted(wanted), sorted(headers))

    async def _client_closes_stream(self, line: Line) -> None:
        inbox = self._inboxes.get(line["stream"])
        if inbox is None:
            return
        stream_id = inbox.stream_id
        self._close(line["stream"])
        async with asyncio.timeout(5):
            # The server must notice before the story goes on; it has no event for that to wait for.
            while self._is_connected(stream_id):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.001)

    def _is_connected(self, stream_id: str) -> bool:
        frameworks = self._running.master.frameworks.values()
        return any(f.stream is not None and f.stream.id == stream_id for f in frameworks)

    def _close(self, name: str) -> None:
        inbox = self._inboxes.pop(name)
        self._check_left(name, inbox)
        inbox.response.close()
        if inbox.reader is not None:
            inbox.reader.cancel()

    async def _stream_end(self, line: Line) -> None:
        inbox = self._inboxes.get(line["stream"])
        if inbox is None or line["how"] == "not a stream":
            return
        async with asyncio.timeout(5):
            while inbox.ended is None:  # noqa: ASYNC110 - the end has no event of its own
                await asyncio.sleep(0.001)
        self.compared += 1
        expected = "clean" if line["how"].startswith("last chunk") else "broken"
        if inbox.ended != expected:
            self._differ("stream: end", line["how"], inbox.ended)
        self._close(line["stream"])

    def _check_left(self, name: str, inbox: Inbox) -> None:
        """Complain about what has come and was never recorded."""
        for event in inbox.events:
            shown = event
            what = f"event {event['type']}"
            if event["type"] == "UPDATE":
                shown = compare.status(event["update"]["status"])
                what += f" {shown['task_id']['value']} {shown['state']}"
            self._differ(f"surplus {what}", f"nothing on {name}", shown)
        heard = sum(
            1
            for line in self.recording.lines
            if line.kind == "event"
            and line["stream"] == name
            and line["event"]["type"] == "HEARTBEAT"
            and inbox.opened < line.number <= self._line.number
        )
        self.compared += 1
        if abs(heard - inbox.heartbeats) > 1:
            self._differ("heartbeats", heard, inbox.heartbeats)

    # Events

    async def _event(self, line: Line) -> None:
        event, inbox = line["event"], self._inboxes.get(line["stream"])
        kind = event["type"]
        if kind == "HEARTBEAT" or inbox is None:
            return
        self.compared += 1
        if kind == "OFFERS":
            await self._offers(event["offers"]["offers"], inbox)
            return
        if kind == "INVERSE_OFFERS" and not any(e["type"] == kind for e in inbox.events):
            self._running.master.allocate()
            await self._settle()
        found = await self._wait_for(line, event, inbox)
        if found is None and kind == "UPDATE" and self._is_repetition(event):
            self._differ(f"missing repetition {self._what(event)}", "again", "nothing")
            return
        if found is None:
            shown = compare.status(event["update"]["status"]) if kind == "UPDATE" else event
            self._differ(f"missing event {self._what(event)}", shown, "nothing")
            return
        inbox.events.remove(found)
        self._compare_event(event, found)

    def _is_repetition(self, event: Mapping[str, Any]) -> bool:
        uuid = event["update"]["status"].get("uuid")
        return uuid is not None and self._names.get(uuid) is not None

    def _what(self, event: Mapping[str, Any]) -> str:
        if event["type"] != "UPDATE":
            return str(event["type"])
        status = event["update"]["status"]
        return f"UPDATE {status['task_id']['value']} {status['state']}"

    async def _wait_for(
        self, line: Line, event: Mapping[str, Any], inbox: Inbox
    ) -> dict[str, Any] | None:
        """Return the event of ours that stands for a recorded one, when it comes in time."""
        deadline = line.time + PATIENCE
        if event["type"] == "UPDATE" and self._is_repetition(event):
            deadline = line.time + 0.2
        while True:
            translated = self._names.translate(event)
            for candidate in inbox.events:
                if _corresponds(translated, candidate, self._names):
                    return candidate
            due = self._clock.next_timer()
            if due is None or due > deadline:
                return None
            await self._advance(due)

    def _compare_event(self, event: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        kind = event["type"]
        what = self._what(event)
        if kind == "SUBSCRIBED" and "framework_id" in event["subscribed"]:
            theirs = event["subscribed"]["framework_id"]["value"]
            mine = ours["subscribed"]["framework_id"]["value"]
            if not self._names.learn(theirs, mine):
                self._differ("SUBSCRIBED: framework_id", theirs, mine)
            self._names.learn(event["subscribed"]["master_info"]["id"], self._running.master.id)
        if kind == "UPDATE":
            self._compare_status(what, event["update"]["status"], ours["update"]["status"])
            return
        if kind == "INVERSE_OFFERS":
            pairs = zip(
                event["inverse_offers"]["inverse_offers"],
                ours["inverse_offers"]["inverse_offers"],
                strict=False,
            )
            for theirs, mine in pairs:
                self._names.learn(theirs["id"]["value"], mine["id"]["value"])
        for path, theirs, mine in compare.differing(self._names.translate(event), ours):
            self._differ(f"{what}: {path}", theirs, mine)

    def _compare_status(
        self, what: str, recorded: Mapping[str, Any], ours: Mapping[str, Any]
    ) -> None:
        if "uuid" in recorded and "uuid" in ours:
            known = self._names.get(recorded["uuid"])
            if not self._names.learn(recorded["uuid"], ours["uuid"]):
                self._differ(f"{what}: uuid", f"again {recorded['uuid']}", known)
        containers = [
            status.get("container_status", {}).get("container_id", {}).get("value")
            for status in (recorded, ours)
        ]
        if None not in containers:
            self._names.learn(containers[0], containers[1])
        theirs = compare.status(self._names.translate(recorded))
        mine = compare.status(ours)
        if theirs != mine:
            for path, a, b in compare.differing(theirs, mine):
                self._differ(f"{what}: {path}", a, b)

    async def _offers(self, recorded: list[dict[str, Any]], inbox: Inbox) -> None:
        """Find each recorded offer among ours, after an allocation run if need be."""
        new = [offer for offer in recorded if offer["id"]["value"] not in self._matched]
        left = [offer for offer in new if not self._match_offer(offer, inbox)]
        if not left:
            return
        self._running.master.allocate()
        self._offerable_since.clear()
        await self._settle()
        for offer in left:
            if not self._match_offer(offer, inbox) and not self._match_merged(offer, inbox):
                theirs = compare.offer(self._names.translate(offer))
                mine = [compare.offer(o) for o in inbox.offers.values()]
                near = [o for o in mine if o["agent_id"] == theirs["agent_id"]]
                self._differ(f"offer of {offer['hostname']}", theirs, near)

    def _match_offer(self, recorded: Mapping[str, Any], inbox: Inbox) -> bool:
        wanted = compare.offer(self._names.translate(recorded))
        for offer_id, ours in list(inbox.offers.items()):
            if compare.offer(ours) == wanted:
                self._names.learn(recorded["id"]["value"], offer_id)
                del inbox.offers[offer_id]
                return True
        return False

    def _match_merged(self, recorded: Mapping[str, Any], inbox: Inbox) -> bool:
        """Find a recorded offer together with what was offered of the agent a moment later."""
        wanted = self._names.translate(recorded)
        parts = [recorded]
        total = Resources.from_mesos(recorded["resources"])
        for later in self._later_offers(recorded):
            parts.append(later)
            try:
                total += Resources.from_mesos(later["resources"])
            except QuantityError:  # offered again, not besides
                return False
            for offer_id, ours in list(inbox.offers.items()):
                same = ours["agent_id"] == wanted["agent_id"] and ours.get(
                    "allocation_info"
                ) == recorded.get("allocation_info")
                if same and Resources.from_mesos(ours["resources"]) == total:
                    for part in parts:
                        self._names.learn(part["id"]["value"], offer_id)
                        self._matched.add(part["id"]["value"])
                    del inbox.offers[offer_id]
                    return True
        return False

    def _later_offers(self, recorded: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = []
        for line in self.recording.after(self._line.number):
            if line.time > self._line.time + self._interval + SLACK:
                break
            if line.kind == "event" and line["event"]["type"] == "OFFERS":
                found += [
                    offer
                    for offer in line["event"]["offers"]["offers"]
                    if offer["agent_id"] == recorded["agent_id"]
                    and offer["framework_id"] == recorded["framework_id"]
                    and offer.get("allocation_info") == recorded.get("allocation_info")
                ]
        return found

    def _check_offerable(self) -> None:
        """Complain about what could be offered for longer than a real master takes to do so."""
        if self._cluster is None or self._cluster.master.stopped:
            return
        now = self._clock.monotonic()
        grants = {
            f"{g.framework_id} {g.role} {g.agent_id}": g for g in self._cluster.master.desk.grants()
        }
        since = self._offerable_since
        self._offerable_since = {key: since.get(key, now) for key in grants}
        for key, began in self._offerable_since.items():
            if now - began > self._interval + SLACK:
                self._differ("surplus offer", "nothing", f"{key} {grants[key].resources.plain}")
                self._offerable_since[key] = now + 1e9
        for name, inbox in self._inboxes.items():
            for offer_id in list(inbox.offers):
                self._check_old_offer(name, inbox, offer_id)

    def _check_old_offer(self, name: str, inbox: Inbox, offer_id: str) -> None:
        """Complain about an offer that has come and was not recorded within a while."""
        key = f"offer {offer_id}"
        now = self._clock.monotonic()
        began = self._came.setdefault(key, now)
        if now - began > self._interval + SLACK:
            shown = compare.offer(inbox.offers.pop(offer_id))
            self._differ("surplus offer", f"nothing on {name}", shown)


def _corresponds(recorded: Mapping[str, Any], ours: Mapping[str, Any], names: Names) -> bool:
    """Whether an event of ours is the one that a recorded one is to be compared with."""
    kind = recorded["type"]
    if kind != ours["type"]:
        return False
    if kind == "UPDATE":
        theirs, mine = recorded["update"]["status"], ours["update"]["status"]
        if theirs["task_id"] != mine["task_id"] or theirs["source"] != mine["source"]:
            return False
        # Of `theirs` the uuid has been translated if it was known: then it must be that one.
        return not names.knows(theirs.get("uuid")) or theirs["uuid"] == mine.get("uuid")
    if kind in ("RESCIND", "FAILURE"):
        return recorded[kind.lower()] == ours[kind.lower()]
    if kind == "TASK_UPDATED":
        theirs, mine = recorded["task_updated"]["status"], ours["task_updated"]["status"]
        return bool(theirs["task_id"] == mine["task_id"])
    if kind == "TASK_ADDED":
        return bool(
            recorded["task_added"]["task"]["task_id"] == ours["task_added"]["task"]["task_id"]
        )
    return True


def _in_order(lines: Sequence[Line]) -> list[Line]:
    """Put a call that was under way when its caller closed the stream before the closing.

    Likewise what was done to a container before the status that tells of it.
    """
    ordered = list(lines)
    for number, line in enumerate(lines):
        if line.kind == "process" and line["action"].startswith("docker rm -f"):
            told = max(
                n
                for n, x in enumerate(lines[:number])
                if x.kind == "event" and x["event"]["type"] == "UPDATE"
            )
            ordered.insert(told, ordered.pop(number))
    for number, line in enumerate(lines):
        teardown = line.kind == "request" and _type(line) == "TEARDOWN"
        if line.kind != "client_closes_stream" and not teardown:
            continue
        last = number
        for later in range(number + 1, len(lines)):
            if lines[later].time > line.time + 0.005:
                break
            if _type(lines[later]) == "ACKNOWLEDGE" and _was_accepted(lines, later):
                last = later + 1
        moved = ordered[number : last + 1]
        closing = [x for x in moved if x is line or x.kind == "stream_end"]
        ordered[number : last + 1] = [x for x in moved if x not in closing] + closing
    return ordered


def _was_accepted(lines: Sequence[Line], request: int) -> bool:
    answers = (x for x in lines[request:] if x.kind == "response")
    return any(x["id"] == lines[request]["id"] and x.get("status") == 202 for x in answers)


def _acts(line: Line, action: str, which: str) -> bool:
    return line.kind == "process" and (line["action"], line.get("which")) == (action, which)


def _starts(line: Line, which: str) -> bool:
    return _acts(line, "start", which)


def _type(line: Line) -> str | None:
    body = line.get("body")
    return body.get("type") if isinstance(body, dict) else None


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
