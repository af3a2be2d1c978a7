"""What must hold after every fault: (a) to (g) of the design."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.faults.bench.bench import Bench

_CHANGING = ("configuring", "deconfiguring", "postprocessing")
EXPENDABLE = ("display", "quality", "meta_writer")
"""Kinds of tasks that are started again."""
SOON = 5.0
"""Seconds within which sensors and lists must be true."""


@dataclass
class Expectation:
    """What a client may expect of one product, by what it was told."""

    states: frozenset[str] = frozenset({"absent"})
    """absent, idle, capturing, error."""
    tasks: frozenset[str] = frozenset()
    """Ids of its tasks, if they must be the same ones."""


@dataclass
class Verdict:
    """What was found wrong."""

    violations: list[str] = field(default_factory=list)

    def check(self, holds: object, oracle: str, text: str) -> None:
        if not holds:
            self.violations.append(f"({oracle}) {text}")


async def settled(bench: Bench, timeout: float = 30.0) -> dict[str, str]:
    """Wait until no product is on its way to another state, and no task is to be started again.

    Returns the states. A task without which an observation is whole may be away for as long as the pauses
    before its restarts take; that its sensor says so is judged by :func:`judge`. A batch task whose ACCEPT was
    lost is missed after 12 s; one that was lost with its agent is tried again 7 s later, when it is known
    whether many were. The database knows of a death a moment before the sensors do: both must say that it
    is back.
    """
    patience = bench.patience(timeout)
    while True:
        kept, records = await bench.table("product"), await bench.table("task")
        states = await bench.products()
        sensors = await bench.sensors(r"\.(state|capture-block-state)$")
        busy = {n: s for n, s in states.items() if s in _CHANGING}
        blocks = {n: json.loads(sensors.get(f"{n}.capture-block-state", "{}")) for n in states}
        moving = {n: b for n, b in blocks.items() if set(b.values()) - {"capturing"}}
        told = (sensors, _recorded(kept, records))
        away = {s: v for t in told for s, v in _expendable(states, t).items() if v != "ready"}
        if not busy and not moving and not away:
            return states
        if patience.over:
            raise AssertionError(f"not settled within {timeout:g} s: {busy} {moving} {away}")
        await asyncio.sleep(0.05)


async def accounted(bench: Bench, timeout: float = 20.0) -> None:
    """Wait until all that went down with machines is known to be gone; :func:`judge` tells if it is not."""
    patience = bench.patience(timeout)
    while not patience.over:
        verdict = Verdict()
        _known(verdict, bench.running(), await bench.table("task"))
        if not verdict.violations:
            return
        await asyncio.sleep(0.1)


def _recorded(kept: dict[str, Any], records: dict[str, Any]) -> dict[str, str]:
    """Return the states of products' tasks in the database, by sensor; of the newest attempt of each."""
    owners = {product["graph_id"]: name for name, product in kept.items()}
    newest: dict[str, tuple[int, str]] = {}
    for task_id, record in records.items():
        if record["graph_id"] in owners:
            sensor = f"{owners[record['graph_id']]}.{record['name']}.state"
            attempt = int(task_id.rpartition(".")[2])
            newest[sensor] = max(newest.get(sensor, (-1, "")), (attempt, record["state"]))
    return {sensor: state for sensor, (_, state) in newest.items()}


def _expendable(states: dict[str, str], sensors: dict[str, str]) -> dict[str, str]:
    """Return the states of the tasks that are started again when they die, by sensor."""
    return {
        sensor: value
        for sensor, value in sensors.items()
        if sensor.count(".") >= 2
        and sensor.endswith(".state")
        and sensor.split(".")[1] in EXPENDABLE
        and states.get(sensor.partition(".")[0]) in ("idle", "capturing")
    }


async def judge(bench: Bench, expected: dict[str, Expectation]) -> list[str]:
    """Return all that is wrong; what may be late for a moment is looked at until it is late."""
    patience = bench.patience(SOON)
    while True:
        violations = await _judge(bench, expected)
        if not violations or patience.over:
            return violations
        await asyncio.sleep(0.1)


async def _judge(bench: Bench, expected: dict[str, Expectation]) -> list[str]:
    verdict = Verdict()
    states = await bench.products()
    sensors = await bench.sensors(r"\.(state|capture-block-state)$")
    running = bench.running()
    kept = await bench.table("product")
    records = await bench.table("task")
    _known(verdict, running, records)
    _given_once(verdict, bench, running, await bench.table("multicast"), states)
    verdict.check(
        set(kept) == set(states), "e", f"store has products {set(kept)}, list {set(states)}"
    )
    for name in expected.keys() | states.keys():
        state = states.get(name, "absent")
        want = expected.get(name, Expectation())
        verdict.check(state in want.states, "e", f"{name} is {state}, expected {set(want.states)}")
        own = {i: p for i, p in running.items() if _graph(i) == kept.get(name, {}).get("graph_id")}
        _whole(verdict, name, state, own, sensors)
        _truth(verdict, name, state, own, kept.get(name, {}))
        if want.tasks and state in ("idle", "capturing"):
            same = {i for i in own if i.split(".")[1] not in EXPENDABLE}
            verdict.check(same == want.tasks, "d", f"tasks of {name}: {same ^ want.tasks}")
    return verdict.violations


def _graph(task_id: str) -> str:
    return task_id.partition(".")[0]


def _known(verdict: Verdict, running: dict[str, Any], records: dict[str, Any]) -> None:
    live = {
        i for i, record in records.items() if record["state"] not in ("dead", "planned", "placed")
    }
    verdict.check(set(running) <= live, "a", f"run, but are not recorded: {set(running) - live}")
    verdict.check(live <= set(running), "a", f"are recorded, but do not run: {live - set(running)}")


def _given_once(
    verdict: Verdict,
    bench: Bench,
    running: dict[str, Any],
    groups: dict[str, Any],
    states: dict[str, str],
) -> None:
    ports = Counter(port for program in running.values() for port in program.ports.values())
    twice = [port for port, count in ports.items() if count > 1]
    verdict.check(not twice, "b", f"ports given twice: {twice}")
    addresses = Counter(
        address
        for record in groups.values()
        for first, count in record["ranges"]
        for address in range(first, first + count)
    )
    verdict.check(
        all(count == 1 for count in addresses.values()), "b", f"addresses given twice: {groups}"
    )
    verdict.check(set(groups) <= set(states), "b", f"addresses leaked: {set(groups) - set(states)}")
    used = sum((p.resources.scalars.get("cpus", 0) for p in running.values()), 0)
    booked = sum(
        task.info.resources.scalars.get("cpus", 0)
        for framework in bench.cluster.master.frameworks.values()
        for task in framework.tasks.values()
        if not task.released
    )
    verdict.check(used == booked, "b", f"CPUs (thousandths): {used} are used, {booked} booked")


def _whole(
    verdict: Verdict, name: str, state: str, own: dict[str, Any], sensors: dict[str, str]
) -> None:
    if state == "absent":
        verdict.check(not own, "c", f"{name} is gone, but {set(own)} run")
        return
    if state == "error":
        return
    told = {
        sensor: value
        for sensor, value in sensors.items()
        if sensor.startswith(f"{name}.") and sensor.count(".") >= 2 and sensor.endswith(".state")
    }
    wrong = {sensor: value for sensor, value in told.items() if value != "ready"}
    verdict.check(not wrong, "c", f"{name} is {state}, but {wrong}")
    run = {program.name for program in own.values()}
    shown = {sensor.removeprefix(f"{name}.").removesuffix(".state") for sensor in told}
    verdict.check(shown == run, "c", f"{name}: sensors for {shown - run}, none for {run - shown}")


def _truth(
    verdict: Verdict, name: str, state: str, own: dict[str, Any], kept: dict[str, Any]
) -> None:
    captures = {capture["name"] for capture in (kept.get("roles") or {}).get("captures", ())}
    blocks = {p.block for p in own.values() if p.name in captures and p.server is not None}
    if state == "capturing":
        current = kept.get("current_block")
        verdict.check(blocks == {current}, "e", f"{name} captures {current}, its tasks {blocks}")
    elif state in ("idle", "error"):
        verdict.check(blocks <= {""}, "e", f"{name} is {state}, its tasks capture {blocks}")
