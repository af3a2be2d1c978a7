"""What is measured, each with its aim."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Final

from benchmarks.control import yardsticks
from benchmarks.control.probe import Probe, request, watch
from benchmarks.control.site import Controller, Site
from benchmarks.interface_mode import document

STREAMS: Final = 38
"""Visibility streams of a product of 192 tasks."""
STREAMS_200: Final = 40
"""Of one of 202."""
SENSORS: Final = 100
"""Of each task, besides its own."""
PERIOD: Final = 5.0
"""Seconds in which each sensor has a new value: what a program shows changes with its dumps, of 2 to 8 s."""


async def one() -> None:
    """One product of 192 tasks is configured."""
    async with Site(16) as site:
        controller, idle = await _begin(site)
        async with Probe(controller) as busy:
            seconds = await _configure(controller, "p0", document(STREAMS))
        say("configure 192 tasks, to ready", seconds, 3.0, "s")
        say_requests(idle, busy)
        bare = await yardsticks.launch_alone(site, document(STREAMS))
        say_ratio("CPU", busy.cpu, bare.cpu, "s", "the scheduler alone, its journal in memory")
        say_ratio("time", seconds, bare.wall, "s", "the same")


async def four() -> None:
    """Four such products are configured at once."""
    async with Site(64) as site:
        controller, idle = await _begin(site)
        async with Probe(controller) as busy:
            seconds = await _configure_all(controller, 4, document(STREAMS))
        say("configure 4 x 192 tasks at once, the last to ready", max(seconds), None, "s")
        say_requests(idle, busy)
        say("memory", controller.resident(), None, "MiB")


async def recovery() -> None:
    """A controller of 10 products of 200 tasks is killed, and another goes on with them."""
    async with Site(160) as site:
        controller, _ = await _begin(site)
        await _configure_all(controller, 10, document(STREAMS_200), at_once=2)
        tasks = await site.ask("linked")
        controller.kill(signal.SIGKILL)
        await site.until_linked(0)
        successor = site.start()
        client = await successor.client()
        answers = time.monotonic() - successor.began
        answered = successor.cpu()
        async with Probe(successor, from_start=True) as busy:
            await site.until_linked(tasks)
            adopted = time.monotonic() - successor.began
            cpu, delayed = successor.cpu(), successor.delayed()
            reached = await successor.reached()
            for number in range(10):
                await request(client, "capture-init", f"p{number}")
            captures = time.monotonic() - successor.began
        client.close()
        print(f"  {tasks} tasks with KATCP, and a telescope state for each product")
        say("from start to the first answer", answers, None, "s")
        say("from start to all tasks adopted", adopted, 10.0, "s")
        print(
            f"    of which {cpu:.1f} s computing ({answered:.1f} s until the first answer), "
            f"{delayed:.1f} s ready and without a CPU"
        )
        for what, seconds in sorted(reached.items(), key=lambda step: step[1]):
            print(f"    {what:<12}{seconds:6.2f} s")
        say("from start to all products capturing", captures, None, "s")
        say("memory", successor.resident(), None, "MiB")
        say_requests(None, busy)
        say_ratio("CPU", cpu, await yardsticks.start_alone(site), "s", "one that finds nothing")


async def takeover() -> None:
    """A standby takes over from a controller of 10 products of 200 tasks that is killed, or ends in order."""
    async with Site(160) as site:
        leader, _ = await _begin(site)
        await _configure_all(leader, 10, document(STREAMS_200), at_once=2)
        tasks = await site.ask("linked")
        for number, aim in ((signal.SIGKILL, 5.0), (signal.SIGTERM, 1.0)):
            standby = site.start()
            await _until_stands_by(leader)
            begun = time.monotonic()
            leader.process.send_signal(number)
            client = await standby.client()
            say(
                f"from {number.name} to the standby's first answer",
                time.monotonic() - begun,
                aim,
                "s",
            )
            client.close()
            async with Probe(standby, from_start=True) as busy:
                await site.until_linked(tasks)
                say("to all tasks adopted", time.monotonic() - begun, 10.0, "s")
            say_requests(None, busy)
            leader.kill()
            leader = standby


async def _until_stands_by(leader: Controller) -> None:
    """Wait until another controller stands by, and has been at rest for a while."""
    client = await leader.client()
    while True:
        _, informs = await client.request("sensor-value", "standbys")
        if informs[0].arguments[4] == b"1":
            break
        await asyncio.sleep(0.2)
    client.close()
    await asyncio.sleep(5)


async def sensors() -> None:
    """20 000 sensors of 200 tasks are mirrored while all of them change."""
    async with Site(16, SENSORS) as site:
        controller, idle = await _begin(site)
        before = controller.resident()
        await _configure(controller, "p0", document(STREAMS_200))
        await asyncio.sleep(5)
        async with Probe(controller) as still:
            await asyncio.sleep(5)
        await site.ask("update", PERIOD)
        await asyncio.sleep(3)
        async with Probe(controller) as busy:
            await asyncio.sleep(15)
        async with Probe(controller) as watched:
            rate = await _watch(controller, 20)
        count = await _count_sensors(controller)
        say("sensors", count, None, "")
        say("memory", controller.resident(), 600.0, "MiB")
        say_ratio("memory", controller.resident(), before, "MiB", "before there is a product")
        print(
            f"  {200 * SENSORS / PERIOD:.0f} readings a second: {busy.load}; {still.load} without"
        )
        say_requests(idle, busy)
        print(
            f"  and with a client that subscribes to all of them, {rate:.0f} updates a second: {watched.load}"
        )
        say_requests(idle, watched)


async def _watch(controller: Controller, seconds: float) -> float:
    """Let another process subscribe to everything; return the updates that it gets in a second."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=watch, args=(controller.port, seconds, other))
    process.start()
    rate: float = await asyncio.to_thread(pipe.recv)
    process.join()
    return rate


MEASURES: Final[Mapping[str, Callable[[], Coroutine[None, None, None]]]] = {
    "one": one,
    "four": four,
    "recovery": recovery,
    "takeover": takeover,
    "sensors": sensors,
}


async def _begin(site: Site) -> tuple[Controller, Probe]:
    """Start a controller; ask it for a while when it has nothing to do."""
    controller = site.start()
    client = await controller.client()
    client.close()
    await asyncio.sleep(4)  # the compiled parts of packing are loaded meanwhile
    async with Probe(controller) as idle:
        await asyncio.sleep(3)
    return controller, idle


async def _configure(controller: Controller, name: str, config: str) -> float:
    client = await controller.client()
    begun = time.monotonic()
    await request(client, "product-configure", name, config)
    seconds = time.monotonic() - begun
    client.close()
    await client.wait_closed()
    return seconds


async def _configure_all(
    controller: Controller, count: int, config: str, at_once: int = 0
) -> Sequence[float]:
    """Configure products; `at_once` of them at a time, 0: all."""
    room = asyncio.Semaphore(at_once or count)

    async def each(number: int) -> float:
        async with room:
            return await _configure(controller, f"p{number}", config)

    return await asyncio.gather(*map(each, range(count)))


async def _count_sensors(controller: Controller) -> int:
    client = await controller.client()
    reply = await request(client, "sensor-list")
    client.close()
    await client.wait_closed()
    return int(reply[0])


def say(what: str, value: float, aim: float | None, unit: str) -> None:
    """Print a figure with its aim."""
    verdict = "" if aim is None else f" (aim {aim:g} {unit}: {'met' if value <= aim else 'MISSED'})"
    print(f"  {what}: {value:.4g} {unit}{verdict}")


def say_ratio(what: str, value: float, yard: float, unit: str, name: str) -> None:
    """Print a figure beside its yardstick."""
    print(f"  {what}: {value:.2f} {unit}, {value / yard:.2f} x {name} ({yard:.2f} {unit})")


def say_requests(idle: Probe | None, busy: Probe) -> None:
    """Print how requests and the loop fared meanwhile."""
    say(f"p99 of {len(busy.all_seconds)} requests", 1000 * busy.p99, 100.0, "ms")
    if idle is not None:
        say_ratio("p99", 1000 * busy.p99, 1000 * idle.p99, "ms", "when nothing goes on")
    say("loop late by at most", 1000 * busy.lag.worst, 50.0, "ms")
    say("  by its own computing", 1000 * busy.own_lag.worst, 50.0, "ms")
    print(
        f"  the controller waited {busy.delayed:.2f} s of {busy.wall:.1f} s for a CPU; "
        f"{100 * busy.lag.share_above(0.05):.2f} % of {busy.lag.looks:.0f} looks were later than 50 ms"
    )
