"""What ``sdp master`` does once all of it is loaded: stands by, leads, serves.

It is a module of its own, loaded after the first look at the lease (:mod:`sdpcontroller.cli.master`): that
takes longer than half of the time for which a dead leader is waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, cast

from katcp_iface import KatcpServer
from scheduler.collector import keep_looking, settle
from scheduler.images import ImageResolver
from scheduler.packing import warm_up
from scheduler.service import Scheduler
from scheduler.subscription import Timing
from sdpcontroller.cli.image_options import open_images
from sdpcontroller.cli.tls import Secured, secured
from sdpcontroller.election import Election, Leadership
from sdpcontroller.interface_mode import StandInScheduler, private_redis
from sdpcontroller.master import FORMS, Master
from sdpcontroller.metrics import MeasuredControl, Metrics, Queues, attach
from sdpcontroller.metrics import serve as serve_metrics
from sdpcontroller.products.services import Timeouts
from sdpcontroller.queues import BUILT_IN, Agreement, QueuesConfig, digest, read
from sdpcontroller.store import Store, schema
from sdpcontroller.store.journal import StoreJournal

logger = logging.getLogger(__name__)

_ADOPTION: Final = 30.0
"""Seconds within which products ask to go on with launches of a predecessor; they do at once."""


async def stand_by(
    options: argparse.Namespace,
    store: Store,
    election: Election,
    stop: asyncio.Event,
    tls: Secured,
) -> None:
    """Read all that there is, wait for the leadership, and lead until `stop` is set.

    Raises
    ------
    StoreError
        If the database holds what this program cannot read: before it leads.
    LeadershipLostError
        When another controller has taken over.
    """
    metrics = Metrics()
    metrics.reached("loaded")
    declared = declared_queues(options)
    election.lead_on(digest(declared))
    store.recollection = {}
    async with _watched(metrics):
        await schema.check(store, FORMS)
        await Agreement(store, declared, controller_name(options)).compare()
        metrics.reached("read")
        # What placing needs is loaded while somebody else leads, or a dead leader's time passes.
        loading = asyncio.create_task(asyncio.to_thread(warm_up))
        try:
            leadership = await _win(election, lambda: schema.check(store, FORMS), stop)
            if leadership is None:
                return
            metrics.reached("leads")
            try:
                async with open_images(options) as images:
                    await _lead(options, store, leadership, stop, images, tls, metrics, declared)
            finally:
                await leadership.resign()
        finally:
            loading.cancel()


def declared_queues(options: argparse.Namespace) -> QueuesConfig:
    """Return the queues of the file that is named; raise ``ConfigError`` if it is of no use."""
    return BUILT_IN if options.queues is None else read(options.queues)


def controller_name(options: argparse.Namespace) -> str:
    """Return the name of this controller, for people."""
    return f"{options.host}:{options.port}"


@asynccontextmanager
async def _watched(metrics: Metrics) -> AsyncIterator[None]:
    """Watch the event loop as long as the context lasts, and let the collector take little of its time."""
    tasks = [asyncio.create_task(work) for work in (metrics.lag.watch(), keep_looking())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


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
            queues=declared_queues(options),
        )
        metrics = Metrics()
        await stack.enter_async_context(_watched(metrics))
        store.timed = metrics.observe_exchange
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(master.run(ready, stop))
            group.create_task(_serve_katcp(master, metrics, options, tls, ready, running))


async def _win(
    election: Election, prepare: Callable[[], Awaitable[None]], stop: asyncio.Event
) -> Leadership | None:
    """Wait for the leadership; None when `stop` is set before."""
    winning = asyncio.create_task(election.win(prepare))
    stopping = asyncio.create_task(stop.wait())
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
    metrics: Metrics,
    declared: QueuesConfig,
) -> None:
    agreement = Agreement(store, declared, controller_name(options), lambda: leadership.strangers)
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
        roles=declared.roles,
        queues=declared.declared(),
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
        alarms=lambda: (*tls.alarms(), *agreement.alarms()),
        queues=declared,
    )
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(leadership.keep(master.tell_system))
        await schema.migrate(store, FORMS)
        await agreement.lead()
        running = group.create_task(master.run(ready, stop))
        group.create_task(_serve_katcp(master, metrics, options, tls, ready, running, scheduler))
        settling = group.create_task(_settle(scheduler, store))
        await asyncio.wait({running})
        keeping.cancel()
        settling.cancel()


async def _settle(scheduler: Scheduler, store: Store) -> None:
    """Let the collector pass over the many objects that all this consists of, once it is loaded."""
    await scheduler.loaded()
    store.recollection = None  # all was read that is read at a stretch
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
    metrics.reached("answers")
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
    """Read off figures, and answer Prometheus where that is asked for."""
    async with AsyncExitStack() as stack:
        stack.callback(attach(master, metrics, queues))
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
