"""``sdp master``: the master controller with its KATCP server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

from katcp_iface import KatcpServer
from scheduler import crash_points
from scheduler.collector import calm, settle
from scheduler.images import ImageResolver
from scheduler.service import Scheduler
from scheduler.subscription import Timing
from scheduler.threads import share_interpreter
from sdpcontroller.cli.image_options import add_image_options, open_images
from sdpcontroller.cli.service import Defaults, add_log_level, run_until_signal, set_up_logging
from sdpcontroller.cli.tls import Secured, add_tls_options, secured
from sdpcontroller.election import Election, ElectionTiming, Leadership
from sdpcontroller.interface_mode import StandInScheduler, private_redis
from sdpcontroller.master import FORMS, Master
from sdpcontroller.metrics import MeasuredControl, Metrics, Queues, attach
from sdpcontroller.metrics import serve as serve_metrics
from sdpcontroller.multicast import DEFAULT_POOL
from sdpcontroller.products.services import Timeouts
from sdpcontroller.store import Store, schema
from sdpcontroller.store.journal import StoreJournal

logger = logging.getLogger(__name__)

_ADOPTION: Final = 30.0
"""Seconds within which products ask to go on with launches of a predecessor; they do at once."""


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
    group.add_argument(
        "--mesos-principal",
        metavar="NAME",
        help="who this framework is to Mesos; the secret is taken from SDP_MESOS_SECRET, or from the file "
        "SDP_MESOS_SECRET_FILE",
    )
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
        "--image",
        metavar="NAME:TAG",
        help="container image of the programs (sdp images build makes one); without it they run as "
        "processes on their agents",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.list_crash_points:
        for point in crash_points.crash_points():
            sys.stdout.write(f"{point.name:<32}{point.meaning}\n")
        return 0
    set_up_logging(options)
    calm()
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
        await election.look()  # while all that there is is read, the time of a dead leader passes
        await schema.check(store, FORMS)
        leadership = await _win(election, stop)
        if leadership is not None:
            try:
                async with open_images(options) as images:
                    await _lead(options, store, leadership, stop, images, tls)
            finally:
                await leadership.resign()
    finally:
        await store.close()


async def serve_interface(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Serve in interface mode until `stop` is set; everything ends with it.

    Raises
    ------
    ControllerError
        If there is no Redis to be had.
    """
    async with AsyncExitStack() as stack:
        tls = stack.enter_context(secured(options))
        host, port = await stack.enter_async_context(private_redis())
        store = await Store.connect(f"redis://{host}:{port}/0")
        stack.push_async_callback(store.close)
        images = await stack.enter_async_context(open_images(options))
        master = Master(
            store,
            cast(Scheduler, StandInScheduler()),
            address=(options.host, options.port),
            multicast=options.multicast,
            timeouts=Timeouts(fit=options.fit_timeout),
            end_products=True,
            images=images,
            alarms=tls.alarms,
        )
        metrics = Metrics()
        store.timed = metrics.observe_exchange
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(master.run(ready, stop))
            group.create_task(_serve_katcp(master, metrics, options, tls, ready, running))


async def _win(election: Election, stop: asyncio.Event) -> Leadership | None:
    """Wait for the leadership; None when `stop` is set before."""
    winning, stopping = asyncio.create_task(election.win()), asyncio.create_task(stop.wait())
    await asyncio.wait({winning, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if winning.done():
        return winning.result()
    winning.cancel()
    await asyncio.wait({winning})
    return None


async def _lead(
    options: argparse.Namespace,
    store: Store,
    leadership: Leadership,
    stop: asyncio.Event,
    images: ImageResolver | None,
    tls: Secured,
) -> None:
    metrics = Metrics()
    store.timed = metrics.observe_exchange
    scheduler = Scheduler(
        master=tls.mesos,
        journal=StoreJournal(store),
        framework_name=options.framework_name,
        principal=options.mesos_principal,
        secret=tls.secrets.mesos,
        mesos_tls=tls.mesos_tls,
        goahead_host=options.goahead_host,
        goahead_port=options.goahead_port,
        goahead_urls=options.goahead_url,
        goahead_tls=tls.goahead,
        timing=Timing(adoption=_ADOPTION),
        images=images,
        may_act=lambda: leadership.held,
        figures=metrics,
    )
    master = Master(
        store,
        scheduler,
        address=(options.host, options.port),
        multicast=options.multicast,
        timeouts=Timeouts(fit=options.fit_timeout),
        may_act=lambda: leadership.held,
        end_products=options.end_products,
        image=options.image,
        images=images,
        power_off=options.power_off,
        standbys=lambda: leadership.candidates,
        figures=metrics,
        alarms=tls.alarms,
    )
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(leadership.keep(master.tell_system))
        await schema.migrate(store, FORMS)
        running = group.create_task(master.run(ready, stop))
        group.create_task(_serve_katcp(master, metrics, options, tls, ready, running, scheduler))
        settling = group.create_task(_settle(scheduler))
        await asyncio.wait({running})
        keeping.cancel()
        settling.cancel()


async def _settle(scheduler: Scheduler) -> None:
    """Let the collector pass over the many objects that the packing consists of, once it is loaded."""
    await scheduler.loaded()
    settle()


async def _serve_katcp(
    master: Master,
    metrics: Metrics,
    options: argparse.Namespace,
    tls: Secured,
    ready: asyncio.Event,
    running: asyncio.Task[None],
    queues: Queues | None = None,
) -> None:
    """Answer KATCP from when the master can do something until it has ended."""
    await ready.wait()
    server = KatcpServer(
        MeasuredControl(master, metrics),
        options.host,
        options.port,
        observed=metrics.observe_request,
    )
    await server.start()
    try:
        async with _measured(master, metrics, options, tls, queues), asyncio.TaskGroup() as group:
            watching = group.create_task(tls.watch(master.tell_system, metrics.certified))
            await asyncio.wait({running})
            watching.cancel()
    finally:
        await server.stop()


@asynccontextmanager
async def _measured(
    master: Master,
    metrics: Metrics,
    options: argparse.Namespace,
    tls: Secured,
    queues: Queues | None,
) -> AsyncIterator[None]:
    """Watch the event loop, and answer Prometheus where that is asked for."""
    async with AsyncExitStack() as stack:
        stack.callback(attach(master, metrics, queues))
        watching = asyncio.create_task(metrics.watch_loop())
        stack.callback(watching.cancel)
        if options.metrics_port is not None:
            port = await stack.enter_async_context(
                serve_metrics(
                    metrics,
                    options.metrics_host,
                    options.metrics_port,
                    token=tls.secrets.metrics or "",
                    tls=tls.metrics,
                )
            )
            logger.info("figures are at %s:%d/metrics", options.metrics_host, port)
        yield
