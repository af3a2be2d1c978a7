"""Programs, as far as the controller can tell: they wait, listen and capture, and keep a diary."""

# No annotations as text: aiokatcp reads those of requests.

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import aiokatcp

from benchmarks.control.in_process import TERMINATED, InProcessTask, session
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


class Program(InProcessTask):
    """One task."""

    def __init__(self, launch: Launch, diary: Diary, http: aiohttp.ClientSession) -> None:
        super().__init__(launch, "127.0.0.1", http)
        self.task_id = launch.task.id
        self.name = launch.task.name
        self.host = launch.agent.spec.hostname
        self.resources = launch.task.resources
        self._diary = diary
        self._words: Sequence[str] = launch.command.get("arguments", ())
        self.killed = False
        self.server: _Server | None = None

    def note(self, what: str, detail: str = "") -> None:
        self._diary.note(self.task_id, what, detail)

    @property
    def block(self) -> str:
        """The capture block that it is at."""
        return self.server.block.value if self.server is not None else ""

    async def started(self) -> Running | None:
        self.note("runs")
        self._diary.alive[self.task_id] = self
        return await super().started()

    def let_through(self) -> None:
        self.note("let through")

    async def run(self, stack: contextlib.AsyncExitStack) -> None:
        if not self.ports:  # a batch task
            await asyncio.sleep(_BATCH_SECONDS)
            while self._diary.computing():  # noqa: ASYNC110 - a test says so
                await asyncio.sleep(_BATCH_SECONDS)
            self.finish(Outcome(True, "Command exited with status 0"))
            return
        await self.listen(stack)
        await asyncio.Event().wait()

    def made_server(self, port: int) -> _Server:
        self.server = _Server("127.0.0.1", port, self)
        return self.server

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
        asyncio.get_running_loop().call_later(0.02, self.finish, TERMINATED)

    def die(self) -> None:
        """End by itself, as by a fault."""
        self.finish(Outcome(False, "Command exited with status 3"))

    def ended(self, outcome: Outcome) -> None:
        self.note("killed" if self.killed else "ended", outcome.message)
        self._diary.alive.pop(self.task_id, None)


class Programs:
    """The executor of the bench's cluster."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary
        self._http = session()

    async def launch(self, launch: Launch) -> Program:
        return Program(launch, self._diary, self._http)

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        return {}

    async def close(self) -> None:
        await self._http.close()
