from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pipelines import catalogue
from scheduler.errors import LaunchError, NoFitError, SchedulerError
from scheduler.graph import instantiate
from sdpcontroller.control import (
    CaptureBlockState,
    CaptureDone,
    CaptureInit,
    Command,
    ConfigureProduct,
    DeconfigureProduct,
    ExplainProduct,
    ProductState,
    SetTargetState,
    SetTransmission,
)
from sdpcontroller.errors import CommandError, ConfigError, StoreError
from sdpcontroller.products import postprocessing
from sdpcontroller.telstate import ProductTelstate
from sdpcontroller.workflows import imaging
from tests.conftest import PATIENCE
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House

IMAGE = {"type": "sdp.continuum_image", "src_streams": ["l0_0", "cal_0"], "min_time": 5.0}
CUBE = {
    "type": "sdp.spectral_image",
    "src_streams": ["flags"],
    "parameters": {"clean_mode": "IQUV"},
}
DOCUMENT = json.dumps(make_config(outputs={"image": IMAGE}).to_json())
OTHER = json.dumps(make_config(dumps=8).to_json())
STAGES = [
    ["sim.corr"],
    ["ingest.l0_0.0", "ingest.l0_0.1"],
    ["cal.cal_0"],
    ["vis_writer.l0_0"],
    ["meta_writer"],
    ["display.l0_0"],
]
TASKS = {"telstate", "quality", *(name for stage in STAGES for name in stage)}


def configure(name: str = "p", document: str = DOCUMENT) -> ConfigureProduct:
    return ConfigureProduct(name, document)


@pytest.fixture
async def up(house: House) -> AsyncIterator[House]:
    """The product p is configured."""
    await house.master.execute(configure())
    yield house


async def observe(house: House, cbid: str, targets: dict[str, float]) -> None:
    """Write what the programs write about a capture block."""
    start = 1000.0
    host, port = house.product("p").telstate or ("", 0)
    async with ProductTelstate.connect(host, port) as link:
        await link.publish(
            {
                f"{cbid}_l0_0_chunk_info": {
                    "correlator_data": {"shape": [round(sum(targets.values())), 1, 1]}
                },
                f"{cbid}_l0_0_first_timestamp": 0.5,
                "l0_0_int_time": 1.0,
                "l0_0_sync_time": start,
            }
        )
        for name, seconds in targets.items():
            text = f"{name}, radec target, 4:24:00.0, -38:00:00.0"
            await link._telstate.add("cbf_target", text, ts=start)
            start += seconds


class TestBringingUp:
    async def test_it_is_idle_when_every_task_is_ready(self, house: House) -> None:
        address = await house.master.execute(configure())
        assert (address.name, address.host, address.port) == ("p", "10.0.0.1", 5001)
        record = house.product("p")
        assert record.state is ProductState.IDLE
        assert set(record.tasks) == TASKS
        assert {task.state for task in record.tasks.values()} == {"ready"}
        assert (record.current_block, record.capture_blocks, record.reason) == (None, {}, "")
        assert house.witness.states("p") == ["configuring", "idle"]

    async def test_programs_find_their_settings_before_they_start(self, up: House) -> None:
        host, port = up.product("p").telstate or ("", 0)
        async with ProductTelstate.connect(host, port) as link:
            stored = await link._telstate.get("config.ingest.l0_0.1")
            assert stored["channels"] == "512:1024"
            assert await link._telstate.get("sub_product") == "p"

    async def test_the_same_again_does_nothing(self, up: House) -> None:
        again = json.dumps(json.loads(DOCUMENT), indent=3)
        assert (await up.master.execute(configure(document=again))).name == "p"
        assert len(up.scheduler.launched) == 1

    async def test_another_configuration_is_refused(self, up: House) -> None:
        with pytest.raises(CommandError, match="p exists with another configuration: deconf"):
            await up.master.execute(configure(document=OTHER))
        assert up.product("p").state is ProductState.IDLE

    @pytest.mark.parametrize(
        "error",
        [
            NoFitError("no agent has 2 cores"),
            LaunchError("task cal on host h died: failed: exited with status 1"),
            RuntimeError("a fault of ours"),
        ],
    )
    async def test_what_fails_is_undone_and_told(self, house: House, error: Exception) -> None:
        house.scheduler.launch_error = error
        ours = not isinstance(error, RuntimeError)
        with pytest.raises(CommandError if ours else RuntimeError, match=str(error)):
            await house.master.execute(configure())
        assert house.master.products() == {}
        assert house.witness.gone == ["p"]
        assert house.scheduler.alive == set()
        assert await house.stored("p") is None
        assert str(error) in (await house.store.events("product", "p"))[-1][1]
        # Nothing is left that would be in the way of another try.
        house.scheduler.launch_error = None
        await house.master.execute(configure())

    async def test_what_telescope_state_cannot_hold_is_undone_and_told(self, house: House) -> None:
        overrides = {"cal.cal_0": {"config": {"x": 2**64}}}
        document = json.dumps(make_config(config={"service_overrides": overrides}).to_json())
        with pytest.raises(CommandError, match=r"cannot hold config\.cal\.cal_0"):
            await house.master.execute(configure(document=document))
        assert house.master.products() == {} and house.scheduler.alive == set()

    async def test_sensors_of_tasks_are_asked_for_unless_the_document_says_not(
        self, house: House
    ) -> None:
        await house.master.execute(configure())
        await house.witness.until(lambda: any(s.product == "p" for s in house.witness.sensors))
        await house.master.execute(DeconfigureProduct("p"))
        document = json.dumps(make_config(config={"mirror_sensors": False}).to_json())
        await house.master.execute(configure("q", document))
        await house.master.execute(CaptureInit("q"))
        await house.master.execute(CaptureDone("q"))
        assert not any(s.product == "q" for s in house.witness.sensors)

    @pytest.mark.parametrize(
        ("outputs", "options", "path"),
        [
            ({"image": CUBE}, {}, r"outputs\.image"),
            (
                {},
                {"service_overrides": {"ingest.l0_0.9": {}}},
                r"config\.service_overrides\.ingest",
            ),
        ],
    )
    async def test_what_cannot_be_made_leaves_nothing(
        self, house: House, outputs: dict[str, Any], options: dict[str, Any], path: str
    ) -> None:
        flags = {"type": "sdp.flags", "src_streams": ["l0_0", "cal_0"], "archive": True}
        product = make_config(outputs={"flags": flags, **outputs}, config=options)
        before = await house.everything()
        with pytest.raises(ConfigError, match=path):
            await house.master.execute(configure(document=json.dumps(product.to_json())))
        assert house.scheduler.launched == [] and house.master.products() == {}
        assert await house.everything() == before and house.witness.gone == []
        assert await house.store.events("product", "p") == []

    async def test_force_cancels_a_configure_that_waits(self, house: House) -> None:
        house.scheduler.gate.clear()
        configuring = asyncio.ensure_future(house.master.execute(configure()))
        await house.witness.until(lambda: bool(house.scheduler.launched))
        explained = await house.master.execute(ExplainProduct("p"))
        assert explained == f"{house.scheduler.launched[0].graph_id} waits for 2 cores"
        with pytest.raises(CommandError, match="busy with configure"):
            await house.master.execute(DeconfigureProduct("p"))
        # Two who lose patience at once do not trip over each other.
        await asyncio.gather(
            *(house.master.execute(DeconfigureProduct("p", force=True)) for _ in range(3))
        )
        with pytest.raises(CommandError, match="deconfigured before it was ready"):
            await configuring
        assert house.master.products() == {} and house.scheduler.alive == set()
        assert await house.stored("p") is None

    async def test_a_death_as_it_becomes_idle_is_not_overlooked(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = house.store.put

        async def slow(*args: Any, **kwargs: Any) -> int:
            if kwargs["event"].startswith("all tasks ready"):
                await house.scheduler.die("cal.cal_0")
            return await put(*args, **kwargs)

        monkeypatch.setattr(house.store, "put", slow)
        await house.master.execute(configure())
        await house.settle()
        assert house.product("p").state is ProductState.ERROR
        assert house.product("p").reason.startswith("cal.cal_0 on sdp-1 died: failed")


class TestCaptures:
    async def test_receivers_are_ready_before_those_that_send_and_end_after_them(
        self, up: House
    ) -> None:
        cbid = await up.master.execute(CaptureInit("p"))
        record = up.product("p")
        assert record.state is ProductState.CAPTURING
        assert record.current_block == cbid
        assert record.capture_blocks == {cbid: CaptureBlockState.CAPTURING}
        assert await up.master.execute(CaptureDone("p")) == cbid
        journal = up.scheduler.journal
        for request, flow in (("capture-init", STAGES[::-1]), ("capture-done", STAGES)):
            asked = [(task, what) for task, what, *_ in journal if what.startswith(request)]
            for before, after in itertools.pairwise(flow):
                last = max(asked.index((task, f"{request} done")) for task in before)
                assert last < min(asked.index((task, request)) for task in after)
            assert len(asked) == 2 * (len(TASKS) - 2)
        assert {entry[2] for entry in journal if entry[1] == "capture-init"} == {cbid}

    async def test_a_block_without_data_is_dead_at_once(self, up: House) -> None:
        cbid = await up.master.execute(CaptureInit("p"))
        await up.master.execute(CaptureDone("p"))
        await up.settle()
        record = up.product("p")
        assert (record.state, record.current_block) == (ProductState.IDLE, None)
        assert record.capture_blocks == {} and record.reason == ""
        lives = [r.capture_blocks.get(cbid) for r in up.witness.records]
        words = [state.value for i, state in enumerate(lives) if state and lives[i - 1] != state]
        assert words == ["initialising", "capturing", "burndown", "postprocessing"]
        assert up.scheduler.batches == []

    async def test_blocks_have_numbers_of_their_own(self, up: House) -> None:
        cbids = []
        for _ in range(3):
            cbids.append(await up.master.execute(CaptureInit("p")))
            await up.master.execute(CaptureDone("p"))
        assert len(set(cbids)) == 3 and all(cbid.isdigit() for cbid in cbids)
        assert cbids == sorted(cbids)

    @pytest.mark.parametrize("task", [STAGES[0][0], STAGES[1][1], STAGES[3][0]])
    async def test_one_refuses_and_nothing_captures(self, up: House, task: str) -> None:
        up.scheduler.behaviour.refuse[task] = "capture-init"
        with pytest.raises(CommandError, match=f"{task} refused capture-init: no capture-init"):
            await up.master.execute(CaptureInit("p"))
        record = up.product("p")
        assert (record.state, record.current_block) == (ProductState.IDLE, None)
        assert record.capture_blocks == {}
        begun = {e[0] for e in up.scheduler.journal if e[1] == "capture-init done"}
        ended = {e[0] for e in up.scheduler.journal if e[1] == "capture-done done"}
        assert begun <= ended
        up.scheduler.behaviour.refuse.clear()
        await up.master.execute(CaptureInit("p"))

    async def test_one_does_not_drain_and_the_block_is_closed_all_the_same(self, up: House) -> None:
        cbid = await up.master.execute(CaptureInit("p"))
        up.scheduler.behaviour.refuse["cal.cal_0"] = "capture-done"
        with pytest.raises(CommandError, match=f"{cbid} was closed, but: cal.cal_0 refused"):
            await up.master.execute(CaptureDone("p"))
        assert up.product("p").state is ProductState.IDLE
        assert ("vis_writer.l0_0", "capture-done done") in up.scheduler.journal

    async def test_what_does_not_fit_the_state_is_refused(self, up: House) -> None:
        with pytest.raises(CommandError, match="p is idle, not capturing"):
            await up.master.execute(CaptureDone("p"))
        await up.master.execute(CaptureInit("p"))
        with pytest.raises(CommandError, match="is capturing: it cannot become capturing"):
            await up.master.execute(CaptureInit("p"))
        with pytest.raises(CommandError, match="end the capture first, or force"):
            await up.master.execute(DeconfigureProduct("p"))
        assert up.product("p").state is ProductState.CAPTURING

    async def test_of_two_commands_at_once_the_second_is_refused(self, up: House) -> None:
        first, second = await asyncio.gather(
            up.master.execute(CaptureInit("p")),
            up.master.execute(CaptureInit("p")),
            return_exceptions=True,
        )
        assert isinstance(first, str)
        assert isinstance(second, CommandError)
        assert "p is busy with capture-init: try again later" in str(second)

    async def test_an_override_is_for_this_block_and_is_checked_before_anything(
        self, up: House
    ) -> None:
        with pytest.raises(ConfigError, match=r"outputs\.image\.min_time"):
            await up.master.execute(CaptureInit("p", '{"outputs": {"image": {"min_time": -1}}}'))
        with pytest.raises(
            ConfigError, match=r"outputs\.l0_0: .* cannot change for one capture block"
        ):
            await up.master.execute(CaptureInit("p", '{"outputs": {"l0_0": {"excise": false}}}'))
        assert up.scheduler.journal == [] and up.product("p").capture_blocks == {}
        for override, n_images in (('{"outputs": {"image": {"min_time": 1}}}', 2), (None, 1)):
            cbid = await up.master.execute(CaptureInit("p", override))
            await observe(up, cbid, {"A": 20, "B": 3})
            await up.master.execute(CaptureDone("p"))
            await up.settle()
            assert len(up.scheduler.batches[-1].tasks) == n_images

    async def test_a_stream_is_started_and_stopped(self, up: House) -> None:
        await up.master.execute(SetTransmission("p", "corr", on=False))
        await up.master.execute(SetTransmission(None, "corr", on=True))
        assert ("sim.corr", "capture-stop", "corr") in up.scheduler.journal
        assert ("sim.corr", "capture-start", "corr") in up.scheduler.journal
        with pytest.raises(
            CommandError, match=r"no product has a simulated stream 'x' \(streams: "
        ):
            await up.master.execute(SetTransmission(None, "x", on=True))


class TestDeaths:
    async def test_one_dies_while_idle(self, up: House) -> None:
        await up.scheduler.die("ingest.l0_0.0", log=("first", "last words"))
        await up.witness.until(lambda: "last words" in up.product("p").reason)
        record = up.product("p")
        assert record.state is ProductState.ERROR
        assert record.reason == (
            "ingest.l0_0.0 on sdp-1 died: failed: exited with status 3; "
            "its last words: first | last words"
        )
        stored = await up.stored("p")
        assert stored is not None and stored["reason"] == record.reason
        assert record.tasks["ingest.l0_0.0"].outcome == "failed: exited with status 3"
        with pytest.raises(CommandError, match="p is error: it cannot become capturing"):
            await up.master.execute(CaptureInit("p"))
        await up.master.execute(DeconfigureProduct("p"))
        assert up.master.products() == {} and up.scheduler.alive == set()

    async def test_a_whole_agent_dies(self, up: House) -> None:
        """Several tasks die at once: one error, one reason, and the controller lives on."""
        await asyncio.gather(*(up.scheduler.die(task) for task in sorted(TASKS)))
        await up.settle()
        assert up.product("p").state is ProductState.ERROR
        assert up.witness.states("p") == ["configuring", "idle", "error"]
        await up.master.execute(DeconfigureProduct("p"))
        await up.master.execute(configure())

    async def test_one_dies_while_capturing_and_the_capture_is_closed(self, up: House) -> None:
        cbid = await up.master.execute(CaptureInit("p"))
        await up.scheduler.die("cal.cal_0")
        await up.settle()
        record = up.product("p")
        assert record.state is ProductState.ERROR
        assert record.current_block is None and record.capture_blocks == {}
        ended = [entry[0] for entry in up.scheduler.journal if entry[1] == "capture-done done"]
        assert ended == [name for stage in STAGES for name in stage if name != "cal.cal_0"]
        events = await up.store.events("product", "p")
        assert f"captured {cbid}" in [text for _, text in events]

    async def test_one_dies_while_it_is_asked_to_begin(self, up: House) -> None:
        up.scheduler.behaviour.hang["ingest.l0_0.1"] = "capture-init"
        beginning = asyncio.ensure_future(up.master.execute(CaptureInit("p")))
        await up.asked("ingest.l0_0.1", "capture-init")
        await up.scheduler.die("ingest.l0_0.1")
        with pytest.raises(CommandError, match=r"ingest\.l0_0\.1"):
            await beginning
        await up.settle()
        record = up.product("p")
        assert record.state is ProductState.ERROR
        assert (record.current_block, record.capture_blocks) == (None, {})

    async def test_another_dies_while_one_is_asked_to_begin(self, up: House) -> None:
        up.scheduler.behaviour.hang["cal.cal_0"] = "capture-init"
        beginning = asyncio.ensure_future(up.master.execute(CaptureInit("p")))
        await up.asked("cal.cal_0", "capture-init")
        await up.scheduler.die("ingest.l0_0.1")  # its turn has not come yet
        await up.scheduler.die("cal.cal_0")
        with pytest.raises(CommandError):
            await beginning
        await up.settle()
        assert up.product("p").state is ProductState.ERROR
        assert up.product("p").current_block is None

    async def test_one_dies_while_it_drains(self, up: House) -> None:
        cbid = await up.master.execute(CaptureInit("p"))
        up.scheduler.behaviour.hang["ingest.l0_0.0"] = "capture-done"
        ending = asyncio.ensure_future(up.master.execute(CaptureDone("p")))
        await up.asked("ingest.l0_0.0", "capture-done")
        await up.scheduler.die("vis_writer.l0_0")  # its turn has not come yet
        await up.scheduler.die("ingest.l0_0.0")
        with pytest.raises(CommandError, match=f"{cbid} was closed, but: .*ingest.*vis_writer"):
            await ending
        await up.settle()
        record = up.product("p")
        assert record.state is ProductState.ERROR and record.current_block is None

    async def test_all_is_taken_down_before_the_capture_of_the_dead_was_closed(
        self, up: House
    ) -> None:
        await up.master.execute(CaptureInit("p"))
        await up.scheduler.die("cal.cal_0")
        await up.master.execute(DeconfigureProduct("p", force=True))
        await up.settle()
        assert up.master.products() == {} and up.scheduler.alive == set()
        assert up.witness.gone == ["p"]

    async def test_one_that_was_told_to_end_is_no_error(self, up: House) -> None:
        await up.master.execute(DeconfigureProduct("p"))
        assert "error" not in up.witness.states("p")
        assert up.witness.states("p") == ["configuring", "idle", "deconfiguring"]
        assert up.witness.gone == ["p"]


class TestTakingDown:
    async def test_everything_is_given_back(self, up: House) -> None:
        await up.master.execute(DeconfigureProduct("p"))
        assert up.scheduler.stopped == [up.scheduler.launched[0].graph_id]
        assert up.master._multicast._in_use == {}
        assert await up.stored("p") is None
        assert (await up.store.events("product", "p"))[-1][1] == "dead: deconfigured"

    async def test_a_capture_is_closed_by_force(self, up: House) -> None:
        await up.master.execute(CaptureInit("p"))
        await up.master.execute(DeconfigureProduct("p", force=True))
        assert next(e[0] for e in up.scheduler.journal if e[1] == "capture-done") == "sim.corr"
        assert up.scheduler.alive == set()

    @pytest.mark.parametrize(
        "end", [DeconfigureProduct("p", force=True), SetTargetState("STANDBY")]
    )
    async def test_force_cuts_a_wait_after_the_capture_short(
        self, house: House, end: Command[Any]
    ) -> None:
        product = make_config(config={"shutdown_delay": 3600})
        await house.master.execute(configure(document=json.dumps(product.to_json())))
        waiting = asyncio.create_task(house.master.execute(DeconfigureProduct("p")))
        await house.witness.until(lambda: house.product("p").state is ProductState.DECONFIGURING)
        await house.master.execute(end)
        async with asyncio.timeout(PATIENCE):
            await waiting
        assert house.master.products() == {} and house.scheduler.alive == set()

    async def test_force_waits_for_the_command_that_runs(self, up: House) -> None:
        beginning = asyncio.ensure_future(up.master.execute(CaptureInit("p")))
        await asyncio.sleep(0)
        await up.master.execute(DeconfigureProduct("p", force=True))
        assert (await beginning).isdigit()
        await up.witness.until(
            lambda: not up.master.products()
        )  # postprocessing: there was no data

    async def test_postprocessing_outlives_the_graph(self, up: House) -> None:
        cbid = await up.master.execute(CaptureInit("p"))
        await observe(up, cbid, {"A/B": 20, "A B": 10, "C": 3})
        up.scheduler.gate.clear()
        await up.master.execute(CaptureDone("p"))
        await up.witness.until(lambda: bool(up.scheduler.batches))
        (graph,) = up.scheduler.batches
        assert set(graph.tasks) == {f"imager.image.{cbid}.0", f"imager.image.{cbid}.1"}
        await up.master.execute(DeconfigureProduct("p"))
        record = up.product("p")
        assert record.state is ProductState.POSTPROCESSING
        assert record.capture_blocks == {cbid: CaptureBlockState.POSTPROCESSING}
        assert up.scheduler.alive == {t.task_id for t in graph.tasks.values()}
        with pytest.raises(CommandError, match="is postprocessing"):
            await up.master.execute(DeconfigureProduct("p", force=True))
        up.scheduler.gate.set()
        await up.settle()
        assert up.master.products() == {} and up.witness.gone == ["p"]
        assert await up.stored("p") is None

    async def test_a_batch_graph_is_made_beside_the_loop(
        self, up: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That of a spectral product has thousands of nodes: a tenth of a second."""
        threads: list[str] = []

        def noted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                threads.append(threading.current_thread().name)
                return function(*args)

            return call

        monkeypatch.setattr(postprocessing.imaging, "build", noted(imaging.build))
        monkeypatch.setattr(postprocessing, "instantiate", noted(instantiate))
        cbid = await up.master.execute(CaptureInit("p"))
        await observe(up, cbid, {"A": 20})
        await up.master.execute(CaptureDone("p"))
        await up.settle()
        assert len(threads) == 2
        assert all(name.startswith("computing") for name in threads)

    async def test_postprocessing_that_fails_is_told(self, up: House) -> None:
        cbid = await up.master.execute(CaptureInit("p"))
        up.scheduler.batch_failures = (f"imager.image.{cbid}.0",)
        await observe(up, cbid, {"A": 20})
        await up.master.execute(CaptureDone("p"))
        await up.settle()
        record = up.product("p")
        assert record.state is ProductState.IDLE and record.capture_blocks == {}
        assert record.reason == (
            f"postprocessing of {cbid}: imager.image.{cbid}.0 after 2 attempts: "
            "failed: exited with status 4 | no space left"
        )
        assert set(record.tasks) == TASKS  # those of the batch are gone


class TestStoreAway:
    """What happens when the configuration database does not answer at a bad moment."""

    @pytest.fixture
    def away(self, up: House, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Refuses the writes whose event begins with `event`, written first or not."""
        fault: dict[str, Any] = {"event": None, "written": False}
        put, delete = up.store.put, up.store.delete

        def faulty(write: Any) -> Any:
            async def act(*args: Any, **kwargs: Any) -> Any:
                bad = fault["event"] is not None and kwargs["event"].startswith(fault["event"])
                if not bad or fault["written"]:
                    result = await write(*args, **kwargs)
                if bad:
                    raise StoreError("cannot write: Redis does not answer")
                return result

            return act

        monkeypatch.setattr(up.store, "put", faulty(put))
        monkeypatch.setattr(up.store, "delete", faulty(delete))
        monkeypatch.setattr("sdpcontroller.products.keeper._STORE_PAUSE", 0.01)
        return fault

    @pytest.mark.parametrize("written", [False, True])
    @pytest.mark.parametrize(
        ("event", "command"),
        [
            ("capture block", CaptureInit("p")),
            ("capturing", CaptureInit("p")),
            ("capture block", CaptureDone("p")),
            ("deconfigure", DeconfigureProduct("p", force=True)),
        ],
    )
    async def test_a_command_fails_and_can_be_repeated(
        self, up: House, away: dict[str, Any], event: str, command: Any, written: bool
    ) -> None:
        if not isinstance(command, CaptureInit):
            await up.master.execute(CaptureInit("p"))
        away.update(event=event, written=written)
        with pytest.raises(StoreError, match="does not answer"):
            await up.master.execute(command)
        away.update(event=None)
        await up.settle()
        await up.master.execute(command)
        await up.settle()
        if not isinstance(command, DeconfigureProduct):
            stored, record = await up.stored("p"), up.product("p")
            assert stored is not None and stored["state"] == record.state.value
            await up.master.execute(DeconfigureProduct("p", force=True))
            await up.settle()  # the block that this ended may still be processed for a moment
        assert up.master.products() == {} and up.scheduler.alive == set()
        assert await up.stored("p") is None

    @pytest.mark.parametrize("written", [False, True])
    @pytest.mark.parametrize("event", ["telescope state", "all tasks ready"])
    async def test_a_launch_waits_for_it(
        self, up: House, away: dict[str, Any], event: str, written: bool
    ) -> None:
        """It was taken as a failure of the launch: what had started was killed, or nobody went on."""
        away.update(event=event, written=written)
        configuring = asyncio.ensure_future(up.master.execute(configure("q")))
        await up.witness.until(lambda: "q" in up.witness.latest)
        await asyncio.wait({configuring}, timeout=0.3)
        assert not configuring.done() and up.product("q").state is ProductState.CONFIGURING
        away.update(event=None)
        await configuring
        assert up.product("q").state is ProductState.IDLE
        stored = await up.stored("q")
        assert stored is not None and stored["state"] == "idle"

    @pytest.mark.parametrize("written", [False, True])
    async def test_a_product_half_taken_down_goes_on_by_itself(
        self, up: House, away: dict[str, Any], written: bool
    ) -> None:
        away.update(event="dead", written=written)
        with pytest.raises(StoreError, match="does not answer"):
            await up.master.execute(DeconfigureProduct("p", force=True))
        await asyncio.sleep(0.05)  # some tries fail, and are not the last ones
        assert up.product("p").state is ProductState.DECONFIGURING
        away.update(event=None)
        await up.settle()
        assert up.master.products() == {} and up.scheduler.alive == set()
        assert await up.stored("p") is None

    async def test_what_goes_on_by_itself_and_fails_harms_nobody_else(
        self, up: House, away: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away.update(event="dead")
        with pytest.raises(StoreError, match="does not answer"):
            await up.master.execute(DeconfigureProduct("p", force=True))

        async def refuse(graph_id: str, *, force: bool = False) -> None:
            raise SchedulerError("an operator must act")

        with monkeypatch.context() as patch:
            patch.setattr(up.scheduler, "stop", refuse)
            await up.settle()
        away.update(event=None)
        assert up.product("p").state is ProductState.DECONFIGURING
        await up.master.execute(DeconfigureProduct("p", force=True))
        assert up.master.products() == {} and up.scheduler.alive == set()

    @pytest.mark.parametrize("written", [False, True])
    @pytest.mark.parametrize("event", ["captured", "postprocessing of"])
    async def test_a_block_that_has_drained_waits_for_the_store(
        self, up: House, away: dict[str, Any], event: str, written: bool
    ) -> None:
        cbid = await up.master.execute(CaptureInit("p"))
        await observe(up, cbid, {"A": 20})
        away.update(event=event, written=written)
        ending = asyncio.ensure_future(up.master.execute(CaptureDone("p")))
        await up.asked("vis_writer.l0_0", "capture-done done")
        await asyncio.sleep(0.05)
        assert up.product("p").capture_blocks == {cbid: CaptureBlockState.BURNDOWN}
        away.update(event=None)
        assert await ending == cbid
        await up.settle()
        record = up.product("p")
        assert (record.state, record.capture_blocks, record.reason) == (ProductState.IDLE, {}, "")
        assert len(up.scheduler.batches) == 1

    @pytest.mark.parametrize("written", [False, True])
    async def test_what_nobody_waits_for_is_tried_again(
        self, up: House, away: dict[str, Any], written: bool
    ) -> None:
        await up.master.execute(CaptureInit("p"))
        away.update(event="", written=written)
        await up.scheduler.die("cal.cal_0")
        for _ in range(20):
            await asyncio.sleep(0)
        assert up.product("p").state is ProductState.CAPTURING  # as the database has it
        away.update(event=None)
        await up.settle()
        record = up.product("p")
        assert record.state is ProductState.ERROR and record.current_block is None
        assert catalogue.CALIBRATION.kind in record.reason
