from __future__ import annotations

import asyncio
import ipaddress
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.errors import LaunchError
from scheduler.packing import Explanation, pack_or_explain
from scheduler.requests import TaskRequest
from scheduler.views import LinkChanged, LinkState
from sdpcontroller.control import (
    CaptureBlockState,
    CaptureDone,
    CaptureInit,
    Command,
    ConfigureProduct,
    DeconfigureProduct,
    MulticastGroups,
    PlanProduct,
    ProductAddress,
    ProductRecord,
    ProductState,
    SetConfigOverride,
    SetTransmission,
    TaskSensor,
)
from sdpcontroller.errors import CommandError, ConfigError, ControllerError
from tests.conftest import PATIENCE
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House

# As small as a product can be: one ingest, no calibration.
DOCUMENTS = [
    json.dumps(
        make_config(n_antennas=4, n_substreams=1, n_endpoints=1, cal=False, dumps=d).to_json()
    )
    for d in (4, 8)
]
TASKS = [
    *("telstate", "quality"),
    *("sim.corr", "ingest.l0_0.0", "vis_writer.l0_0", "meta_writer", "display.l0_0"),
]
EXPENDABLE = {"quality", "meta_writer", "display.l0_0"}
"""Are started again when they die, but not without end."""


@dataclass(frozen=True)
class Die:
    """A task of the product dies."""

    task: str
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refuse:
    """From now on a task refuses a request; "" for none."""

    task: str
    request: str


@dataclass(frozen=True)
class Crash:
    """The controller dies after so many turns of the loop, and another one begins."""

    turns: int


commands = st.one_of(
    st.sampled_from([ConfigureProduct("p", document) for document in DOCUMENTS]),
    st.just(CaptureInit("p")),
    st.just(CaptureDone("p")),
    st.builds(DeconfigureProduct, st.just("p"), st.booleans()),
)
events = st.one_of(
    st.builds(Die, st.sampled_from(TASKS), st.sampled_from([(), ("last words",)])),
    st.builds(
        Refuse, st.sampled_from(TASKS[2:]), st.sampled_from(["capture-init", "capture-done", ""])
    ),
)
crashes = st.builds(Crash, st.integers(0, 60))
# What is in one step happens at once.
walks = st.lists(st.lists(commands | events, min_size=1, max_size=3), min_size=1, max_size=8)
deaths = st.builds(Die, st.sampled_from(TASKS))
fatal_walks = st.lists(
    st.lists(commands | commands | deaths | crashes, min_size=1, max_size=3), min_size=1, max_size=6
)


class Walk:
    """Does the steps, and checks after each what must always hold."""

    def __init__(self, house: House, open_house: Any, stack: AsyncExitStack) -> None:
        self.house = house
        self._open_house = open_house
        self._stack = stack

    async def step(self, acts: list[Any]) -> None:
        answers = await asyncio.gather(*map(self._do, acts), return_exceptions=True)
        for act, answer in zip(acts, answers, strict=True):
            self._check_answer(act, answer)
        if any(isinstance(act, Crash) for act in acts):
            check_told(self.house.witness.records)
            successor = self._open_house(after=self.house)
            self.house = await self._stack.enter_async_context(successor)
        await self.house.settle()
        await self._check()

    async def _do(self, act: Any) -> Any:
        house = self.house
        if isinstance(act, Crash):
            for _ in range(act.turns):
                await asyncio.sleep(0)
            await house.crash()
        elif isinstance(act, Refuse):
            house.scheduler.behaviour.refuse[act.task] = act.request
        elif isinstance(act, Die):
            graphs = house.scheduler.launched
            views = house.scheduler.tasks(graphs[-1].graph_id) if graphs else {}
            ready = [n for n, v in views.items() if v.state.value == "ready"]
            if act.task in ready and "p" in house.master.products():
                await house.scheduler.die(act.task, log=act.log)
        else:
            async with asyncio.timeout(PATIENCE):  # every command gets an answer
                return await house.master.execute(act)
        return None

    def _check_answer(self, act: Any, answer: Any) -> None:
        """Exactly one answer: what the command promises, or one line that says why not."""
        if isinstance(answer, BaseException):
            assert isinstance(answer, ControllerError), (act, answer)
            assert str(answer) and "Traceback" not in str(answer)
        elif isinstance(act, ConfigureProduct):
            assert answer == ProductAddress("p", "10.0.0.1", 5001)
        elif isinstance(act, CaptureInit | CaptureDone):
            assert answer.isdigit()
        else:
            assert answer is None

    async def _check(self) -> None:
        house, products = self.house, self.house.master.products()
        stored = await house.stored("p")
        assert house.witness.latest == products
        if "p" not in products:
            assert stored is None
            assert house.scheduler.alive == set()
            assert house.master._multicast._in_use == {}
            return
        record = products["p"]
        assert record.state in (ProductState.IDLE, ProductState.CAPTURING, ProductState.ERROR)
        assert (record.current_block is not None) == (record.state is ProductState.CAPTURING)
        assert record.capture_blocks == (
            {record.current_block: CaptureBlockState.CAPTURING} if record.current_block else {}
        )
        dead = {name for name, task in record.tasks.items() if task.state == "dead"}
        given_up = bool(dead) and dead <= EXPENDABLE
        assert bool(record.reason) == (record.state is ProductState.ERROR or given_up)
        assert stored is not None
        assert stored == {
            **stored,
            "name": "p",
            "state": record.state.value,
            "current_block": record.current_block,
            "blocks": {
                k: {"state": v.value, "override": None, "batch": ""}
                for k, v in record.capture_blocks.items()
            },
            "reason": record.reason,
            "graph_id": house.scheduler.launched[-1].graph_id,
        }
        assert set(record.tasks) == set(TASKS)
        assert bool(dead - EXPENDABLE) == (record.state is ProductState.ERROR)


def check_told(records: list[ProductRecord]) -> None:
    """What listeners were told of one product makes sense at every moment."""
    for record in records:
        current = record.current_block
        if record.state is ProductState.CAPTURING:
            assert current is not None
            assert record.capture_blocks[current] in (
                CaptureBlockState.CAPTURING,
                CaptureBlockState.BURNDOWN,
            )
        elif current is not None:
            assert record.state in (ProductState.IDLE, ProductState.ERROR)
        live = [b for b, s in record.capture_blocks.items() if s.value in ("capturing", "burndown")]
        assert live in ([], [current])


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(walks)
async def test_whatever_happens_the_records_make_sense(open_house: Any, steps: list[Any]) -> None:
    await walk_through(open_house, steps)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(fatal_walks)
async def test_whenever_the_controller_dies_too(open_house: Any, steps: list[Any]) -> None:
    await walk_through(open_house, steps)


async def walk_through(open_house: Any, steps: list[Any]) -> None:
    async with AsyncExitStack() as stack:
        walk = Walk(await stack.enter_async_context(open_house()), open_house, stack)
        for acts in ([configure("p")], *steps):  # most walks before that would lead nowhere
            await walk.step(acts)
        house = walk.house
        check_told(house.witness.records)
        await house.end()
        assert house.master.products() == {} and house.scheduler.alive == set()
        assert await house.stored("p") is None


def configure(name: str) -> ConfigureProduct:
    return ConfigureProduct(name, DOCUMENTS[0])


async def test_commands_are_refused_while_it_is_not_up(open_house: Any) -> None:
    async with open_house() as house:
        await house.end()
        with pytest.raises(CommandError, match=r"not up|this controller ends"):
            await house.master.execute(configure("p"))
        assert house.master.system().state == "INIT"


async def test_the_state_follows_the_link(house: House) -> None:
    seen = house.witness.system
    for state, word in (
        (LinkState.CONNECTED, "ON"), (LinkState.DISCONNECTED, "ALARM"), (LinkState.LOST, "FAULT"),
    ):  # fmt: skip
        house.scheduler.tell(LinkChanged(state, "10.0.0.9:5050"))
        record = house.master.system()
        assert (record.state, record.mesos_state) == (word, state.value)
        assert record.mesos_master == "10.0.0.9:5050"
    assert house.witness.system == seen + 3


@pytest.mark.parametrize(
    "name", ["", "a b", "a*b*", "../x", "-x", "*_" + "x" * 62, "x" * 64, "a.b", "ä", "a\n"]
)
async def test_names_that_could_not_be_used_everywhere_are_refused(house: House, name: str) -> None:
    with pytest.raises(CommandError, match="is no product name"):
        await house.master.execute(configure(name))
    with pytest.raises(CommandError, match="is no product name"):
        await house.master.execute(SetConfigOverride(name, "{}"))
    assert house.master.products() == {}


async def test_no_override_waits_for_a_name_that_no_product_can_have(house: House) -> None:
    with pytest.raises(CommandError, match=r"'sub_\*' is no product name"):
        await house.master.execute(SetConfigOverride("sub_*", '{"config": {}}'))


async def test_a_star_is_the_first_free_number(house: House) -> None:
    names = [(await house.master.execute(configure("sub_*"))).name for _ in range(2)]
    assert names == ["sub_0", "sub_1"]
    await house.master.execute(DeconfigureProduct("sub_0"))
    assert (await house.master.execute(configure("sub_*"))).name == "sub_0"


async def test_products_that_do_not_exist_are_named_with_those_that_do(house: House) -> None:
    with pytest.raises(CommandError, match=r"there is no product 'q' \(products: none\)"):
        await house.master.execute(CaptureInit("q"))
    await house.master.execute(configure("p"))
    for command in (CaptureInit("q"), CaptureDone("q"), DeconfigureProduct("q")):
        with pytest.raises(CommandError, match=r"there is no product 'q' \(products: p\)"):
            await house.master.execute(command)


async def test_a_client_that_goes_away_does_not_leave_a_command_half_done(house: House) -> None:
    house.scheduler.gate.clear()
    client = asyncio.ensure_future(house.master.execute(configure("p")))
    await house.witness.until(lambda: "p" in house.witness.latest)
    client.cancel()
    await asyncio.wait({client})
    house.scheduler.gate.set()
    await house.witness.until(lambda: house.product("p").state is ProductState.IDLE)


async def test_a_dry_run_touches_nothing(house: House) -> None:
    plan = await house.master.execute(PlanProduct(DOCUMENTS[0]))
    verdict, *places = plan.splitlines()
    assert verdict == "it would fit now:" and set(places) == {f"{task} on sdp-1" for task in TASKS}
    assert house.scheduler.launched == [] and house.master.products() == {}
    assert await house.store.take_numbers("multicast") == 0
    for document, complaint in (("{", "JSON"), ('{"version": "4.9"}', "outputs")):
        with pytest.raises(ConfigError, match=complaint):
            await house.master.execute(PlanProduct(document))


async def test_a_dry_run_tells_of_what_captures_start(house: House) -> None:
    image = {"type": "sdp.continuum_image", "src_streams": ["l0_0", "cal_0"], "min_time": 5.0}
    flags = {"type": "sdp.flags", "src_streams": ["l0_0", "cal_0"], "archive": True}
    cube = {"type": "sdp.spectral_image", "src_streams": ["flags"], "min_time": 60.0}
    outputs = {"image": image, "flags": flags, "cube": cube}
    document = json.dumps(make_config(outputs=outputs).to_json())
    plan = (await house.master.execute(PlanProduct(document))).splitlines()
    short = plan.index("when a capture block has ended, for each target observed for 60 s:")
    long = plan.index("when a capture block has ended, for each target observed for 28800 s:")
    assert any(line.startswith("1 × imager: CPUs 1; memory, MiB ") for line in plan[short:long])
    assert any(line.startswith("16 × spectral_imager: ") for line in plan[long:])
    assert sum(line.startswith("all at once: CPUs 17.5") for line in plan) == 2
    assert plan.count("each of them could run here") == 2
    house.scheduler.homeless_tasks = None
    assert "not known yet" in await house.master.execute(PlanProduct(document))
    why = pack_or_explain([], {"t": TaskRequest.of(cpus=1)})
    assert isinstance(why, Explanation)
    house.scheduler.homeless_tasks = {"spectral.cube.0": why, "spectral.cube.1": why}
    plan = (await house.master.execute(PlanProduct(document))).splitlines()
    assert plan.count("no agent here could ever run 2 of them, such as spectral.cube.0:") == 2


async def test_groups_that_a_product_takes_go_with_it(house: House) -> None:
    await house.master.execute(configure("p"))
    text = await house.master.execute(MulticastGroups("p", 3))
    first, _, more = text.partition("+")
    assert ipaddress.IPv4Address(first).is_multicast and more == "2"
    assert "+" not in await house.master.execute(MulticastGroups("p", 1))
    with pytest.raises(CommandError, match="has 255"):
        await house.master.execute(MulticastGroups("p", 1000))
    await house.master.execute(DeconfigureProduct("p"))
    assert house.master._multicast._in_use == {}


async def test_agents_are_shown_by_host(house: House) -> None:
    assert [(a.host, a.state) for a in house.master.agents()] == [("sdp-1", "up"), ("sdp-2", "up")]


async def test_streams_of_simulators_are_shown(house: House) -> None:
    await house.master.execute(configure("p"))
    (stream,) = house.master.streams()
    assert (stream.product, stream.name, stream.state) == ("p", "corr", "down")
    await house.master.execute(CaptureInit("p"))
    assert house.master.streams()[0].state == "up"
    await house.master.execute(SetTransmission("p", "corr", on=False))
    assert house.master.streams()[0].state == "down"
    await house.master.execute(SetTransmission("p", "corr", on=True))
    assert house.master.streams()[0].state == "up"
    await house.master.execute(SetTransmission(None, "corr", on=False))
    await house.master.execute(CaptureDone("p"))
    await house.master.execute(CaptureInit("p"))
    assert house.master.streams()[0].state == "up", "each block begins with all streams"


async def test_what_a_simulator_tells_of_itself_holds(house: House) -> None:
    def tell(sending: bool, **changes: Any) -> None:
        reading = TaskSensor(
            "p", "sim.corr", "transmitting", "", "", "boolean", (), "nominal", sending, 1.0
        )
        house.master._sensor_changed(replace(reading, **changes))

    await house.master.execute(configure("p"))
    tell(False)  # as it does before a block
    await house.master.execute(CaptureInit("p"))
    assert house.master.streams()[0].state == "up"
    tell(False, status="unreachable")
    tell(False, name="other")
    assert house.master.streams()[0].state == "up"
    tell(False)
    assert house.master.streams()[0].state == "down"
    tell(True)
    assert house.master.streams()[0].state == "up"


async def test_of_streams_that_several_have_one_is_to_be_named(house: House) -> None:
    for name in ("p", "q"):
        await house.master.execute(configure(name))
    for command, message in (
        (SetTransmission(None, "corr", on=True), r"2 products have a .* 'corr' \(p, q\): name one"),
        (SetTransmission("x", "corr", on=True), "there is no product 'x'"),
        (
            SetTransmission("p", "cor", on=True),
            r"p has no simulated stream 'cor'; did you mean 'corr'",
        ),
    ):
        with pytest.raises(CommandError, match=message):
            await house.master.execute(command)


async def test_a_listener_that_fails_harms_nobody(house: House) -> None:
    class Faulty:
        def __getattr__(self, name: str) -> Any:
            def fail(*_: object) -> None:
                if self.armed:
                    raise ValueError("a fault of the façade")

            return fail

        armed = False

    listener: Any = Faulty()
    unlisten = house.master.listen(listener)
    Faulty.armed = True
    await house.master.execute(configure("p"))
    await house.master.execute(CaptureInit("p"))
    assert house.witness.latest["p"].state is ProductState.CAPTURING
    unlisten()


async def test_whoever_listens_late_is_told_of_what_exists(house: House) -> None:
    await house.master.execute(configure("p"))
    late = type(house.witness)()
    unlisten = house.master.listen(late)
    assert late.latest == house.master.products() and late.system == 1
    unlisten()
    await house.master.execute(CaptureInit("p"))
    assert late.latest["p"].state is ProductState.IDLE


class TestEnding:
    async def test_products_are_taken_down_in_order(self, open_house: Any) -> None:
        async with open_house() as house:
            await house.master.execute(configure("p"))
            await house.master.execute(configure("q"))
            await house.master.execute(CaptureInit("p"))
            await house.end()
            assert house.master.products() == {} and house.scheduler.alive == set()
            drained = [e[0] for e in house.scheduler.journal if e[1] == "capture-done done"]
            assert drained == TASKS[2:]

    async def test_a_command_that_runs_is_ended_or_waited_for(self, open_house: Any) -> None:
        async with open_house() as house:
            await house.master.execute(configure("p"))
            beginning = asyncio.ensure_future(house.master.execute(CaptureInit("p")))
            house.scheduler.gate.clear()
            waiting = asyncio.ensure_future(house.master.execute(configure("q")))
            await house.witness.until(lambda: len(house.scheduler.launched) == 2)
            await house.end()
            assert (await beginning).isdigit()
            with pytest.raises(CommandError, match="deconfigured before it was ready"):
                await waiting
            assert house.scheduler.alive == set()

    async def test_a_launch_that_ends_with_the_scheduler_is_handed_over(
        self, open_house: Any
    ) -> None:
        async with open_house(end_products=False) as house:
            scheduler = house.scheduler
            scheduler.survives = True
            scheduler.steps.clear()
            waiting = asyncio.ensure_future(house.master.execute(configure("q")))
            await house.witness.until(lambda: bool(scheduler.launched))

            async def closing() -> None:
                scheduler.launch_error = LaunchError("the scheduler is closed")
                scheduler.steps.set()
                await asyncio.wait({waiting})

            scheduler.closing = closing
            await house.end()
            with pytest.raises(CommandError, match="ask the one that takes over"):
                await waiting

    @pytest.mark.parametrize("deconfigured", [False, True])
    async def test_it_does_not_wait_for_hours_of_postprocessing(
        self, open_house: Any, deconfigured: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sdpcontroller.telstate import ProductTelstate
        from sdpcontroller.workflows.imaging import ObservedTarget

        async def observed(self: object, cbid: str, vis: str) -> list[ObservedTarget]:
            return [ObservedTarget("A", frozenset(), 1e4)]

        monkeypatch.setattr(ProductTelstate, "observed", observed)
        image = {"type": "sdp.continuum_image", "src_streams": ["l0_0", "cal_0"]}
        document = json.dumps(make_config(outputs={"image": image}).to_json())
        async with open_house() as house:
            await house.master.execute(ConfigureProduct("p", document))
            await house.master.execute(CaptureInit("p"))
            house.scheduler.gate.clear()
            await house.master.execute(CaptureDone("p"))
            await house.witness.until(lambda: bool(house.scheduler.batches))
            if deconfigured:
                await house.master.execute(DeconfigureProduct("p"))
            await house.end()
            assert house.scheduler.alive == set() and house.witness.gone == ["p"]


async def test_it_dies_with_the_scheduler(open_house: Any) -> None:
    async with open_house() as house:
        house.scheduler.failed.set_exception(RuntimeError("a fault of the scheduler"))
        assert house._running is not None
        with pytest.raises(BaseExceptionGroup) as caught:
            await house._running
        assert caught.group_contains(RuntimeError, match="a fault of the scheduler")
        house._running = asyncio.ensure_future(asyncio.sleep(0))


def test_every_command_has_its_handler(store: Any) -> None:
    from sdpcontroller import control
    from sdpcontroller.master import Master

    scheduler: Any = None
    master = Master(store, scheduler, address=("127.0.0.1", 5001))
    known = {
        kind
        for kind in vars(control).values()
        if isinstance(kind, type) and issubclass(kind, Command) and kind is not Command
    }
    assert set(master._handlers) == known
