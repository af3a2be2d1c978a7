"""Every request, over a real socket."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiokatcp
import pytest

from sdpcontroller.config import VERSIONS
from sdpcontroller.control import (
    AgentRecord,
    CaptureDone,
    CaptureInit,
    ConfigureProduct,
    DeconfigureProduct,
    ExplainProduct,
    LookUpImage,
    MulticastGroups,
    PlanProduct,
    ProductEvents,
    ReconfigureProduct,
    RestartTask,
    SetConfigOverride,
    SetTargetState,
    SetTransmission,
    ShutDown,
    TaskLog,
)
from sdpcontroller.errors import ConfigError

OURS = [
    "product-configure",
    "product-configure-versions",
    "product-reconfigure",
    "set-config-override",
    "product-events",
    "task-restart",
    "task-log",
    "image-lookup",
    "set-target-state",
    "sdp-shutdown",
    "product-deconfigure",
    "product-list",
    "product-plan",
    "product-explain",
    "telstate-endpoint",
    "get-multicast-groups",
    "capture-init",
    "capture-done",
    "capture-status",
    "capture-start",
    "capture-stop",
    "capture-list",
    "task-list",
    "agent-list",
    "agent-drain",
    "agent-undrain",
]


async def ask(client: aiokatcp.Client, *args: Any) -> tuple[list[str], list[list[str]]]:
    """Reply and informs, as text."""
    reply, informs = await client.request(*args)
    return (
        [aiokatcp.decode(str, argument) for argument in reply],
        [[aiokatcp.decode(str, argument) for argument in inform.arguments] for inform in informs],
    )


async def failure(client: aiokatcp.Client, *args: Any) -> str:
    with pytest.raises(aiokatcp.FailReply) as caught:
        await client.request(*args)
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


async def test_help_lists_every_request_with_a_summary(client) -> None:
    _, informs = await ask(client, "help")
    summaries = dict(informs)
    for name in OURS:
        assert len(summaries[name]) > 20, name
        _, [[_, text]] = await ask(client, "help", name)
        # Each argument, inform and reply is described.
        assert any(section in text for section in ("Parameters", "Informs", "Returns")), name


async def test_configure_hands_on_name_and_document_and_replies_where_the_product_is(
    client, control
) -> None:
    reply, _ = await ask(client, "product-configure", "array_*", '{"a b": "\\\\ \té"}')
    assert reply == ["array_0", "127.0.0.1", "5001"]
    assert control.executed == [ConfigureProduct("array_*", '{"a b": "\\\\ \té"}')]


async def test_versions_of_the_document(client) -> None:
    reply, informs = await ask(client, "product-configure-versions")
    assert [version for (version,) in informs] == list(VERSIONS)
    assert reply == [str(len(VERSIONS))]


async def test_deconfigure_refuses_while_capturing_unless_forced(client, control) -> None:
    control.put(control.product("array_1"))
    await ask(client, "capture-init", "array_1")
    text = await failure(client, "product-deconfigure", "array_1")
    assert text == "product array_1 is capturing: end the capture or use force"
    await ask(client, "product-deconfigure", "array_1", True)
    assert control.executed[-1] == DeconfigureProduct("array_1", True)
    assert control.products() == {}


async def test_product_list(client, control) -> None:
    assert await ask(client, "product-list") == (["0"], [])
    control.put(control.product("array_1"))
    control.put(control.product("array_2"))
    assert await ask(client, "product-list") == (
        ["2"],
        [["array_1", "idle"], ["array_2", "idle"]],
    )
    assert await ask(client, "product-list", "array_2") == (["1"], [["array_2", "idle"]])
    text = await failure(client, "product-list", "aray_2")
    assert "did you mean 'array_2'" in text


async def test_capture_from_init_to_done(client, control) -> None:
    control.put(control.product("array_1"))
    assert (await ask(client, "capture-init", "array_1", '{"x": null}'))[0] == ["1700000000"]
    assert control.executed[-1] == CaptureInit("array_1", '{"x": null}')
    assert (await ask(client, "capture-done", "array_1"))[0] == ["1700000000"]
    assert control.executed[-1] == CaptureDone("array_1")


async def test_capture_status_of_one_and_of_all(client, control) -> None:
    control.put(control.product("array_1"))
    assert await ask(client, "capture-status", "array_1") == (["idle"], [])
    assert await ask(client, "capture-status") == (["1"], [["array_1", "idle"]])
    assert "no product" in await failure(client, "capture-status", "x")


async def test_telstate_endpoint_of_one_and_of_all(client, control) -> None:
    control.put(control.product("array_1"))
    control.put(control.product("array_2", telstate=None))
    assert await ask(client, "telstate-endpoint", "array_1") == (["10.0.0.1:6379"], [])
    informs = [["array_1", "10.0.0.1:6379"], ["array_2", ""]]
    assert await ask(client, "telstate-endpoint") == (["2"], informs)
    assert "no telescope state yet" in await failure(client, "telstate-endpoint", "array_2")


async def test_multicast_groups(client, control) -> None:
    assert (await ask(client, "get-multicast-groups", "a", 4))[0] == ["239.192.0.8+3"]
    assert control.executed == [MulticastGroups("a", 4)]
    for count in (0, -1, 10**6, "x"):
        await failure(client, "get-multicast-groups", "a", count)
    assert len(control.executed) == 1


async def test_streams_are_listed_started_and_stopped(client, control) -> None:
    down = (["1"], [["bcp", "239.1.1.1+3:7148", "down"]])
    up = (["1"], [["bcp", "239.1.1.1+3:7148", "up"]])
    assert await ask(client, "capture-list") == down
    await ask(client, "capture-start", "bcp")
    assert await ask(client, "capture-list", "bcp") == up
    await ask(client, "capture-stop", "bcp", "array_1")
    assert await ask(client, "capture-list") == down
    assert control.executed == [
        SetTransmission(None, "bcp", True),
        SetTransmission("array_1", "bcp", False),
    ]
    assert "streams: bcp" in await failure(client, "capture-list", "x")


async def test_plans_and_explanations_come_line_by_line(client, control) -> None:
    lines = (["2"], [["fits"], ["ingest.0 on host-1"]])
    assert await ask(client, "product-plan", "{}") == lines
    assert await ask(client, "product-explain", "a") == lines
    assert control.executed == [PlanProduct("{}"), ExplainProduct("a")]


async def test_tasks_and_how_they_ended(client, control) -> None:
    dead = control.task("cal", state="dead", outcome="failed: exit 1", host="host-2")
    tasks = {"ingest.0": control.task("ingest.0"), "cal": dead}
    control.put(control.product("array_1", tasks=tasks))
    control.put(control.product("array_2", tasks={}))
    reply, informs = await ask(client, "task-list")
    assert reply == ["2"]
    assert informs[0] == ["array_1.ingest.0", "ready", "host-1", "cpus:1.5; mem:512"]
    assert informs[1][:3] == ["array_1.cal", "dead (failed: exit 1)", "host-2"]
    assert await ask(client, "task-list", "array_2") == (["0"], [])
    await failure(client, "task-list", "array_3")


async def test_agents(client, control) -> None:
    control.agent_records.append(AgentRecord("host-3", "S3", "quarantined", "", "bad topology"))
    reply, informs = await ask(client, "agent-list")
    assert reply == ["3"]
    assert informs[2] == ["host-3", "quarantined", "", "bad topology"]
    assert (await ask(client, "agent-list", "host-1"))[1] == [["host-1", "up", "cpus:4", ""]]
    assert "hosts: host-1" in await failure(client, "agent-list", "host-9")


async def test_agents_are_drained_and_put_back(client, control) -> None:
    tasks = {
        "ingest.0": control.task("ingest.0", host="host-1"),
        "cal": control.task("cal", host="h2"),
    }
    control.put(control.product("array_1", tasks=tasks))
    assert await ask(client, "agent-drain", "host-1", "a new fan") == (
        ["1"],
        [["array_1.ingest.0"]],
    )
    _, informs = await ask(client, "agent-list", "host-1")
    assert informs == [["host-1", "draining", "cpus:4", "a new fan"]]
    assert await ask(client, "agent-undrain", "host-1") == ([], [])
    assert (await ask(client, "agent-list", "host-1"))[1][0][1] == "up"


async def test_what_the_controller_refuses_is_one_line(client, control) -> None:
    control.fault = ConfigError("a: 1: must be 2\nb: 3: must be 4\n")
    text = await failure(client, "product-configure", "a", "{}")
    assert text == "a: 1: must be 2; b: 3: must be 4"


async def test_a_fault_of_ours_is_logged_and_not_shown(client, control, caplog) -> None:
    control.fault = ZeroDivisionError("secret")
    text = await failure(client, "product-configure", "a", "{}")
    assert "secret" not in text
    assert "ZeroDivisionError: secret" in caplog.text


@pytest.mark.parametrize(
    "request_",
    [
        ("product-configure",),
        ("product-configure", "a"),
        ("product-configure", "a", "{}", "more"),
        ("product-configure", "a", b"\xff"),
        ("product-deconfigure", "a", "yes"),
        ("capture-init",),
        ("get-multicast-groups", "a", "1.5"),
    ],
)
async def test_wrong_arguments_are_refused_before_the_controller_hears_of_them(
    client, control, request_
) -> None:
    await failure(client, *request_)
    assert control.executed == []


async def test_unknown_requests_are_invalid(client) -> None:
    with pytest.raises(aiokatcp.InvalidReply):
        await client.request("make-coffee")


async def test_a_client_cannot_halt_the_controller(client, connect) -> None:
    assert "not stopped over KATCP" in await failure(client, "halt")
    await ask(await connect(), "watchdog")


async def test_clients_do_not_wait_for_each_other(client, connect, control) -> None:
    control.gate = asyncio.Event()
    other = await connect()
    waiting = [
        asyncio.create_task(client.request("product-configure", f"a{i}", "{}")) for i in range(10)
    ]
    for _ in range(3):
        await ask(other, "watchdog")
    assert not any(task.done() for task in waiting)
    control.gate.set()
    replies = await asyncio.gather(*waiting)
    assert sorted(reply[0] for reply, _ in replies) == [f"a{i}".encode() for i in range(10)]


def test_docstrings_name_no_internals() -> None:
    from katcp_iface.server import Facade

    for name in OURS:
        text = getattr(Facade, "request_" + name.replace("-", "_")).__doc__
        assert not re.search(r":\w+:`|``", text), name


async def test_operators_requests_become_commands(client, control) -> None:
    control.put(control.product("array_1"))
    for request, command, reply in (
        (("product-reconfigure", "array_1"), ReconfigureProduct("array_1"), []),
        (("set-config-override", "a", "{}"), SetConfigOverride("a", "{}"), []),
        (("image-lookup", "repo", "1"), LookUpImage("repo", "1"), [b"repo@sha256:1"]),
        (("set-target-state", "standby"), SetTargetState("STANDBY"), []),
        (("sdp-shutdown",), ShutDown(), [b"host-1,host-2"]),
        (("task-restart", "array_1", "t"), RestartTask("array_1", "t"), [b"1"]),
        (("task-log", "array_1", "t"), TaskLog("array_1", "t"), [b"1"]),
        (("product-events", "gone", 3), ProductEvents("gone", 3), [b"3"]),
    ):
        assert (await client.request(*request))[0] == reply
        assert control.executed[-1] == command
    for request in (("product-events", "a", 0), ("task-log", "nobody", "t"), ("image-lookup", "x")):
        with pytest.raises(aiokatcp.FailReply):
            await client.request(*request)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("get-multicast-groups", "a", "many"), "'many' is no number: one was expected"),
        (("product-events", "a", "1.5"), "'1.5' is no number: one was expected"),
        (("sensor-sampling", "state", "period", "x"), "'x' is no number: one was expected"),
        (("product-deconfigure", "a", "yes"), "'yes' is neither 0 nor 1: one of them was expected"),
        (("sensor-sampling", "state", "often"), "'often' is no Strategy"),
        (("log-level", "loud"), "'loud' is no LogLevel"),
        (("product-list", b"a\xff"), "byte 1 of an argument, 0xff, is no UTF-8"),
    ],
)
async def test_what_an_argument_is_not_is_told_without_python(client, control, words, told) -> None:
    control.put(control.product("a"))
    with pytest.raises(aiokatcp.FailReply, match=rf"^{re.escape(told)}$"):
        await client.request(*words)


async def test_help_begins_every_line_at_the_margin(client) -> None:
    for request in (b"product-configure", b"sensor-sampling"):
        _, informs = await client.request("help", request)
        lines = informs[0].arguments[1].decode().splitlines()
        assert all(line == "" or not line.startswith("        ") for line in lines)
        assert "Parameters" in lines


@pytest.mark.parametrize("time", ["nan", "inf", "-1", "-inf"])
@pytest.mark.parametrize(
    "times", [("period", "{}"), ("event-rate", "{}", "1"), ("event-rate", "0", "{}")]
)
async def test_times_of_a_sampling_that_are_none_are_refused(client, time, times) -> None:
    """NaN would put the event loop's timers out of order, those of leases among them."""
    words = [word.format(time) for word in times]
    with pytest.raises(aiokatcp.FailReply, match=f"^'{time}' is no time: seconds"):
        await client.request("sensor-sampling", "state", *words)


async def test_a_client_is_sent_only_so_many_readings_by_the_clock(client, connect) -> None:
    for words in (
        ("period", "1e-6"),
        ("event-rate", "0", "1e-6"),
        ("differential-rate", "1", "0", "1e-6"),
    ):
        with pytest.raises(
            aiokatcp.FailReply, match="1000000 readings a second for this client: at"
        ):
            await client.request("sensor-sampling", "agents-total", *words)
    with pytest.raises(aiokatcp.FailReply, match="period must be positive"):
        await client.request("sensor-sampling", "state", "period", "0")
    for _ in range(3):  # in the place of what there was
        reply, _ = await client.request("sensor-sampling", "state,target-state", "period", "0.0005")
        assert reply == [b"state,target-state", b"period", b"0.0005"]
    with pytest.raises(aiokatcp.FailReply, match="it would be 5111 readings"):
        await client.request("sensor-sampling", "agents-total", "period", "0.0009")
    await (await connect()).request("sensor-sampling", "agents-total", "period", "0.0009")
    await client.request("sensor-sampling", "state,target-state", "none")
    await client.request("sensor-sampling", "agents-total", "period", "0.0009")
    await client.request("sensor-sampling", "agents-total", "none")
    reply, _ = await client.request("sensor-sampling", "agents-total")
    assert reply == [b"agents-total", b"none"]
