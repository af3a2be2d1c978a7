"""One figure of a product, made of its tasks' sensors."""

from __future__ import annotations

from typing import Any

import aiokatcp
from hypothesis import given
from hypothesis import strategies as st

from katcp_iface.aggregates import RULES, Aggregates
from katcp_iface.readings import Status
from sdpcontroller.control import TaskSensor


def reading(task: str, name: str, value: Any, status: str = "nominal") -> TaskSensor:
    return TaskSensor("p", task, name, "", "", "integer", (), status, value, 0.0)


readings = st.builds(
    reading,
    st.sampled_from(["ingest.0", "ingest.1", "cal.cal"]),
    st.just("input-heaps-lost"),
    st.integers(0, 5),
    st.sampled_from(["nominal", "warn", "unreachable"]),
)


@given(st.lists(readings, max_size=20))
def test_a_sum_is_that_of_the_newest_readings_of_the_tasks_that_count(
    said: list[TaskSensor],
) -> None:
    aggregates = Aggregates()
    newest: dict[str, int] = {}
    for sensor in said:
        shown = aggregates.taken(sensor)
        if not sensor.task.startswith("ingest."):
            assert shown is None
            continue
        newest.pop(sensor.task, None)
        if sensor.status != "unreachable":
            newest[sensor.task] = sensor.value
        assert shown is not None
        assert shown.name == "p.input-heaps-lost"
        if newest:
            total = sum(newest.values())
            assert shown.value == total
            assert shown.status is (Status.WARN if total else Status.NOMINAL)
        else:
            assert (shown.value, shown.status) == (None, Status.UNKNOWN)


def test_the_worst_device_status_is_the_products() -> None:
    aggregates = Aggregates()
    for task, value in (("a", b"ok"), ("b", "degraded"), ("c", aiokatcp.DeviceStatus.OK)):
        shown = aggregates.taken(reading(task, "device-status", value))
    assert shown is not None
    assert (shown.value, shown.status) == (aiokatcp.DeviceStatus.DEGRADED, Status.WARN)
    (shown,) = aggregates.without("p", "b")
    assert (shown.value, shown.status) == (aiokatcp.DeviceStatus.OK, Status.NOMINAL)
    shown = aggregates.taken(reading("a", "device-status", "on fire"))
    assert shown is not None and shown.value is aiokatcp.DeviceStatus.FAIL


def test_what_no_rule_wants_or_cannot_be_added_up_does_no_harm() -> None:
    aggregates = Aggregates()
    assert aggregates.taken(reading("ingest.0", "temperature", 3)) is None
    shown = aggregates.taken(reading("ingest.0", "input-rate", "fast"))
    assert shown is not None and shown.status is Status.UNREACHABLE
    assert aggregates.forget("p") == ["p.input-rate"]
    assert list(aggregates.without("p", "ingest.0")) == []
    assert all(rule.description for rule in RULES.values())
