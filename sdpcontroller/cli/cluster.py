"""``sdp cluster``: a Mesos-compatible master and several agents in one process, on one machine."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any, Final

import psutil

from agent_setup.discover import discover, share_machine
from agent_setup.errors import AgentSetupError
from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.executors import Executor
from scheduler.embedded.executors.composing import ComposingExecutor
from scheduler.embedded.executors.docker import DockerExecutor
from scheduler.embedded.executors.process import ProcessExecutor
from scheduler.errors import QuantityError
from scheduler.quantities import Ranges
from sdpcontroller.cli.service import add_log_level, run_until_signal, set_up_logging
from sdpcontroller.errors import ControllerError
from sdpcontroller.workflows.resources import CBF_NETWORK, DATA_VOLUME, SDP_NETWORK

LOOPBACK: Final = "lo"
LOOPBACK_MBPS: Final = 10_000
"""Nominal speed of the loopback interface, which the kernel does not tell."""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "cluster",
        help="run a Mesos-compatible cluster on this machine",
        description="Run a Mesos-compatible master and several agents in one process, with the topology "
        "of this machine (or of a file). Tasks are processes. SIGTERM ends them all.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=5050, help="port to listen on")
    parser.add_argument("--agents", type=int, default=3, help="number of agents")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("sdp-cluster"), help="folder for the tasks' sandboxes"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("sdp-data"),
        help=f"folder that tasks get as the volume '{DATA_VOLUME}'",
    )
    parser.add_argument(
        "--topology",
        type=Path,
        metavar="FILE.xml",
        help="lstopo's XML, instead of asking this machine",
    )
    parser.add_argument(
        "--ports",
        default="20000-31999",
        metavar="FIRST-LAST",
        help="ports that tasks may listen on; two clusters on one machine need different ones",
    )
    parser.add_argument(
        "--executor",
        choices=["process", "docker"],
        default="process",
        help="what runs tasks: 'process' runs plain tasks as processes and refuses containers, 'docker' "
        "also runs tasks that ask for a Docker container, through the engine's API",
    )
    add_log_level(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    set_up_logging(options.log_level)
    return run_until_signal(lambda stop: serve(options, stop))


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then end all tasks."""
    agents = await asyncio.to_thread(
        agent_specs, options.agents, options.data, options.topology, options.ports
    )
    cluster = Cluster(
        agents,
        work_dir=options.work_dir,
        host=options.host,
        port=options.port,
        executor=make_executor(options.executor, options.work_dir.resolve()),
    )
    async with cluster, asyncio.TaskGroup() as group:
        serving = group.create_task(cluster.serve_forever())  # ends only by an internal fault
        await stop.wait()
        serving.cancel()


def make_executor(kind: str, work_dir: Path) -> Executor:
    """Return what runs tasks."""
    processes = ProcessExecutor(work_dir)
    if kind == "docker":
        return ComposingExecutor(docker=DockerExecutor(work_dir), other=processes)
    return processes


def agent_specs(count: int, data: Path, topology: Path | None, ports: str) -> list[AgentSpec]:
    """Describe the agents: copies of this machine (or of the one in the file) that share what it has.

    Parameters
    ----------
    count
        How many.
    data
        Folder behind the data volume; made when it is not there.
    topology
        lstopo's XML; None asks this machine.
    ports
        First and last port that all of them together have: ``20000-31999``.

    Raises
    ------
    ControllerError
        If the machine cannot be described or shared, with the reason.
    """
    data.mkdir(parents=True, exist_ok=True)
    try:
        machine = discover(
            lstopo_xml=topology,
            networks={CBF_NETWORK: LOOPBACK, SDP_NETWORK: LOOPBACK},
            speeds={LOOPBACK: LOOPBACK_MBPS},
            volumes={DATA_VOLUME: data},
        )
        # A virtual machine's memory may be more than what its NUMA nodes show (hot-plugged).
        memory = None if topology else psutil.virtual_memory().total >> 20
        shared = share_machine(machine, count, mem_mib=memory, ports=Ranges.parse(f"[{ports}]"))
    except (AgentSetupError, QuantityError) as exc:
        raise ControllerError(str(exc)) from exc
    return [AgentSpec(agent.hostname, agent.resources, agent.attributes) for agent in shared]
