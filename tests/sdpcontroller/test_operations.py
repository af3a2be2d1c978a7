"""What operators do: overrides, restarts, logs, events, images, machines that are switched off."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from scheduler.errors import ImageError, RestartError
from scheduler.images import ResolvedImage
from sdpcontroller.control import (
    ConfigureProduct,
    DeconfigureProduct,
    LookUpImage,
    ProductEvents,
    ProductState,
    ReconfigureProduct,
    RestartTask,
    SetConfigOverride,
    TaskLog,
)
from sdpcontroller.errors import CommandError, ConfigError
from sdpcontroller.operations import Operations
from sdpcontroller.overrides import Overrides
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House

TEXT = json.dumps(make_config(cal=False).to_json())
OVERRIDE = {"config": {"shutdown_delay": 0.001}}


async def test_an_override_is_merged_into_the_next_configure_and_then_forgotten(
    house: House,
) -> None:
    await house.master.execute(SetConfigOverride("p", json.dumps(OVERRIDE)))
    await house.master.execute(ConfigureProduct("other", TEXT))
    await house.master.execute(ConfigureProduct("p", TEXT))
    merged = json.loads(house.product("p").config)
    assert merged["config"]["shutdown_delay"] == 0.001
    # The same request again is the same product, although the override is gone.
    await house.master.execute(ConfigureProduct("p", TEXT))
    await house.master.execute(DeconfigureProduct("p"))
    await house.master.execute(ConfigureProduct("p", TEXT))
    assert house.product("p").config == TEXT == house.product("other").config


async def test_an_override_survives_the_controller(house: House, open_house: Any) -> None:
    await house.master.execute(SetConfigOverride("p", json.dumps(OVERRIDE)))
    await house.crash()
    async with open_house(after=house) as other:
        await other.master.execute(ConfigureProduct("p", TEXT))
        assert json.loads(other.product("p").config)["config"]["shutdown_delay"] == 0.001


async def test_an_override_that_makes_no_configuration_is_told_and_stays(house: House) -> None:
    await house.master.execute(SetConfigOverride("p", '{"config": {"shutdown_delay": -1}}'))
    with pytest.raises(ConfigError, match=r"with the override of p: .*shutdown_delay"):
        await house.master.execute(ConfigureProduct("p", TEXT))
    assert house.master.products() == {}
    await house.master.execute(SetConfigOverride("p", "{}"))
    await house.master.execute(ConfigureProduct("p", TEXT))
    with pytest.raises(ConfigError, match="must be an object"):
        await house.master.execute(SetConfigOverride("p", "[]"))


async def test_an_override_of_a_task_that_there_is_not_takes_no_product_down(house: House) -> None:
    await house.master.execute(ConfigureProduct("p", TEXT))
    wrong = {"config": {"service_overrides": {"ingest.l0_0.9": {}}}}
    await house.master.execute(SetConfigOverride("p", json.dumps(wrong)))
    with pytest.raises(ConfigError, match=r"with the override of p: config\.service_overrides"):
        await house.master.execute(ReconfigureProduct("p"))
    assert house.product("p").state is ProductState.IDLE and len(house.scheduler.launched) == 1


async def test_what_was_made_with_another_override_is_refused(house: House) -> None:
    overrides, document = Overrides(house.store), make_config(cal=False)
    before = overrides.applied("p", TEXT, document)
    overrides.check_holds("p", before)
    await overrides.set("p", json.dumps(OVERRIDE))
    with pytest.raises(CommandError, match="override of p was changed meanwhile"):
        overrides.check_holds("p", before)
    overrides.check_holds("p", overrides.applied("p", TEXT, document))


async def test_reconfigure_is_down_and_up_with_the_same_document(house: House) -> None:
    await house.master.execute(ConfigureProduct("p", TEXT))
    before = {task.task_id for task in house.product("p").tasks.values()}
    await house.master.execute(SetConfigOverride("p", json.dumps(OVERRIDE)))
    await house.master.execute(ReconfigureProduct("p"))
    record = house.product("p")
    assert record.state is ProductState.IDLE
    assert not before & {task.task_id for task in record.tasks.values()}
    assert json.loads(record.config)["config"]["shutdown_delay"] == 0.001
    with pytest.raises(CommandError, match="there is no product 'x'"):
        await house.master.execute(ReconfigureProduct("x"))


async def test_a_task_is_restarted_when_the_graph_allows_it(house: House) -> None:
    await house.master.execute(ConfigureProduct("p", TEXT))
    before = house.product("p").tasks["display.l0_0"].task_id
    assert await house.master.execute(RestartTask("p", "display.l0_0")) == ("display.l0_0",)
    assert house.product("p").tasks["display.l0_0"].task_id != before
    house.scheduler.restart_error = RestartError("telstate: everybody needs it")
    with pytest.raises(CommandError, match="everybody needs it"):
        await house.master.execute(RestartTask("p", "telstate"))
    with pytest.raises(CommandError, match=r"did you mean 'display\.l0_0'"):
        await house.master.execute(RestartTask("p", "dispaly.l0_0"))


async def test_events_of_a_product_outlive_it(house: House) -> None:
    began = time.time() - 0.001  # the database counts milliseconds
    await house.master.execute(ConfigureProduct("p", TEXT))
    await house.master.execute(DeconfigureProduct("p"))
    events = await house.master.execute(ProductEvents("p"))
    assert events[0].text == "configure"
    assert events[-1].text == "dead: deconfigured"
    assert began <= events[0].at <= events[-1].at <= time.time() + 0.001
    assert await house.master.execute(ProductEvents("p", 1)) == events[-1:]
    with pytest.raises(CommandError, match="nothing was ever recorded of a product 'q'"):
        await house.master.execute(ProductEvents("q"))


async def test_logs_are_those_of_the_task(house: House) -> None:
    await house.master.execute(ConfigureProduct("p", TEXT))
    lines = await house.master.execute(TaskLog("p", "telstate"))
    assert lines == (f"log of {house.product('p').tasks['telstate'].task_id}",)
    with pytest.raises(CommandError, match=r"has no task 'nobody' \(tasks: .*display"):
        await house.master.execute(TaskLog("p", "nobody"))


class _Images:
    async def resolve(self, name: str) -> ResolvedImage:
        if name != "repo/katsdpcal:latest":
            raise ImageError(f"there is no image {name}")
        return ResolvedImage(name, "repo/katsdpcal@sha256:12", "sha256:12")


def operations(**more: Any) -> Operations:
    nothing: Any = None
    values: dict[str, Any] = {
        "products": {},
        "hosts": lambda: ["b", "a", "b"],
        "target": nothing,
        "overrides": nothing,
        "changed": lambda: None,
    }
    return Operations(nothing, **(values | more))


async def test_images_are_looked_up_where_a_registry_is_configured() -> None:
    look_up = operations(images=_Images()).handlers()[LookUpImage]
    assert await look_up(LookUpImage("repo/katsdpcal", "latest")) == "repo/katsdpcal@sha256:12"
    with pytest.raises(CommandError, match="there is no image repo/x:1"):
        await look_up(LookUpImage("repo/x", "1"))
    with pytest.raises(CommandError, match="no registry"):
        await operations().handlers()[LookUpImage](LookUpImage("a", "b"))


async def test_machines_that_do_not_switch_off_are_not_listed() -> None:
    script = "import sys; sys.exit(sys.argv[1] == 'a')"
    switch = operations(power_off=(sys.executable, "-c", script, "{host}"))
    assert [await switch._switch_off(host) for host in ("a", "b")] == [False, True]
    missing = operations(power_off=("/no/such/program", "{host}"))
    assert not await missing._switch_off("a")
