"""Sensors tell what the records say."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import replace
from typing import Any

import aiokatcp
import pytest

from katcp_iface import clients
from katcp_iface import server as katcp_server
from katcp_iface.mirror import MAX_MIRRORED, TASKS_AT_ONCE
from sdpcontroller.control import (
    AgentRecord,
    Alarm,
    CaptureBlockState,
    ProductState,
    Severity,
    SystemRecord,
    TaskSensor,
)
from tests.conftest import PATIENCE

TASK = "array_1.ingest.sdp_l0.0"
EVERY_TASK = ("state", "mesos-state", "host", "resources", "device-status")


async def value(client: aiokatcp.Client, name: str) -> tuple[str, str]:
    """Status and value of a sensor, as text."""
    _, informs = await client.request("sensor-value", name)
    return tuple(aiokatcp.decode(str, arg) for arg in informs[0].arguments[3:5])  # type: ignore[return-value]


async def names(client: aiokatcp.Client) -> set[str]:
    _, informs = await client.request("sensor-list")
    return {aiokatcp.decode(str, inform.arguments[0]) for inform in informs}


async def description(client: aiokatcp.Client, name: str) -> list[bytes]:
    _, informs = await client.request("sensor-list", name)
    return list(informs[0].arguments)


def reading(**changes: Any) -> TaskSensor:
    sensor = TaskSensor(
        product="array_1",
        task="ingest.sdp_l0.0",
        name="heaps",
        description="Heaps received",
        units="heaps",
        type_name="integer",
        params=(),
        status="nominal",
        value=7,
        timestamp=1234.5,
    )
    return replace(sensor, **changes)


async def test_the_whole(client, control) -> None:
    assert await value(client, "device-status") == ("nominal", "ok")
    assert await value(client, "state") == ("nominal", "ON")
    assert await value(client, "target-state") == ("nominal", "ON")
    assert await value(client, "products") == ("nominal", "[]")
    assert await value(client, "mesos-state") == ("nominal", "connected")
    assert await value(client, "mesos-master") == ("nominal", "127.0.0.1:5050")
    assert await value(client, "agents-total") == ("nominal", "2")
    assert json.loads((await value(client, "gui-urls"))[1]) == [{"title": "Dashboard"}]


async def test_the_whole_follows_the_system(client, control) -> None:
    control.set_system(SystemRecord("FAULT", "STANDBY", "lost", ""))
    assert await value(client, "device-status") == ("error", "fail")
    assert await value(client, "state") == ("nominal", "FAULT")
    assert await value(client, "target-state") == ("nominal", "STANDBY")
    assert await value(client, "mesos-state") == ("nominal", "lost")
    control.set_system(SystemRecord("ON", "ON", "disconnected", ""))
    assert await value(client, "device-status") == ("warn", "degraded")
    control.set_system(SystemRecord("dreaming", "ON", "connected", ""))
    assert await value(client, "state") == ("unknown", "UNKNOWN")


async def test_agents_are_counted_by_state(client, control) -> None:
    for state in ("quarantined", "quarantined", "draining"):
        control.agent_records.append(AgentRecord("h", "S", state, ""))
    control.set_system(control.system_record)
    assert await value(client, "agents-total") == ("nominal", "5")
    assert await value(client, "agents-quarantined") == ("nominal", "2")
    assert await value(client, "agents-draining") == ("nominal", "1")
    assert await value(client, "device-status") == ("warn", "degraded")


async def test_changes_of_agents_show_within_a_second_without_an_event(client, control) -> None:
    watcher = aiokatcp.SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced.wait()
    changed = asyncio.Event()
    watcher.sensors["agents-total"].attach(lambda sensor, reading: changed.set())
    control.agent_records.clear()
    assert katcp_server._REFRESH < 1.0  # how late that is on a busy machine is not ours
    async with asyncio.timeout(PATIENCE):
        await changed.wait()
    assert watcher.sensors["agents-total"].value == 0


async def test_sensors_of_a_product_come_and_go_with_it(client, control) -> None:
    before = await names(client)
    control.put(control.product("array_1", config='{"x": 1}'))
    assert await names(client) - before == {
        *(f"array_1.{s}" for s in ("state", "capture-block-state", "config", "reason", "queue")),
        *(f"array_1.tasks-{s}" for s in ("total", "ready")),
        *(f"{TASK}.{s}" for s in (*EVERY_TASK, "spead", "http")),
        *(f"array_1.telstate.{s}" for s in EVERY_TASK),
        "array_1.device-status",
    }
    assert await value(client, "array_1.config") == ("nominal", '{"x": 1}')
    assert await value(client, "products") == ("nominal", '["array_1"]')
    control.drop("array_1")
    assert await names(client) == before
    assert await value(client, "products") == ("nominal", "[]")


async def test_a_sensor_that_cannot_be_shown_keeps_no_other_from_it_and_is_tried_again(
    client, control, monkeypatch, caplog
) -> None:
    record = control.product("array_1")
    control.put(record)
    task = record.tasks["telstate"]
    set_value, broken = aiokatcp.Sensor.set_value, True

    def refuse(sensor: aiokatcp.Sensor[Any], *args: Any) -> None:
        if broken and sensor.name in ("array_1.state", "array_1.telstate.host"):
            raise ValueError("an observer failed")
        set_value(sensor, *args)

    monkeypatch.setattr(aiokatcp.Sensor, "set_value", refuse)
    dead = replace(task, state="dead", host="elsewhere")
    changed = replace(record, state=ProductState.ERROR, tasks={**record.tasks, "telstate": dead})
    control.put(changed)
    assert await value(client, "array_1.telstate.state") == ("nominal", "dead")
    assert await value(client, "array_1.telstate.host") == ("nominal", task.host)
    assert "array_1.telstate.host cannot be shown" in caplog.text
    broken = False
    control.put(changed)
    assert await value(client, "array_1.telstate.host") == ("nominal", "elsewhere")
    assert await value(client, "array_1.state") == ("error", "error")


async def test_the_states_of_a_product(client, control) -> None:
    blocks = {"1": CaptureBlockState.POSTPROCESSING, "2": CaptureBlockState.CAPTURING}
    record = control.product("array_1", state=ProductState.CAPTURING, capture_blocks=blocks)
    control.put(record)
    assert await value(client, "array_1.state") == ("nominal", "capturing")
    shown = json.loads((await value(client, "array_1.capture-block-state"))[1])
    assert shown == {"1": "postprocessing", "2": "capturing"}
    control.put(replace(record, state=ProductState.ERROR, reason="cal died", capture_blocks={}))
    assert await value(client, "array_1.state") == ("error", "error")
    assert await value(client, "array_1.reason") == ("nominal", "cal died")
    assert await value(client, "array_1.capture-block-state") == ("nominal", "{}")
    assert await value(client, "device-status") == ("warn", "degraded")


async def test_the_sensors_of_a_task(client, control) -> None:
    control.put(control.product("array_1"))
    assert await value(client, f"{TASK}.state") == ("nominal", "ready")
    assert await value(client, f"{TASK}.mesos-state") == ("nominal", "TASK_RUNNING")
    assert await value(client, f"{TASK}.host") == ("nominal", "host-1")
    assert await value(client, f"{TASK}.resources") == ("nominal", "cpus:1.5; mem:512")
    assert await value(client, f"{TASK}.spead") == ("nominal", "10.1.2.3:7148")
    assert (await description(client, f"{TASK}.spead"))[3] == b"address"
    # KATCP's addresses are numeric: an endpoint by host name is text.
    assert (await description(client, f"{TASK}.http"))[3] == b"string"
    assert await value(client, f"{TASK}.http") == ("nominal", "host-1:8080")


@pytest.mark.parametrize(
    ("changes", "reading", "whole"),
    [
        ({"state": "starting"}, "unknown", "ok"),
        ({"state": "ready"}, ("nominal", "ok"), "ok"),
        ({"state": "planned", "held": "until repair-resume"}, ("warn", "degraded"), "degraded"),
        ({"mesos_state": "TASK_UNREACHABLE"}, ("warn", "degraded"), "degraded"),
        ({"state": "dead", "outcome": "lost: its agent"}, ("error", "fail"), "fail"),
        ({"state": "dead", "outcome": "killed: done"}, "inactive", "ok"),
    ],
)
async def test_a_task_that_tells_nothing_has_the_device_status_that_the_controller_sees(
    client, control, changes, reading, whole
) -> None:
    record = control.product("array_1")
    other = control.task("other", state="ready")
    task = replace(record.tasks["telstate"], **changes)
    control.put(replace(record, tasks={"other": other, "telstate": task}))
    shown = await value(client, "array_1.telstate.device-status")
    assert reading in (shown, shown[0])
    assert (await value(client, "array_1.device-status"))[1] == whole
    if task.held:
        assert (await value(client, "array_1.telstate.state"))[0] == "warn"


async def test_what_a_task_tells_of_itself_goes_before(client, control) -> None:
    record = control.product("array_1")
    control.put(record)
    words = {"type_name": "discrete", "params": ("ok", "degraded", "fail")}
    control.sense(reading(name="device-status", description="Mine", value="fail", **words))
    for state in ("starting", "ready"):
        tasks = {**record.tasks, "ingest.sdp_l0.0": control.task("ingest.sdp_l0.0", state=state)}
        control.put(replace(record, tasks=tasks))
        assert (await value(client, f"{TASK}.device-status"))[1] == "fail"
    assert (await description(client, f"{TASK}.device-status"))[1] == b"Mine"
    assert (await value(client, "array_1.device-status"))[1] == "fail"
    tasks = {"telstate": record.tasks["telstate"]}
    control.put(replace(record, tasks=tasks))
    assert (await value(client, "array_1.device-status"))[1] == "ok"


async def test_tasks_change_and_go_one_by_one(client, control) -> None:
    record = control.product("array_1")
    control.put(record)
    dead = control.task("ingest.sdp_l0.0", state="dead", outcome="failed: exit 1", ports={})
    control.put(replace(record, tasks={"ingest.sdp_l0.0": dead}))
    assert await value(client, f"{TASK}.state") == ("error", "dead")
    shown = await names(client)
    assert f"{TASK}.spead" not in shown
    assert not any(name.startswith("array_1.telstate.") for name in shown)
    moved = control.task("ingest.sdp_l0.0", ports={"http": ("10.0.0.9", 80)})
    control.put(replace(record, tasks={"ingest.sdp_l0.0": moved}))
    assert (await description(client, f"{TASK}.http"))[3] == b"address"


@pytest.mark.parametrize(
    ("type_name", "params", "given", "shown"),
    [
        ("integer", (), 7, "7"),
        ("float", (), 2.5, "2.5"),
        ("boolean", (), True, "1"),
        ("discrete", ("all-well", "so-so"), "so-so", "so-so"),
        ("string", (), "a b\n", "a b\n"),
        ("address", (), aiokatcp.Address.parse(b"10.0.0.1:80"), "10.0.0.1:80"),
        ("timestamp", (), aiokatcp.Timestamp(12.5), "12.5"),
        ("nonsense", (), "text", "text"),
    ],
)
async def test_a_tasks_own_sensors_keep_type_units_status_and_time(
    client, control, type_name, params, given, shown
) -> None:
    control.put(control.product("array_1"))
    control.sense(reading(type_name=type_name, params=params, value=given, status="warn"))
    _, informs = await client.request("sensor-value", f"{TASK}.heaps")
    timestamp, _, _, status, text = informs[0].arguments
    assert (float(timestamp), status, aiokatcp.decode(str, text)) == (1234.5, b"warn", shown)
    _, text, units, kind, *words = await description(client, f"{TASK}.heaps")
    assert (text, units) == (b"Heaps received", b"heaps")
    assert kind.decode() == ("string" if type_name == "nonsense" else type_name)
    assert tuple(word.decode() for word in words) == params


async def test_a_sensor_that_is_out_of_reach_keeps_its_last_value(client, control) -> None:
    control.put(control.product("array_1"))
    control.sense(reading())
    control.sense(reading(value=None, status="unreachable", timestamp=1300.0))
    assert await value(client, f"{TASK}.heaps") == ("unreachable", "7")


async def test_values_that_do_not_fit_their_type_are_not_shown(client, control) -> None:
    control.put(control.product("array_1"))
    control.sense(reading(value="many"))
    assert await value(client, f"{TASK}.heaps") == ("unreachable", "0")
    control.sense(reading(name="mode", type_name="discrete", params=("a", "b"), value="c"))
    assert await value(client, f"{TASK}.mode") == ("unreachable", "a")


async def test_a_tasks_sensors_cannot_displace_the_controllers(client, control) -> None:
    control.put(control.product("array_1"))
    for name in ("state", "host", "spead", "bad name", "", "é", "x" * 300):
        control.sense(reading(name=name))
    assert await value(client, f"{TASK}.state") == ("nominal", "ready")
    assert await value(client, f"{TASK}.spead") == ("nominal", "10.1.2.3:7148")
    assert len(await names(client)) == 13 + 8 + 7 + 5


async def test_readings_of_what_is_gone_are_dropped(client, control) -> None:
    before = await names(client)
    control.sense(reading())
    assert await names(client) == before
    control.put(control.product("array_1"))
    control.sense(reading())
    control.drop("array_1")
    control.sense(reading())
    assert await names(client) == before


async def test_sensors_of_one_task_are_bounded(client, control, caplog) -> None:
    control.put(control.product("array_1"))
    for i in range(MAX_MIRRORED + 5):
        control.sense(reading(name=f"s{i}"))
    _, informs = await client.request("sensor-list", f"/^{TASK}\\.s\\d+$/")
    assert len(informs) == MAX_MIRRORED
    assert caplog.text.count("the rest are dropped") == 1


async def test_clients_are_told_once_of_many_changes(client, control) -> None:
    told: list[Any] = []
    first = asyncio.Event()

    def changed(*args):  # no annotations: aiokatcp would decode by them
        told.extend(args)
        first.set()

    client.add_inform_callback("interface-changed", changed)
    for i in range(50):
        control.put(control.product(f"array_{i}"))
    async with asyncio.timeout(PATIENCE):
        await first.wait()
    await client.request("watchdog")
    assert told == [b"sensor-list"]


class Recorder(aiokatcp.SensorWatcher):
    """Notes the values of one sensor."""

    def __init__(self, client: aiokatcp.Client, name: str) -> None:
        super().__init__(client)
        self.name = name
        self.seen: asyncio.Queue[bytes | None] = asyncio.Queue()

    def sensor_updated(
        self, name: str, value: bytes, status: aiokatcp.Sensor.Status, timestamp: float
    ) -> None:
        super().sensor_updated(name, value, status, timestamp)
        if name == self.name:
            self.seen.put_nowait(value)

    def sensor_removed(self, name: str) -> None:
        super().sensor_removed(name)
        if name == self.name:
            self.seen.put_nowait(None)


async def test_a_watcher_sees_a_whole_life(client, control) -> None:
    recorder = Recorder(client, "array_1.state")
    client.add_sensor_watcher(recorder)
    await recorder.synced.wait()
    record = control.product("array_1", state=ProductState.CONFIGURING)
    async with asyncio.timeout(PATIENCE):
        control.put(record)
        assert await recorder.seen.get() == b"configuring"
        for state in (ProductState.IDLE, ProductState.CAPTURING):
            control.put(replace(record, state=state))
            assert await recorder.seen.get() == state.value.encode()
        control.drop("array_1")
        assert await recorder.seen.get() is None


async def test_a_fault_in_showing_does_not_reach_the_controller(server, control, caplog) -> None:
    control.agents = lambda: 1 / 0
    control.put(control.product("array_1"))
    assert "ZeroDivisionError" in caplog.text


async def test_pages_of_tasks_are_among_the_pages(client, control) -> None:
    control.put(control.product("array_1"))
    pages = json.loads((await value(client, "gui-urls"))[1])
    assert pages[-1]["href"] == "http://host-1:8080/"
    dead = control.task("ingest.sdp_l0.0", state="dead")
    control.put(control.product("array_1", tasks={dead.name: dead}))
    async with asyncio.timeout(PATIENCE):  # it is not looked at for each of hundreds of tasks
        while len(json.loads((await value(client, "gui-urls"))[1])) != len(pages) - 1:
            pass


async def test_what_is_wrong_is_listed_with_the_status_of_the_gravest(client, control) -> None:
    assert await value(client, "alarms") == ("nominal", "[]")
    warning = Alarm("agent.host-1", Severity.WARNING, "it is lost")
    control.set_system(replace(control.system_record, alarms=(warning,)))
    status, text = await value(client, "alarms")
    assert status == "warn"
    assert json.loads(text) == [
        {"name": "agent.host-1", "severity": "warning", "text": "it is lost"}
    ]
    alarm = Alarm("mesos", Severity.ALARM, "no Mesos master")
    control.set_system(replace(control.system_record, alarms=(alarm, warning)))
    assert (await value(client, "alarms"))[0] == "error"


async def test_thousands_of_sensors_are_listed_while_others_are_answered(connect, control) -> None:
    control.put(control.product("array_1"))
    for n in range(600):  # more than one piece
        control.sense(reading(name=f"figure-{n}"))
    first, other = await connect(), await connect()
    listing = asyncio.create_task(first.request("sensor-list"))
    values = asyncio.create_task(first.request("sensor-value", "/figure-/"))
    await other.request("watchdog")
    reply, informs = await listing
    assert len({inform.arguments[0] for inform in informs}) == int(reply[0]) > 600
    reply, informs = await values
    assert int(reply[0]) == len(informs) == 600
    assert informs[0].arguments[1:4] == [b"1", f"{TASK}.figure-0".encode(), b"nominal"]
    with pytest.raises(aiokatcp.FailReply, match="Unknown sensor"):
        await other.request("sensor-value", "nothing")
    with pytest.raises(aiokatcp.FailReply, match="could take for ever"):
        await other.request("sensor-value", "/(e+)+x/")


async def test_thousands_of_sensors_are_subscribed_to_in_pieces(
    connect, control, server, monkeypatch
) -> None:
    monkeypatch.setattr(clients, "SAMPLERS_AT_ONCE", 100)
    control.put(control.product("array_1"))
    for n in range(900):  # two pieces
        control.sense(reading(name=f"figure-{n}"))
    client, other = await connect(), await connect()
    every = [f"{TASK}.figure-{n}" for n in range(900)]
    for names, complaint in (([*every, "nothing"], "Unknown"), ([*every, every[0]], "Duplicate")):
        with pytest.raises(aiokatcp.FailReply, match=complaint):
            await client.request("sensor-sampling", ",".join(names), "event")
    (conn,) = (c for c in server._server._connections if client_port(client) == c.address.port)
    assert not conn._samplers, "nothing was done for the first of them"
    told: list[bytes] = []
    client.add_inform_callback("sensor-status", lambda *words: told.append(words[2]))
    reply = asyncio.create_task(client.request("sensor-sampling", ",".join(every), "event"))
    await other.request("watchdog")
    words, _ = await reply
    assert words == [",".join(every).encode(), b"event"]
    assert [name.decode() for name in told] == every, "all came before the reply"
    samplers = list(conn._samplers.values())
    client.close()
    await client.wait_closed()
    async with asyncio.timeout(PATIENCE):
        while any(sampler.sensor is not None for sampler in samplers):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert len(samplers) == 900


async def test_what_changes_together_is_told_together_and_before_what_comes_later(
    client, control, server
) -> None:
    control.put(control.product("array_1"))
    names = [f"{TASK}.figure-{n}" for n in range(20)]
    for n in range(20):
        control.sense(reading(name=f"figure-{n}"))
    await client.request("sensor-sampling", ",".join(names), "event")
    (conn,) = server._server._connections
    sent: list[bytes] = []
    write = conn._transport.write
    conn._transport.write = lambda data: (sent.append(bytes(data)), write(data))
    for n in range(20):
        control.sense(reading(name=f"figure-{n}", value=n + 100))
    await asyncio.sleep(0)
    (together,) = sent
    assert [line.split()[3].decode() for line in together.splitlines()] == names
    control.sense(reading(name="figure-3", value=1000))
    server._server.mass_inform("later")
    assert [line.split()[0] for line in sent[1].splitlines()] == [b"#sensor-status", b"#later"]
    await asyncio.sleep(0)
    assert len(sent) == 2


def client_port(client: aiokatcp.Client) -> int:
    return int(client._connection._transport.get_extra_info("sockname")[1])


async def test_of_hundreds_of_tasks_that_change_together_some_are_shown_at_a_time(server) -> None:
    mirror, sensors = server._mirror, server._server.sensors

    def record(state: str):
        tasks = {f"t{n}": server._control.task(f"t{n}", state=state) for n in range(100)}
        return server._control.product("array_1", tasks=tasks)

    def ready() -> int:
        names = [f"array_1.t{n}.state" for n in range(100)]
        return sum(name in sensors and sensors[name].value.name == "READY" for name in names)

    mirror.product_changed(record("ready"))
    shown = [ready()]
    while shown[-1] < 100:
        await asyncio.sleep(0)
        shown.append(ready())
    assert max(after - before for before, after in itertools.pairwise([0, *shown])) == TASKS_AT_ONCE
    mirror.product_changed(record("starting"))
    mirror.product_changed(record("ready"))  # before all of that was shown
    await mirror.catch_up()
    assert ready() == 100


async def test_tasks_that_are_gone_before_they_are_shown_are_not(server) -> None:
    tasks = {f"t{n}": server._control.task(f"t{n}") for n in range(100)}
    server._mirror.product_changed(server._control.product("array_1", tasks=tasks))
    server._mirror.product_gone("array_1")
    await server._mirror.catch_up()
    assert not any(name.startswith("array_1.") for name in server._server.sensors)
