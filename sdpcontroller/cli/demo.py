"""``sdp demo``: the main job on one machine, from a correlator's heaps to an image of the field."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbelow
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sdpcontroller.cli import demo_config, demo_report
from sdpcontroller.cli.cam import Cam, as_json, number
from sdpcontroller.cli.demo_config import CORRELATION, PRODUCT, Observation
from sdpcontroller.cli.demo_report import Facts
from sdpcontroller.cli.images import make_programs_image
from sdpcontroller.cli.processes import Processes, free_block, free_ports, need_command
from sdpcontroller.cli.service import Defaults
from sdpcontroller.errors import ControllerError

SIMULATOR: Final = f"sim.{CORRELATION}"
PORTS: Final = 600
"""Ports that the agents together have for tasks."""
BLOCKS: Final = range(20_000, 32_000)
"""Where they are: below those that the kernel gives to whoever connects."""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="observe a field with a simulated array, from correlator to image, on this machine",
        description="Starts Redis, a cluster and the master controller, configures a product over "
        "KATCP as the telescope's control system would, captures, images what was captured, takes "
        "everything down, and says what it saw. Everything listens on loopback only.",
        formatter_class=Defaults,
    )
    parser.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder for results and logs"
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FILE.ms",
        help="send the visibilities of this MeasurementSet instead of a simulated sky",
    )
    parser.add_argument(
        "--rate", type=_positive, default=1.0, help="replay this many times faster than real time"
    )
    parser.add_argument(
        "--seconds", type=_positive, default=24.0, help="seconds on the field (simulated sky)"
    )
    parser.add_argument(
        "--calibrator-seconds",
        type=_positive,
        default=8.0,
        help="seconds on the calibrator before it (simulated sky)",
    )
    parser.add_argument("--agents", type=int, default=3, help="agents of the cluster")
    parser.add_argument(
        "--topology", type=Path, metavar="FILE.xml", help="lstopo's XML of the machine to advertise"
    )
    parser.add_argument(
        "--executor",
        choices=["process", "docker"],
        default="process",
        help="run the programs as processes, or in containers of an image that is made first",
    )
    parser.set_defaults(run=run)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number between 0 and a million")
    return value


def run(options: argparse.Namespace) -> int:
    """Run the demonstration; exit status 0 when all is as it must be, 130 when interrupted."""
    console = Console(stderr=True)
    try:
        return asyncio.run(interruptible(Demo(options, console)))
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted: everything was taken down.")
        return 130
    except ControllerError as exc:
        console.print(f"[red]error:[/] {exc}", highlight=False)
        console.print(f"Logs: {options.output / 'logs'}")
        return 1


async def interruptible(demo: Demo) -> int:
    """Turn SIGINT and SIGTERM into a cancellation, so that everything is taken down in order."""
    task = asyncio.ensure_future(demo.run())
    loop = asyncio.get_running_loop()
    for number_ in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number_, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@dataclass
class Demo:
    """One run of the demonstration; a longer observation is another :meth:`observation` of it.

    Parameters
    ----------
    options
        Of the command line; `output`, `agents`, `topology` and `executor` are read here.
    """

    options: argparse.Namespace
    console: Console
    facts: Facts = field(default_factory=Facts)

    async def run(self) -> int:
        """Observe, and take everything down; exit status 0 when all is as it must be."""
        observation = await self.observation()
        self.console.print(f"[bold]Science data processor demo[/]: {observation.what}")
        output: Path = self.options.output
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<34}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        with self._progress:
            async with Processes(output / "logs") as processes:
                mesos = await self._start_services(processes)
                async with Cam("127.0.0.1", self._katcp_port) as cam:
                    await self._observe(cam, observation)
                    async with self._step("The cluster has everything back"):
                        self.facts.leftovers = await demo_report.leftovers(cam, mesos)
        return demo_report.finish(self.facts, observation, output, Console())

    async def watch(self, cam: Cam, elapsed: float) -> None:
        """What is done once a second while data come: nothing here.

        Parameters
        ----------
        elapsed
            Seconds since the capture began.
        """

    async def observation(self) -> Observation:
        """Return what is observed."""
        if self.options.replay is None:
            return demo_config.simulated(self.options.seconds, self.options.calibrator_seconds)
        # casacore comes with it: a second that only a replay has to wait for
        from pipelines.common.errors import PipelineError
        from pipelines.correlator.replay import describe_replay

        path: Path = self.options.replay
        try:
            recording = await asyncio.to_thread(describe_replay, path)
        except PipelineError as exc:
            raise ControllerError(str(exc)) from exc
        return demo_config.replayed(path, recording, self.options.rate)

    async def _start_services(self, processes: Processes) -> str:
        """Start Redis, the cluster and the controller; return the address of the Mesos master."""
        output: Path = self.options.output.resolve()
        redis_port, mesos_port, goahead_port, self._katcp_port = free_ports(4)
        # Another demonstration may run on this machine: it must not get our data, nor we its ports.
        first_port = await asyncio.to_thread(free_block, BLOCKS, PORTS)
        redis = need_command("redis-server", "redis-server")
        sdp = (sys.executable, "-m", "sdpcontroller.cli.main")
        async with self._step("Compile, where it is the first time"):
            await processes.finish("warm-up", [*sdp, "warm-up"])
        folder = demo_report.fresh_folder(output / "redis")
        image = None
        if self.options.executor == "docker":
            async with self._step("The image of the programs"):
                image = await asyncio.to_thread(make_programs_image)
        async with self._step("Redis, the configuration database"):
            await processes.start(
                "redis",
                [redis],
                {"port": redis_port, "bind": "127.0.0.1", "dir": folder, "appendonly": "yes"},
                port=redis_port,
                timeout=10,
            )
        async with self._step("The cluster: Mesos master and agents"):
            await processes.start(
                "cluster",
                [*sdp, "cluster"],
                {
                    "port": mesos_port,
                    "agents": self.options.agents,
                    "work-dir": output / "cluster",
                    "data": output / "data",
                    "topology": self.options.topology,
                    "executor": self.options.executor,
                    "ports": f"{first_port}-{first_port + PORTS - 1}",
                },
                port=mesos_port,
                timeout=30,
                patience=40,
                orphaned=signal.SIGTERM,  # it has tasks to end
            )
        async with self._step("The master controller"):
            await processes.start(
                "master",
                [*sdp, "master", "--end-products"],
                {
                    "mesos": f"127.0.0.1:{mesos_port}",
                    "redis": f"redis://127.0.0.1:{redis_port}/0",
                    "port": self._katcp_port,
                    "goahead-port": goahead_port,
                    "image": image,
                    "multicast": f"239.{192 + randbelow(4)}.{randbelow(256)}.0/24",
                },
                port=self._katcp_port,
                timeout=30,
                patience=90,
            )
        return f"127.0.0.1:{mesos_port}"

    async def _observe(self, cam: Cam, observation: Observation) -> None:
        async with self._step("product-configure: place and launch"):
            started = time.monotonic()
            await cam.request("product-configure", PRODUCT, as_json(observation.document))
            self.facts.time_to_ready = time.monotonic() - started
        self.facts.tasks = await demo_report.tasks(cam, PRODUCT)
        async with self._step("capture-init"):
            (cbid,) = await cam.request("capture-init", PRODUCT)
            self.facts.capture_block = cbid
            self._began = time.monotonic()
        for index, pointing in enumerate(observation.pointings):
            if index:
                await cam.point(PRODUCT, SIMULATOR, pointing.target)
            await self._track(cam, pointing, replay=observation.replay)
        async with self._step("capture-done: drain"):
            await cam.request("capture-done", PRODUCT)
        self.facts.heaps = await demo_report.heaps(cam, PRODUCT)
        async with self._step("Imaging, as a batch task"):
            await self._watch_imaging(cam, cbid)
        self.facts.trouble = await cam.sensor(f"{PRODUCT}.reason")
        async with self._step("product-deconfigure: take down"):
            await cam.request("product-deconfigure", PRODUCT)

    async def _track(self, cam: Cam, pointing: demo_config.Pointing, *, replay: bool) -> None:
        """Stay on a target and show what arrives; a replay ends when the recording does."""
        name = pointing.target.split(",")[0]
        pattern = rf"^{PRODUCT}\..*\.(input-heaps-total|replay-finished)$"
        end = time.monotonic() + pointing.seconds
        async with self._step(f"Observing {name}", total=pointing.seconds) as step:
            while True:
                values = await cam.sensors(pattern)
                left = end - time.monotonic()
                note = f"{number(values, 'input-heaps-total')} heaps"
                self._progress.update(step, completed=pointing.seconds - left, note=note)
                await self.watch(cam, time.monotonic() - self._began)
                finished = any(v == "1" for k, v in values.items() if k.endswith("replay-finished"))
                if finished or (left <= 0 and not (replay and left > -30)):
                    return
                await asyncio.sleep(max(0.1, min(1.0, left)))

    async def _watch_imaging(self, cam: Cam, cbid: str) -> None:
        """Wait for the images, keeping note of where the tasks run: they are gone afterwards."""
        while cbid in await cam.capture_blocks(PRODUCT):
            seen = {task["name"]: task for task in self.facts.tasks}
            for task in await demo_report.tasks(cam, PRODUCT):
                if task["resources"]:  # dead ones hold nothing
                    seen[task["name"]] = task
            self.facts.tasks = list(seen.values())
            await asyncio.sleep(0.5)

    @asynccontextmanager
    async def _step(self, title: str, total: float | None = None) -> AsyncIterator[Any]:
        """Show one step of the demonstration while it lasts, and how long it took."""
        step = self._progress.add_task(title, total=total, note="")
        try:
            yield step
        except BaseException:
            self._progress.update(step, note="[red]failed")
            self._progress.stop_task(step)
            raise
        self._progress.update(step, total=total or 1, completed=total or 1)
        self._progress.stop_task(step)
