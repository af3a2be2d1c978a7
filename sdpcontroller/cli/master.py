"""``sdp master``: the master controller with its KATCP server."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

from katcp_iface import KatcpServer
from scheduler.service import Scheduler
from sdpcontroller.cli.service import add_log_level, run_until_signal, set_up_logging
from sdpcontroller.master import Master
from sdpcontroller.multicast import DEFAULT_POOL
from sdpcontroller.products.services import Timeouts
from sdpcontroller.store import Store
from sdpcontroller.store.journal import StoreJournal


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "master",
        help="run the master controller",
        description="Run the master controller: a Mesos framework on one side, a KATCP server on the "
        "other. SIGTERM takes all products down in order.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--mesos", default="127.0.0.1:5050", help="address of the Mesos master")
    parser.add_argument(
        "--redis",
        default="redis://127.0.0.1:6379/0",
        metavar="URL",
        help="configuration database; a password is taken from SDP_REDIS_PASSWORD",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on for KATCP")
    parser.add_argument("--port", type=int, default=5001, help="port to listen on for KATCP")
    parser.add_argument(
        "--goahead-host",
        default="127.0.0.1",
        help="address at which tasks ask for their go-ahead; must be reachable from all agents",
    )
    parser.add_argument("--goahead-port", type=int, default=0, help="its port; 0 for any")
    parser.add_argument(
        "--multicast", default=DEFAULT_POOL, help="network of the products' multicast addresses"
    )
    parser.add_argument(
        "--fit-timeout",
        type=float,
        default=Timeouts().fit,
        help="seconds to find place and be ready",
    )
    parser.add_argument("--framework-name", default="sdp", help="name shown by Mesos")
    add_log_level(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    set_up_logging(options.log_level)
    return run_until_signal(lambda stop: serve(options, stop))


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then take everything down."""
    store = await Store.connect(options.redis, password=os.environ.get("SDP_REDIS_PASSWORD"))
    try:
        scheduler = Scheduler(
            master=options.mesos,
            journal=StoreJournal(store),
            framework_name=options.framework_name,
            goahead_host=options.goahead_host,
            goahead_port=options.goahead_port,
        )
        master = Master(
            store,
            scheduler,
            address=(options.host, options.port),
            multicast=options.multicast,
            timeouts=Timeouts(fit=options.fit_timeout),
        )
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(master.run(ready, stop))
            group.create_task(_serve_katcp(master, options, ready, running))
    finally:
        await store.close()


async def _serve_katcp(
    master: Master, options: argparse.Namespace, ready: asyncio.Event, running: asyncio.Task[None]
) -> None:
    """Answer KATCP from when the master can do something until it has ended."""
    await ready.wait()
    server = KatcpServer(master, options.host, options.port)
    await server.start()
    try:
        await asyncio.wait({running})
    finally:
        await server.stop()
