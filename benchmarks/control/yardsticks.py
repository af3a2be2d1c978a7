"""What the figures are compared with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.control.site import Site
from scheduler.graph import instantiate
from scheduler.journal import MemoryJournal
from scheduler.packing import warm_up
from scheduler.service import Scheduler
from sdpcontroller import config as configuration
from sdpcontroller.workflows import realtime


@dataclass(frozen=True)
class Used:
    """Seconds."""

    wall: float
    cpu: float


async def launch_alone(site: Site, text: str) -> Used:
    """Launch the graph of a configuration with the scheduler, and no controller: in this process."""
    await asyncio.to_thread(warm_up)
    config = configuration.parse(text)
    groups = dict.fromkeys(realtime.multicast_needs(config), "239.192.255.1")
    graph = instantiate(realtime.build(config, "alone", groups).graph, "alone-1")
    async with AsyncExitStack() as stack:
        scheduler = Scheduler(
            master=site.mesos,
            journal=MemoryJournal(),
            framework_name="alone",
            roles=("alone",),
        )
        await stack.enter_async_context(scheduler)
        await asyncio.sleep(1)
        wall, cpu = time.monotonic(), time.process_time()
        await scheduler.launch(graph, timeout=60, late_values=_nothing)
        used = Used(time.monotonic() - wall, time.process_time() - cpu)
        await scheduler.close(teardown=True)
    return used


async def _nothing(task: str) -> Mapping[str, str]:
    return {}


async def start_alone(site: Site) -> float:
    """Return the CPU time that a controller needs to start which finds nothing to go on with, s."""
    async with Site(1) as empty:
        controller = empty.start()
        client = await controller.client()
        await asyncio.sleep(4)
        client.close()
        return controller.cpu()
