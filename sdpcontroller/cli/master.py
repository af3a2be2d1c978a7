"""``sdp master``: the master controller with its KATCP server.

What is imported here is little: a controller that starts looks at the lease first, and loads the rest then.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from scheduler import crash_points
from scheduler.collector import undisturbed
from scheduler.threads import share_interpreter
from sdpcontroller.cli.image_options import add_image_options
from sdpcontroller.cli.service import Defaults, add_log_level, run_until_signal, set_up_logging
from sdpcontroller.cli.tls import Secured, add_mesos_principal, add_tls_options, secured
from sdpcontroller.election import Election, ElectionTiming
from sdpcontroller.multicast import DEFAULT_POOL
from sdpcontroller.products.services import Timeouts
from sdpcontroller.store import Store


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "master",
        help="run the master controller",
        description="Run the master controller: a Mesos framework on one side, a KATCP server on the "
        "other. Several can share a configuration database: one acts, the others stand by. Products "
        "outlive the controller; the next one goes on with them.",
        formatter_class=Defaults,
    )
    _add_interface_options(parser.add_argument_group("clients"))
    _add_cluster_options(parser.add_argument_group("cluster"))
    _add_succession_options(parser.add_argument_group("database and other controllers"))
    _add_product_options(parser.add_argument_group("products"))
    add_tls_options(parser.add_argument_group("encryption (TLS)"))
    add_image_options(parser)
    add_log_level(parser)
    parser.set_defaults(run=run)


def _add_interface_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on for KATCP")
    group.add_argument("--port", type=int, default=5001, help="port to listen on for KATCP")
    group.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="answer Prometheus at http://HOST:PORT/metrics, and /health; 0 for any port",
    )
    group.add_argument(
        "--metrics-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen for that; who asks for the figures must have the token of "
        "SDP_METRICS_TOKEN (or in the file SDP_METRICS_TOKEN_FILE), if that is set",
    )
    group.add_argument(
        "--metrics-certificate",
        type=Path,
        metavar="FILE.pem",
        help="serve that over TLS with a certificate (and chain) of its own",
    )
    group.add_argument(
        "--metrics-key",
        type=Path,
        metavar="FILE.pem",
        help="its key, where it is not in the same file",
    )
    group.add_argument(
        "--interface-mode",
        action="store_true",
        help="no cluster: tasks are stand-ins within this process, and the database is a Redis of its "
        "own that ends with it; for testing clients",
    )


def _add_cluster_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mesos",
        default="127.0.0.1:5050",
        help="address of the Mesos master: HOST:PORT, https://HOST:PORT, or zk://…",
    )
    add_mesos_principal(group)
    group.add_argument("--framework-name", default="sdp", help="name shown by Mesos")
    group.add_argument(
        "--goahead-host",
        default="127.0.0.1",
        help="address at which tasks ask for their go-ahead; must be reachable from all agents",
    )
    group.add_argument(
        "--goahead-port",
        type=int,
        default=5002,
        help="its port, the same after a restart: waiting tasks ask there; 0 for any",
    )
    group.add_argument(
        "--goahead-url",
        action="append",
        default=[],
        metavar="URL",
        help="where tasks reach the go-ahead of this and of the other controllers, http://host:port "
        "or https://host:port each; give the option for each of them (default: this one only)",
    )
    group.add_argument(
        "--power-off",
        type=shlex.split,
        default=[],
        metavar="COMMAND",
        help="what ?sdp-shutdown runs for each host, with {host} for its name",
    )


def _add_succession_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--redis",
        default="redis://127.0.0.1:6379/0",
        metavar="URL",
        help="configuration database (rediss:// for TLS); a password is taken from SDP_REDIS_PASSWORD, or "
        "from the file SDP_REDIS_PASSWORD_FILE",
    )
    group.add_argument(
        "--lease",
        type=float,
        default=ElectionTiming().lease,
        metavar="SECONDS",
        help="how long a leading controller that is silent is waited for; the same for all",
    )
    group.add_argument(
        "--list-crash-points",
        action="store_true",
        help=f"list where {crash_points.VARIABLE}=NAME[:N] makes the controller die, for tests",
    )


def _add_product_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--end-products",
        action="store_true",
        help="take all products down in order at SIGTERM, instead of leaving them to the next controller",
    )
    group.add_argument(
        "--multicast", default=DEFAULT_POOL, help="network of the products' multicast addresses"
    )
    group.add_argument(
        "--fit-timeout",
        type=float,
        default=Timeouts().fit,
        metavar="SECONDS",
        help="time to find place and be ready",
    )
    group.add_argument(
        "--queues",
        type=Path,
        metavar="FILE",
        help="the queues in which products and postprocessing wait for their place: priorities, who may have "
        "batch tasks ended to make room, limits, roles; TOML (.toml) or JSON, the same for all controllers; "
        "docs/reference/queues.md describes it (default: real time before batch, nobody makes room)",
    )
    group.add_argument(
        "--image",
        metavar="NAME:TAG",
        help="container image of the programs (sdp images build makes one); without it they run as "
        "processes on their agents",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.list_crash_points:
        _load()
        for point in crash_points.crash_points():
            sys.stdout.write(f"{point.name:<32}{point.meaning}\n")
        return 0
    set_up_logging(options)
    share_interpreter()
    work = serve_interface if options.interface_mode else serve
    # Not so in interface mode: its Redis ends with this process.
    return run_until_signal(
        lambda stop: work(options, stop), abandon_threads=not options.interface_mode
    )


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Stand by until this controller leads, then serve, until `stop` is set.

    Raises
    ------
    StoreError
        If the database holds what this program cannot read: before it leads.
    ControllerError
        If a certificate or a secret is of no use: before anything else.
    LeadershipLostError
        When another controller has taken over.
    """
    crash_points.arm(os.environ.get(crash_points.VARIABLE, ""))
    with secured(options) as tls:
        await _serve(options, stop, tls)


async def _serve(options: argparse.Namespace, stop: asyncio.Event, tls: Secured) -> None:
    store = await Store.connect(
        options.redis, password=tls.secrets.redis, authority=options.redis_ca
    )
    try:
        election = Election(
            store, f"{options.host}:{options.port}", ElectionTiming.of(options.lease)
        )
        # While the program is loaded, and all that there is read, the time of a dead leader passes.
        await election.look()
        leading = await asyncio.to_thread(_load)
        await leading.stand_by(options, store, election, stop, tls)
    finally:
        await store.close()


async def serve_interface(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Serve in interface mode until `stop` is set; everything ends with it."""
    leading = await asyncio.to_thread(_load)
    await leading.serve_interface(options, stop)


def _load() -> Any:
    """Load the rest of the program: a second and a half of computing that the first look does not wait for."""
    with undisturbed():
        return importlib.import_module("sdpcontroller.cli.leading")
