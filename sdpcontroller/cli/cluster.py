"""``sdp cluster``: a Mesos-compatible master and several agents in one process, on one machine."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import psutil
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent_setup.discover import discover, share_machine
from agent_setup.errors import AgentSetupError
from scheduler.collector import calm
from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.executors import Executor
from scheduler.embedded.executors.composing import ComposingExecutor
from scheduler.embedded.executors.docker import DockerExecutor
from scheduler.embedded.executors.process import ProcessExecutor
from scheduler.embedded.executors.simulated import SimulatedExecutor
from scheduler.embedded.faults.admin import FaultServer, read_token
from scheduler.embedded.faults.requests import read_resources
from scheduler.embedded.pool import UNRESERVED
from scheduler.embedded.recovery import Recover
from scheduler.errors import QuantityError
from scheduler.quantities import Ranges
from sdpcontroller.cli.service import Defaults, add_log_level, run_until_signal, set_up_logging
from sdpcontroller.errors import ControllerError
from sdpcontroller.workflows.resources import CBF_NETWORK, DATA_VOLUME, SDP_NETWORK

LOOPBACK: Final = "lo"
LOOPBACK_MBPS: Final = 10_000
"""Nominal speed of the loopback interface, which the kernel does not tell."""


_DESCRIPTION: Final = """
Run a Mesos-compatible master and several agents in one process. A framework that runs against it runs against a
production cluster of Mesos 1.12 unchanged.

SIGTERM and Ctrl-C end all tasks. When this process is killed instead, its tasks run on, and the next cluster
with the same work folder takes them up; --recover=cleanup kills them.
"""
_EPILOG: Final = """
examples:
  sdp cluster                                   three agents that share this machine
  sdp cluster --executor docker --agents 1      tasks in Docker containers
  sdp cluster --executor simulated --agents 500 500 copies of this machine; no task really runs
  sdp cluster --spec agents.json                agents as described: a JSON list of objects like
      {"hostname": "127.0.1.1", "resources": {"cpus": 8, "mem": 16384, "cores": "[0-7]"},
       "attributes": {"rack": "r1"}, "reserved": {"batch": {"cpus": 4}}}
  with "default_role", "resources" are reserved as well
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "cluster",
        help="run a Mesos-compatible cluster on this machine",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_Formatter,
    )
    _add_agents(parser)
    _add_tasks(parser)
    _add_server(parser)
    add_log_level(parser)
    parser.set_defaults(run=run)


class _Formatter(Defaults, argparse.RawDescriptionHelpFormatter):
    """Defaults in the help of options, and paragraphs as they are written."""


def _add_agents(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("agents")
    group.add_argument("--agents", type=int, default=3, metavar="N", help="number of agents")
    group.add_argument(
        "--topology",
        type=Path,
        metavar="FILE.xml",
        help="lstopo's XML of the machine that they share, instead of asking this one",
    )
    group.add_argument(
        "--spec",
        type=Path,
        metavar="FILE.json",
        help="the agents, one by one, instead of --agents, --topology, --ports and --data",
    )
    group.add_argument(
        "--ports",
        default="20000-31999",
        metavar="FIRST-LAST",
        help="ports that tasks may listen on; two clusters on one machine need different ones",
    )
    group.add_argument(
        "--data",
        type=Path,
        default=Path("sdp-data"),
        metavar="FOLDER",
        help=f"folder that tasks get as the volume '{DATA_VOLUME}'",
    )


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tasks")
    group.add_argument(
        "--executor",
        choices=["process", "docker", "simulated"],
        default="process",
        help="what runs tasks. 'process': processes of this machine; tasks that ask for a container fail. "
        "'docker': also tasks in Docker containers. 'simulated': nothing runs, tasks follow the script "
        "in their label sdp.simulation",
    )
    group.add_argument(
        "--no-limits",
        action="store_true",
        help="do not hold processes to the memory and CPUs that they have been given",
    )
    group.add_argument(
        "--work-dir",
        type=Path,
        default=Path("sdp-cluster"),
        metavar="FOLDER",
        help="folder for sandboxes and checkpoints",
    )
    group.add_argument(
        "--recover",
        choices=[how.value for how in Recover],
        default=Recover.RECONNECT.value,
        help="what becomes of tasks that a killed cluster has left in the work folder: they are taken up, "
        "or killed",
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on")
    group.add_argument("--port", type=int, default=5050, help="port to listen on")
    group.add_argument(
        "--framework-credentials",
        type=Path,
        metavar="FILE",
        help="who may use the scheduler API: lines 'principal secret', or Mesos' JSON",
    )
    group.add_argument(
        "--operator-credentials",
        type=Path,
        metavar="FILE",
        help="who may use everything else",
    )
    group.add_argument(
        "--admin-token-file",
        type=Path,
        metavar="FILE",
        help="take faults to be produced, on loopback, from whoever has this token "
        "(docs/embedded-cluster.md)",
    )
    group.add_argument("--admin-port", type=int, default=5049, help="where faults are taken")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    set_up_logging(options)
    return run_until_signal(lambda stop: serve(options, stop))


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then end all tasks."""
    agents = await asyncio.to_thread(_agents, options)
    async with AsyncExitStack() as stack:
        cluster = Cluster(
            agents,
            work_dir=options.work_dir,
            host=options.host,
            port=options.port,
            executor=make_executor(
                options.executor, options.work_dir.resolve(), not options.no_limits
            ),
            checkpoint=options.executor != "simulated",  # of those nothing could be taken up
            recover=Recover(options.recover),
            framework_credentials=options.framework_credentials,
            operator_credentials=options.operator_credentials,
        )
        if options.admin_token_file is not None:
            token = await asyncio.to_thread(read_token, options.admin_token_file)
            server = FaultServer(cluster.faults, token, options.admin_port)
            await stack.enter_async_context(server)
        await stack.enter_async_context(cluster)
        calm()
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(cluster.serve_forever())  # ends only by an internal fault
            await stop.wait()
            serving.cancel()


def make_executor(kind: str, work_dir: Path, limits: bool) -> Executor:
    """Return what runs tasks."""
    if kind == "simulated":
        return SimulatedExecutor()
    processes = ProcessExecutor(work_dir, limits=limits)
    if kind == "docker":
        return ComposingExecutor(docker=DockerExecutor(work_dir), other=processes)
    return processes


def _agents(options: argparse.Namespace) -> list[AgentSpec]:
    if options.spec is not None:
        return read_specs(options.spec)
    if options.executor != "simulated":
        return agent_specs(options.agents, options.data, options.topology, options.ports)
    machine = agent_specs(1, options.data, options.topology, options.ports)[0]
    return [replace(machine, hostname=f"simulated-{n}") for n in range(1, options.agents + 1)]


class _AgentDocument(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    hostname: Annotated[str, Field(min_length=1, max_length=253)]
    resources: dict[str, float | str]
    attributes: dict[str, str] = {}
    default_role: Annotated[str, Field(min_length=1)] = UNRESERVED
    reserved: dict[str, dict[str, float | str]] = {}


_SPECS: Final = TypeAdapter(list[_AgentDocument])


def read_specs(path: Path) -> list[AgentSpec]:
    """Read descriptions of agents.

    Raises
    ------
    ControllerError
        If there is something wrong with them.
    """
    try:
        documents = _SPECS.validate_json(path.read_bytes())
        return [_spec(document) for document in documents]
    except (OSError, ValidationError, QuantityError) as exc:
        raise ControllerError(f"cannot read the agents in {path}: {exc}") from exc


def _spec(document: _AgentDocument) -> AgentSpec:
    spec = AgentSpec(
        document.hostname,
        read_resources(document.resources),
        document.attributes,
        document.default_role,
        {role: read_resources(resources) for role, resources in document.reserved.items()},
    )
    if not spec.pool:  # the same number of a range in two places is found here
        raise ControllerError(f"agent {spec.hostname} has no resources")
    return spec


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
