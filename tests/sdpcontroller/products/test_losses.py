"""Sensors tell what became of every task, and what is dead is being started again, or said to stay dead."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace
from typing import Any, Final

import aiokatcp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from katcp_iface.mirror import SensorMirror
from scheduler.errors import NoFitError
from scheduler.restart import RestartPlan
from scheduler.task import Death, Outcome, TaskState
from sdpcontroller import repair
from sdpcontroller.control import (
    CaptureDone,
    CaptureInit,
    ConfigureProduct,
    DeconfigureProduct,
    ProductState,
    RestartTask,
    ResumeRepair,
)
from sdpcontroller.errors import CommandError
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House

DISPLAY: Final = "display.l0_0"
DOCUMENT: Final = json.dumps(make_config().to_json())
LIVE: Final = (ProductState.IDLE, ProductState.CAPTURING)


async def end(house: House, *, expected: bool) -> None:
    """Let the display be dead, as one that was told to end."""
    graph_id = house.scheduler.launched[-1].graph_id
    server = house.scheduler.servers.pop(house.scheduler.tasks(graph_id)[DISPLAY].task_id, None)
    if server is not None:
        await server.stop()
    death = Death(Outcome.KILLED, "its restart failed")
    house.scheduler._become(
        graph_id, DISPLAY, state=TaskState.DEAD, death=death, expected_death=expected
    )


async def up(house: House) -> House:
    await house.master.execute(ConfigureProduct("p", DOCUMENT))
    return house


@pytest.mark.parametrize("state", [TaskState.PLANNED, TaskState.DEAD])
async def test_a_restart_that_its_controller_did_not_survive_is_made_up_for(
    open_house: Any, state: TaskState
) -> None:
    """The capture goes on meanwhile: links are made to all that have a place."""
    async with open_house() as house:
        await up(house)
        cbid = await house.master.execute(CaptureInit("p"))
        await house.crash()
        graph_id = house.scheduler.launched[-1].graph_id
        if state is TaskState.DEAD:
            await end(house, expected=True)
        else:
            house.scheduler._become(graph_id, DISPLAY, state=state, ports={})
        async with open_house(after=house) as successor:
            await successor.settle()
            if state is TaskState.PLANNED:  # the scheduler undoes it
                await end(successor, expected=False)
                await successor.settle()
            assert successor.scheduler.restarts == [DISPLAY]
            record = successor.product("p")
            assert (record.state, record.tasks[DISPLAY].state) == (ProductState.CAPTURING, "ready")
            assert await successor.master.execute(CaptureDone("p")) == cbid


async def test_what_was_ended_for_a_restart_that_failed_is_started_again(house: House) -> None:
    await up(house)
    house.scheduler.restart_error = NoFitError("no room")
    await end(house, expected=True)
    with pytest.raises(CommandError, match="no room"):
        await house.master.execute(RestartTask("p", DISPLAY))
    house.scheduler.restart_error = None
    await house.settle()
    assert house.product("p").tasks[DISPLAY].state == "ready"


async def test_one_that_dies_as_soon_as_it_is_back_is_started_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await up(house)
    restart, count = house.scheduler.restart_task, 0

    async def restart_in_vain(*args: Any, **options: Any) -> RestartPlan:
        nonlocal count
        count += 1
        plan = await restart(*args, **options)
        if count == 1:
            await house.scheduler.die(DISPLAY)
        return plan

    monkeypatch.setattr(house.scheduler, "restart_task", restart_in_vain)
    await house.scheduler.die(DISPLAY)
    await house.settle()
    assert house.scheduler.restarts == [DISPLAY] * 2
    assert house.product("p").tasks[DISPLAY].state == "ready"


async def test_one_that_an_operator_has_started_meanwhile_is_left_alone(house: House) -> None:
    await up(house)
    house.master._repair._pause("many agents were lost")
    await house.scheduler.die(DISPLAY)
    await house.witness.until(lambda: "repair-resume" in house.product("p").reason)
    await house.master.execute(RestartTask("p", DISPLAY))
    await house.master.execute(ResumeRepair())
    await house.settle()
    assert house.scheduler.restarts == [DISPLAY]


class Shown:
    """A façade: the sensors of a controller."""

    def __init__(self, house: House) -> None:
        server: Any = SimpleNamespace(sensors=aiokatcp.SensorSet(), mass_inform=lambda *_: None)
        self.sensors: aiokatcp.SensorSet = server.sensors
        self.mirror = SensorMirror(server, house.master, ())
        house.master.listen(self.mirror)

    def states(self) -> dict[str, str]:
        """State of every task of `p`, as shown."""
        found = {}
        for name, sensor in self.sensors.items():
            task = name.removeprefix("p.").removesuffix(".state")
            if name.startswith("p.") and name.endswith(".state") and name != "p.state":
                found[task] = sensor.value.name.lower()
        return found


def check(house: House, shown: Shown) -> None:
    """Sensors, record and cluster say the same; what is dead is said to stay so."""
    records = house.master.products()
    if "p" not in records:
        assert shown.states() == {}
        return
    record = records["p"]
    real = house.scheduler.tasks(house.scheduler.launched[-1].graph_id)
    assert shown.states() == {name: view.state.value for name, view in real.items()}
    assert {n: t.task_id for n, t in record.tasks.items()} == {
        n: v.task_id for n, v in real.items()
    }
    assert shown.sensors["p.state"].value is record.state
    dead = {name for name, view in real.items() if view.state is TaskState.DEAD}
    if record.state in LIVE:
        assert dead <= {DISPLAY}
        assert not dead or "too often" in record.reason


async def step(house: House, what: str) -> None:
    """Let one thing happen; nothing, where it is impossible now."""
    record = house.master.products().get("p")
    state = None if record is None else record.state
    alive = record is not None and record.tasks.get(DISPLAY) is not None
    match what:
        case "configure" if state is None:
            await up(house)
        case "deconfigure" if state is not None:
            await house.master.execute(DeconfigureProduct("p", force=True))
        case "capture" if state is ProductState.IDLE:
            await house.master.execute(CaptureInit("p"))
        case "capture" if state is ProductState.CAPTURING:
            await house.master.execute(CaptureDone("p"))
        case "die" | "die and tell" if state in LIVE and alive:
            await house.scheduler.die(DISPLAY, log=("last words",) if "tell" in what else ())
        case "lose" if state in LIVE and alive:
            await house.scheduler.die(DISPLAY, outcome=Outcome.LOST)
        case "end" if state in LIVE and alive:
            await end(house, expected=False)
        case "critical" if state in LIVE:
            await house.scheduler.die("cal.cal_0")
        case "operator" if state in LIVE:
            await house.master.execute(RestartTask("p", DISPLAY))
        case "no room":
            house.scheduler.restart_error = NoFitError("no room")
        case "room":
            house.scheduler.restart_error = None


STEPS: Final = (
    *("configure", "deconfigure", "capture", "capture", "die", "die and tell", "lose", "end"),
    *("critical", "operator", "operator", "no room", "room", "wait", "another controller"),
)


async def go(house: House, shown: Shown, left: list[str]) -> None:
    """Take steps, until another controller has its turn."""
    while left and (what := left.pop(0)) != "another controller":
        if what == "wait":
            await house.settle()
            check(house, shown)
        else:
            with contextlib.suppress(CommandError):  # another command goes on, or there is no room
                await step(house, what)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(st.sampled_from(STEPS), min_size=4, max_size=12))
def test_whatever_happens_what_is_shown_is_true_in_the_end(
    open_house: Any, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    monkeypatch.setattr(repair, "LOOK", 0.002)

    async def walk() -> None:
        house, left = None, ["configure", *steps]
        async with contextlib.AsyncExitStack() as stack:  # each has its part of the cluster
            while left:
                house = await stack.enter_async_context(open_house(after=house, end_products=False))
                shown = Shown(house)
                await go(house, shown, left)
                if left:
                    await house.crash()
                    shown.mirror.close()
            assert house is not None
            await house.settle()
            check(house, shown)
            await step(house, "deconfigure")
            assert shown.states() == {} and house.scheduler.alive == set()
            shown.mirror.close()

    asyncio.run(walk())
