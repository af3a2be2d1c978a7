"""What tasks say is wrong with them."""

from __future__ import annotations

import json
from typing import Any

import aiokatcp
from hypothesis import given
from hypothesis import strategies as st

from sdpcontroller.complaints import Complaints
from sdpcontroller.control import ConfigureProduct, DeconfigureProduct, Severity, TaskSensor
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House

TEXT = json.dumps(make_config(cal=False).to_json())

names = st.sampled_from(["heaps-lost", "disk-free", "rate"])
statuses = st.sampled_from(["nominal", "warn", "error", "failure", "unknown", "unreachable"])
readings = st.one_of(
    st.tuples(
        st.just("device-status"), st.sampled_from(["ok", b"degraded", "fail", None]), statuses
    ),
    st.tuples(names, st.just(1), statuses),
)


def reading(product: str, task: str, name: str, value: Any, status: str) -> TaskSensor:
    return TaskSensor(product, task, name, "", "", "string", (), status, value, 0.0)


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["writer", "cal"]), readings), max_size=40
    )
)
def test_alarms_are_of_the_newest_readings_and_a_change_is_told(
    told: list[tuple[str, str, tuple[str, Any, str]]],
) -> None:
    complaints, newest = Complaints(), dict[tuple[str, str, str], tuple[Any, str]]()
    for product, task, (name, value, status) in told:
        before = list(complaints.alarms("ab"))
        changed = complaints.take(reading(product, task, name, value, status))
        newest[product, task, name] = (value, status)
        found = list(complaints.alarms("ab"))
        assert changed == (found != before)
        expected = {}
        for (product_, task_, name_), (value_, _) in newest.items():
            if name_ == "device-status" and value_ in (b"degraded", "fail"):
                troubled = sorted(
                    n
                    for (p, t, n), (_, s) in newest.items()
                    if (p, t) == (product_, task_)
                    and n != "device-status"
                    and s in ("warn", "error", "failure")
                )
                severity = Severity.ALARM if value_ == "fail" else Severity.WARNING
                expected[f"task.{product_}.{task_}"] = (severity, troubled)
        assert {a.name: a.severity for a in found} == {n: s for n, (s, _) in expected.items()}
        for alarm in found:
            assert [n for n in alarm.text.partition(": ")[2].split(", ") if n] == expected[
                alarm.name
            ][1]
    complaints.forget("a")
    assert all(alarm.name.startswith("task.b.") for alarm in complaints.alarms("ab"))
    assert not list(complaints.alarms(()))


def test_of_many_sensors_some_are_named() -> None:
    complaints = Complaints()
    for number in range(9):
        complaints.take(reading("a", "cal", f"s{number}", 1, "warn"))
    assert complaints.take(reading("a", "cal", "device-status", "degraded", "warn"))
    (alarm,) = complaints.alarms("a")
    assert alarm.text == "it is degraded: s0, s1, s2, s3, s4 …"


async def test_an_operator_hears_of_a_task_that_fails(house: House) -> None:
    await house.master.execute(ConfigureProduct("p", TEXT))
    servers = house.scheduler.servers
    server = next(servers[task_id] for task_id in servers if "vis_writer" in task_id)

    def found() -> list[tuple[str, Severity]]:
        return [(alarm.name, alarm.severity) for alarm in house.master.system().alarms]

    assert found() == []
    server.status.value = aiokatcp.DeviceStatus.FAIL
    await house.witness.until(lambda: len(found()) == 1)
    assert found() == [("task.p.vis_writer.l0_0", Severity.ALARM)]
    assert house.master.system().state == "ALARM"
    told = house.witness.system
    server.status.value = aiokatcp.DeviceStatus.OK
    await house.witness.until(lambda: house.witness.system > told)
    assert found() == []
    server.status.value = aiokatcp.DeviceStatus.DEGRADED
    await house.witness.until(lambda: len(found()) == 1)
    assert house.master.system().state == "ON"
    await house.master.execute(DeconfigureProduct("p"))
    assert found() == []
