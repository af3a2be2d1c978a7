"""What can go wrong, one coroutine each; what a fault breaks, it mends before it returns."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

import sdpcontroller.cli.leading  # noqa: F401 - its crash points
from scheduler.crash_points import crash_points
from scheduler.embedded.faults import Delay, Duplicate, Reorder
from scheduler.embedded.membership import Membership
from tests.faults.bench.bench import (
    LEASE,
    PING,
    PINGS,
    Bench,
    Controller,
    NobodyError,
    RefusedError,
)


class Chaos:
    """Breaks things.

    Parameters
    ----------
    rng
        Decides everything.
    """

    def __init__(self, bench: Bench, rng: random.Random) -> None:
        self.bench = bench
        self._rng = rng
        self.takeovers: list[float] = []
        """Seconds from the death of a leader until another one answered."""
        self.handovers: list[float] = []
        """The same from the signal to end in order."""
        self.violations: list[str] = []
        self.crash_at = ""
        """Where the next controller that is begun shall die."""
        self.lost: set[str] = set()
        """Hosts of the machines that went down in this fault."""
        self._smaller: set[str] = set()

    # ------------------------------------------------------------------ who is there

    async def leader(self) -> Controller:
        """Return the controller that answers; wait for one."""
        while True:
            for controller in self.bench.controllers.values():
                if controller.pid and not controller.paused and await _answers(controller):
                    return controller
            await asyncio.sleep(0.02)

    def _standby(self, leader: Controller) -> Controller | None:
        others = [c for c in self.bench.controllers.values() if c is not leader and c.pid]
        return others[0] if others else None

    async def _answer_again(self) -> float:
        began = time.monotonic()
        await self.leader()
        return time.monotonic() - began

    # ------------------------------------------------------------------ controllers

    async def kill_leader(self) -> None:
        leader = await self.leader()
        standby = self._standby(leader)
        await self.bench.signal(leader.name, signal.SIGKILL)
        seconds = await self._answer_again()
        if standby is not None:
            self.takeovers.append(seconds)

    async def kill_standby(self) -> None:
        standby = self._standby(await self.leader())
        if standby is not None:
            await self.bench.signal(standby.name, signal.SIGKILL)

    async def kill_both(self) -> None:
        for name, controller in self.bench.controllers.items():
            if controller.pid:
                await self.bench.signal(name, signal.SIGKILL)
        await self._answer_again()

    async def kill_twice(self) -> None:
        """Kill one leader after the other, the second before it can have got far."""
        await self.kill_leader()
        await asyncio.sleep(self._rng.uniform(0.0, 0.4))
        await self.kill_leader()

    async def end_in_order(self) -> None:
        leader = await self.leader()
        standby = self._standby(leader)
        pid = leader.pid
        ending = asyncio.create_task(self.bench.signal(leader.name, signal.SIGTERM))
        began = time.monotonic()
        while await self.leader() is leader and leader.pid == pid:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if standby is not None and standby.pid:
            self.handovers.append(time.monotonic() - began)
        await ending

    async def crash_at_a_point(self) -> None:
        """Let the next controller die at a named place, whenever it comes there."""
        self.crash_at = self._rng.choice([point.name for point in crash_points()])
        await self.kill_both()

    async def pause_past_the_lease(self) -> None:
        leader = await self.leader()
        standby, pid = self._standby(leader), leader.pid
        await self.bench.signal(leader.name, signal.SIGSTOP)
        if standby is None or not standby.pid:
            await asyncio.sleep(LEASE)
        else:
            await self._answer_again()
        await self.bench.signal(leader.name, signal.SIGCONT)
        if standby is not None and leader.pid == pid:
            try:
                await self.bench.ended(leader.name, pid, timeout=10)
            except TimeoutError:
                if (await self.leader()).pid != pid:
                    self.violations.append("a leader that was paused past its lease did not end")

    async def pause_briefly(self) -> None:
        leader = await self.leader()
        await self.bench.signal(leader.name, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.05, 0.6 * LEASE))
        await self.bench.signal(leader.name, signal.SIGCONT)

    # ------------------------------------------------------------------ links and servers

    async def cut_from_store(self) -> None:
        link = (await self.leader()).redis
        link.cut()
        await asyncio.sleep(self._rng.uniform(0.1, 2 * LEASE))
        link.mend()

    async def silence_store(self) -> None:
        link = (await self.leader()).redis
        link.silence()
        await asyncio.sleep(self._rng.uniform(0.1, 2 * LEASE))
        link.mend()

    async def cut_from_mesos(self) -> None:
        link = (await self.leader()).mesos
        link.cut()
        await asyncio.sleep(self._rng.uniform(0.1, 1.5))
        link.mend()

    async def silence_mesos(self) -> None:
        link = (await self.leader()).mesos
        link.silence()
        await asyncio.sleep(self._rng.uniform(0.1, 1.0))
        link.mend()

    async def kill_store(self) -> None:
        self.bench.stop_redis()
        await asyncio.sleep(self._rng.uniform(0.05, 1.5 * LEASE))
        await asyncio.to_thread(self.bench.start_redis)

    async def store_loses_its_last_writes(self) -> None:
        """Its machine fails, and the controllers' with it; what was written in the last moment is not there."""
        written = self.bench.written()
        await asyncio.sleep(self._rng.uniform(0.0, 1.0))
        self.bench.stop_redis()
        for name, controller in self.bench.controllers.items():
            if controller.pid:
                await self.bench.signal(name, signal.SIGKILL)
        self.bench.lose_writes(written)
        await asyncio.to_thread(self.bench.start_redis)
        await self._answer_again()

    async def pause_store(self) -> None:
        """Let the database hang, for less or more than the lease."""
        self.bench.signal_redis(signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.1, 2 * LEASE))
        self.bench.signal_redis(signal.SIGCONT)

    async def mesos_fails_over(self) -> None:
        await self.bench.cluster.faults.fail_over(
            down=self._rng.uniform(0.0, 2.0), recovery=0.1, agents_after=0.3
        )

    async def updates_go_astray(self) -> None:
        """For a while, status updates come late, twice, or out of order."""
        faults = self.bench.cluster.faults
        action = self._rng.choice([Delay(0.3), Duplicate(2), Reorder()])
        faults.on_event(action, times=5)
        await asyncio.sleep(self._rng.uniform(0.2, 1.0))
        faults.clear()

    async def rescind_offers(self) -> None:
        self.bench.cluster.faults.rescind()

    async def a_display_dies(self) -> None:
        """A task without which an observation is whole ends by itself."""
        displays = [p for p in self.bench.diary.alive.values() if p.name.startswith("display.")]
        ready = [p for p in displays if p.server is not None]
        if ready:
            self._rng.choice(ready).die()

    # ------------------------------------------------------------------ agents

    async def an_agent_restarts(self) -> None:
        """Its process ends and comes back; its tasks live on."""
        await self.bench.cluster.faults.restart_agent(
            self._hosts(1)[0], down=self._rng.uniform(0.0, 2.0)
        )

    async def an_agent_is_cut_off(self) -> None:
        """It does not hear the master, for less or more than makes it unreachable; its tasks live on."""
        (host,) = self._hosts(1)
        self.bench.cluster.faults.partition(host)
        await asyncio.sleep(self._rng.uniform(0.1, 2.5 * PING * PINGS))
        self.bench.cluster.faults.heal(host)

    async def a_machine_goes_down(self) -> None:
        """It comes back, without its tasks, before or after it is unreachable."""
        with self._without(*self._hosts(1)):
            await asyncio.sleep(self._rng.uniform(0.1, 2.5 * PING * PINGS))

    async def a_machine_returns_with_less(self) -> None:
        """It comes back as another agent, with half a CPU less or more; the old one is given up for good."""
        (host,) = self._hosts(1)
        agents = self.bench.cluster.agents
        old, resources = agents[host].info.id, agents[host].info.spec.resources
        step = 500 if host in self._smaller else -500
        self._smaller ^= {host}
        self._lose(host)
        await asyncio.sleep(self._rng.uniform(0.0, 2 * PING * PINGS))
        scalars = {**resources.scalars, "cpus": resources.scalars["cpus"] + step}
        self.bench.cluster.faults.start_agent(
            host, resources=replace(resources, scalars=scalars), fresh=True
        )
        await asyncio.sleep(self._rng.uniform(0.0, 0.5))
        Membership(self.bench.cluster.master).mark_gone(old)

    async def many_machines_go_down(self) -> None:
        """More than a fifth at once: repair pauses, and an alarm says so, until an operator resumes it."""
        hosts = self._hosts(2)
        await self._seen(hosts)
        with self._without(*hosts):
            if not await self._alarmed(30.0):
                self.violations.append(f"(e) no alarm says that {hosts} went down together")
        await self._ask("repair-resume")

    async def _seen(self, hosts: Collection[str]) -> None:
        """Wait until whoever leads knows that the agents are there: else it cannot miss them."""
        while True:
            with contextlib.suppress(NobodyError):
                _, agents = await self.bench.ask("agent-list")
                if {host for host, state, *_ in agents if state == "up"} >= set(hosts):
                    return
            await asyncio.sleep(0.1)

    async def _alarmed(self, seconds: float) -> bool:
        patience = self.bench.patience(seconds)
        while not patience.over:
            with contextlib.suppress(NobodyError):
                text = (await self.bench.sensors("^alarms$")).get("alarms", "[]")
                if any(alarm["name"] == "repair" for alarm in json.loads(text)):
                    return True
            await asyncio.sleep(0.1)
        return False

    async def _ask(self, request: str) -> None:
        """Ask until somebody has done it."""
        while True:
            try:
                await self.bench.ask(request)
            except (NobodyError, RefusedError):
                await asyncio.sleep(0.1)
            else:
                return

    def _hosts(self, count: int) -> list[str]:
        return self._rng.sample(sorted(spec.hostname for spec in self.bench.specs), count)

    @contextlib.contextmanager
    def _without(self, *hosts: str) -> Iterator[None]:
        """Let machines be down."""
        self._lose(*hosts)
        try:
            yield
        finally:
            for host in hosts:
                self.bench.cluster.faults.start_agent(host)

    def _lose(self, *hosts: str) -> None:
        self.bench.machines_lost += 1
        self.lost |= set(hosts)
        for host in hosts:
            self.bench.cluster.faults.lose_machine(host)

    @property
    def kinds(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """All kinds of faults, by name."""
        return {name: getattr(self, name) for name in (*KINDS, *BY_NAME)}


KINDS: Final = (
    "kill_leader",
    "kill_standby",
    "kill_both",
    "kill_twice",
    "end_in_order",
    "crash_at_a_point",
    "pause_past_the_lease",
    "pause_briefly",
    "cut_from_store",
    "silence_store",
    "cut_from_mesos",
    "silence_mesos",
    "kill_store",
    "pause_store",
    "mesos_fails_over",
    "updates_go_astray",
    "rescind_offers",
    "a_display_dies",
    "an_agent_restarts",
    "an_agent_is_cut_off",
    "a_machine_goes_down",
    "a_machine_returns_with_less",
    "many_machines_go_down",
)
BY_NAME: Final = ("store_loses_its_last_writes",)
"""Kinds that are chosen by name only: a client that was answered in the lost moment was told what is not so."""


async def _answers(controller: Controller) -> bool:
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", controller.port)
            writer.write(b"?watchdog[1]\n")
            while line := await reader.readline():
                if line.startswith(b"!watchdog[1] ok"):
                    writer.close()
                    return True
            writer.close()
    except (OSError, TimeoutError):
        pass
    return False


__all__ = ["KINDS", "Chaos", "NobodyError"]
