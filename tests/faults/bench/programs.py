"""Programs, as far as the controller can tell: they wait, listen and capture, and keep a diary."""

# No annotations as text: aiokatcp reads those of requests.

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import aiokatcp

from scheduler.embedded.executors import Container, Launch, Outcome, Running
from sdpcontroller.errors import ControllerError
from sdpcontroller.telstate import ProductTelstate

_BATCH_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a task did."""

    at: float
    task_id: str
    what: str
    detail: str = ""


@dataclass
class Diary:
    """What all tasks did, in order, and those that live."""

    events: list[Event] = field(default_factory=list)
    alive: dict[str, "Program"] = field(default_factory=dict)
    """By task id."""
    refuse: Callable[[str, str], bool] = lambda task, request: False
    computing: Callable[[], bool] = lambda: False
    """Whether batch tasks that would have ended go on."""

    def note(self, task_id: str, what: str, detail: str = "") -> None:
        self.events.append(Event(time.monotonic(), task_id, what, detail))


class _Server(aiokatcp.DeviceServer):
    VERSION = "bench-1.0"
    BUILD_STATE = "bench-1.0"

    def __init__(self, host: str, port: int, program: "Program") -> None:
        super().__init__(host, port)
        self._program = program
        self.block: aiokatcp.Sensor[str] = aiokatcp.Sensor(str, "capture-block-id", "block")
        self.sensors.add(self.block)

    async def request_capture_init(self, ctx: aiokatcp.RequestContext, cbid: str) -> None:
        """Begin."""
        if self.block.value:
            raise aiokatcp.FailReply(f"capture block {self.block.value} is on")
        await asyncio.sleep(0.01)
        self.block.value = cbid
        self._program.note("capture-init", cbid)

    async def request_capture_done(self, ctx: aiokatcp.RequestContext) -> None:
        """End."""
        cbid = self.block.value
        if not cbid:
            raise aiokatcp.FailReply("no capture block is on")
        self._program.note("draining", cbid)
        await asyncio.sleep(0.02)
        await self._program.conclude(cbid)
        if self.block.value == cbid:
            self.block.value = ""
            self._program.note("capture-done", cbid)


class Program:
    """One task: a :class:`~scheduler.embedded.executors.Container`."""

    pid = None

    def __init__(self, launch: Launch, diary: Diary) -> None:
        self.task_id = launch.task.id
        self.name = launch.task.name
        self.host = launch.agent.spec.hostname
        self.resources = launch.task.resources
        self._diary = diary
        variables = launch.command.get("environment", {}).get("variables", [])
        self._environment = {entry["name"]: entry["value"] for entry in variables}
        self._words: Sequence[str] = launch.command.get("arguments", ())
        ports = launch.task.document.get("discovery", {}).get("ports", {}).get("ports", [])
        self.ports: Mapping[str, int] = {port["name"]: port["number"] for port in ports}
        self.killed = False
        self.server: _Server | None = None
        self._end: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None

    def note(self, what: str, detail: str = "") -> None:
        self._diary.note(self.task_id, what, detail)

    @property
    def block(self) -> str:
        """The capture block that it is at."""
        return self.server.block.value if self.server is not None else ""

    async def started(self) -> Running | None:
        self.note("runs")
        self._diary.alive[self.task_id] = self
        self._life = asyncio.create_task(self._live())
        return Running()

    async def _live(self) -> None:
        try:
            if "SDP_GO_AHEAD_TOKEN" in self._environment:
                await self._ask()
                self.note("let through")
            if not self.ports:  # a batch task
                await asyncio.sleep(_BATCH_SECONDS)
                while self._diary.computing():  # noqa: ASYNC110 - a test says so
                    await asyncio.sleep(_BATCH_SECONDS)
                self.finish(Outcome(True, "Command exited with status 0"))
                return
            async with contextlib.AsyncExitStack() as stack:
                for name, port in self.ports.items():
                    await self._serve(stack, name, port)
                await asyncio.Event().wait()
        except OSError as exc:
            self.finish(Outcome(False, f"Command exited with status 1 ({exc})"))

    async def _serve(self, stack: contextlib.AsyncExitStack, name: str, port: int) -> None:
        if name == "katcp":
            self.server = _Server("127.0.0.1", port, self)
            await self.server.start()
            stack.push_async_callback(self.server.stop)
        elif name == "telstate":
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
            stack.callback(process.wait)
            stack.callback(process.kill)
        else:
            server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
            stack.callback(server.close)

    async def _ask(self) -> None:
        """Ask for the go-ahead as the wrapper does."""
        head = {"Authorization": f"Bearer {self._environment['SDP_GO_AHEAD_TOKEN']}"}
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(headers=head, timeout=timeout) as session:
            while True:
                for url in self._environment["SDP_GO_AHEAD_URLS"].split():
                    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                        async with session.get(url) as response:
                            if response.status == 200:
                                return
                            if response.status in (403, 410):
                                self.finish(Outcome(False, "Command exited with status 126"))
                                await asyncio.Event().wait()
                await asyncio.sleep(0.1)

    async def conclude(self, cbid: str) -> None:
        """As the writer does: describe what was observed."""
        if not self.name.startswith("vis_writer."):
            return
        stream = self.name.partition(".")[2]
        values: dict[str, Any] = {
            f"{cbid}_{stream}_chunk_info": {"correlator_data": {"shape": [20, 1, 1]}},
            f"{cbid}_{stream}_first_timestamp": 0.5,
            f"{stream}_int_time": 1.0,
            f"{stream}_sync_time": 1000.0,
        }
        host, _, port = self._words[self._words.index("--telstate") + 1].rpartition(":")
        with contextlib.suppress(ControllerError):
            async with ProductTelstate.connect(host, int(port)) as link:
                await link.publish(values)
                target = "A, radec target, 4:24:00.0, -38:00:00.0"
                await link._telstate.add("cbf_target", target, ts=1000.0)

    def kill(self, grace: float) -> None:
        self.killed = True
        loop = asyncio.get_running_loop()
        loop.call_later(
            0.02, self.finish, Outcome(False, "Command terminated with signal Terminated")
        )

    def die(self) -> None:
        """End by itself, as by a fault."""
        self.finish(Outcome(False, "Command exited with status 3"))

    def finish(self, outcome: Outcome) -> None:
        """End, in whatever way."""
        if not self._end.done():
            self.note("killed" if self.killed else "ended", outcome.message)
            self._diary.alive.pop(self.task_id, None)
            self._end.set_result(outcome)

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        return 0

    async def wait(self) -> Outcome:
        outcome = await asyncio.shield(self._end)
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        return outcome


class Programs:
    """The executor of the bench's cluster."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    async def launch(self, launch: Launch) -> Program:
        return Program(launch, self._diary)

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        return {}

    async def close(self) -> None:
        pass
