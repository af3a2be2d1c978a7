"""Figures for Prometheus, read as Prometheus reads them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler.policy import BATCH, REALTIME, Queue
from sdpcontroller.control import CaptureInit, ProductState, TaskSensor
from sdpcontroller.errors import CommandError
from sdpcontroller.metrics import MeasuredControl, Metrics, attach, serve
from sdpcontroller.metrics.__main__ import main as write_reference
from sdpcontroller.metrics.counted import process_age
from tests.certificates import Authority
from tests.katcp_iface.conftest import FakeControl, product, task


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sensor(name: str, value: object, status: str = "nominal") -> TaskSensor:
    return TaskSensor("p", "ingest.0", name, "", "", "integer", (), status, value, time.time())


async def test_commands_are_counted_by_how_they_ended() -> None:
    control, metrics = FakeControl(), Metrics()
    measured = MeasuredControl(control, metrics)
    control.put(product("p"))
    await measured.execute(CaptureInit("p"))
    control.fault = CommandError("no")
    with pytest.raises(CommandError):
        await measured.execute(CaptureInit("p"))
    control.fault = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError):
        await measured.execute(CaptureInit("p"))
    found = samples((await metrics.text()).decode())
    for outcome in ("ok", "refused", "failed"):
        labels = (("command", "capture_init"), ("outcome", outcome))
        assert found["sdp_command_seconds_count", labels] == 1


async def test_records_are_read_when_somebody_asks() -> None:
    control, metrics = FakeControl(), Metrics()
    detach = attach(control, metrics)
    control.put(product("p", state=ProductState.CAPTURING))
    control.put(product("q", state=ProductState.ERROR, tasks={}))
    async with serve(metrics, "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            found = samples(await answer.text())
        async with http.get(f"http://127.0.0.1:{port}/health") as answer:
            assert answer.status == 200
    assert found["sdp_products", (("state", "capturing"),)] == 1
    assert found["sdp_products", (("state", "error"),)] == 1
    assert found["sdp_products", (("state", "idle"),)] == 0
    assert found["sdp_tasks", (("state", "ready"),)] == 2
    assert found["sdp_system_state", (("state", "ON"),)] == 1
    assert found["sdp_system_state", (("state", "FAULT"),)] == 0
    assert found["sdp_mesos_connected", ()] == 1
    detach()
    assert "sdp_products" not in (await metrics.text()).decode()


async def test_declared_sensors_of_tasks_come_and_go_with_them() -> None:
    control, metrics = FakeControl(), Metrics()
    attach(control, metrics)
    record = product("p", tasks={"ingest.0": task("ingest.0")})
    control.put(record)
    control.sense(sensor("input-heaps-lost", 3))
    control.sense(sensor("something-else", 3))
    control.sense(sensor("flagged-fraction", "no number"))
    labels = (("product", "p"), ("task", "ingest.0"))
    found = samples((await metrics.text()).decode())
    assert found["sdp_task_ingest_input_heaps_lost", labels] == 3
    assert not any("something" in name or "flagged" in name for name, _ in found)
    control.sense(sensor("input-heaps-lost", 3, "unreachable"))
    assert "heaps_lost" not in (await metrics.text()).decode()
    control.sense(sensor("input-heaps-lost", 4))
    control.put(replace(record, tasks={"ingest.0": task("ingest.0", state="dead")}))
    assert "heaps_lost" not in (await metrics.text()).decode()
    control.drop("p")
    control.sense(sensor("input-heaps-lost", 5))
    assert "heaps_lost" not in (await metrics.text()).decode()


async def test_a_loop_that_is_held_up_is_seen() -> None:
    metrics = Metrics()
    watching = asyncio.create_task(metrics.lag.watch())
    await asyncio.sleep(0)
    time.sleep(0.35)  # noqa: ASYNC251 - to hold up the loop is the point
    for _ in range(5):  # the timer, its future, its task
        await asyncio.sleep(0)
    watching.cancel()
    assert metrics.lag.worst > 0.05


async def test_what_the_scheduler_and_the_products_tell_is_counted() -> None:
    metrics = Metrics()
    metrics.offered(3, "received")
    metrics.packed("no_fit", 0.2)
    metrics.waited("realtime", "placed", 2.0)
    metrics.died("display", "failed")
    metrics.restarted("display", "ok")
    metrics.observe_exchange("write", 0.002)
    metrics.observe_request("product-list", "ok", 0.001)
    found = samples((await metrics.text()).decode())
    assert found["sdp_offers_total", (("what", "received"),)] == 3
    assert found["sdp_packing_seconds_sum", (("outcome", "no_fit"),)] == 0.2
    labels = (("outcome", "placed"), ("queue", "realtime"))
    assert found["sdp_queue_wait_seconds_sum", labels] == 2
    labels = (("kind", "display"), ("outcome", "failed"))
    assert found["sdp_task_deaths_total", labels] == 1
    assert found["sdp_task_restarts_total", (("kind", "display"), ("outcome", "ok"))] == 1
    assert found["sdp_store_seconds_count", (("exchange", "write"),)] == 1
    labels = (("outcome", "ok"), ("request", "product-list"))
    assert found["sdp_request_seconds_count", labels] == 1


class Waiting:
    offers_held = 4

    def queues(self) -> tuple[Queue, ...]:
        return REALTIME, BATCH

    def waiting(self) -> dict[str, list[float]]:
        return {"realtime": [1.0, 5.0]}


async def test_queues_are_read_when_somebody_asks() -> None:
    control, metrics = FakeControl(), Metrics()
    control.system_record = replace(control.system_record, standbys=("head2:5001",))
    attach(control, metrics, Waiting())
    found = samples((await metrics.text()).decode())
    assert found["sdp_queue_length", (("queue", "realtime"),)] == 2
    assert found["sdp_queue_oldest_seconds", (("queue", "realtime"),)] == 5
    assert found["sdp_queue_length", (("queue", "batch"),)] == 0
    assert found["sdp_offers_held", ()] == 4
    assert found["sdp_standbys", ()] == 1


async def test_of_a_lag_only_what_was_computed_is_its_own() -> None:
    metrics = Metrics()
    metrics.lag.observe(0.4, computed=0.025)
    found = samples((await metrics.text()).decode())
    assert found["sdp_loop_lag_seconds_sum", ()] == 0.4
    assert found["sdp_loop_own_lag_seconds_sum", ()] == 0.025
    assert found["sdp_loop_lag_max_seconds", ()] == 0.4


async def test_how_far_a_start_came_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    metrics = Metrics()
    metrics.reached("leads")
    first = samples((await metrics.text()).decode())["sdp_start_seconds", (("reached", "leads"),)]
    assert 0 < first <= process_age()
    metrics.reached("leads")
    again = samples((await metrics.text()).decode())["sdp_start_seconds", (("reached", "leads"),)]
    assert again == first
    assert caplog.text.count("start: leads after") == 1


def test_a_late_loop_is_told_in_the_log_and_not_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    metrics.lag.observe(0.09, computed=0.09)
    assert not caplog.records
    for _ in range(5):
        metrics.lag.observe(0.2, computed=0.15)
    (line,) = caplog.messages
    assert line == "the event loop was 200 ms late; this process computed 150 ms meanwhile"


def test_the_reference_in_docs_is_what_the_code_declares(tmp_path: Path) -> None:
    write_reference(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
    message = "docs/reference/metrics.md is stale: run python -m sdpcontroller.metrics"
    assert page.read_text() == (tmp_path / "metrics.md").read_text(), message


async def test_every_figure_is_in_the_reference_with_its_labels() -> None:
    control, metrics = FakeControl(), Metrics()
    attach(control, metrics, Waiting())
    control.put(product("p"))
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert all(f"`{label}`" in row for label in labels), row


async def test_figures_are_for_who_has_the_token() -> None:
    async with (
        serve(Metrics(), "127.0.0.1", 0, token="s3cret") as port,  # noqa: S106
        aiohttp.ClientSession() as http,
    ):
        url = f"http://127.0.0.1:{port}"
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Basic s3cret"}, 401),
            ({"Authorization": "Bearer s3cret"}, 200),
        ):
            async with http.get(f"{url}/metrics", headers=headers) as answer:
                assert answer.status == status, headers
        async with http.get(f"{url}/health") as answer:
            assert answer.status == 200


async def test_figures_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with (
        serve(Metrics(), "127.0.0.1", 0, tls=authority.context("127.0.0.1")) as port,
        aiohttp.ClientSession() as http,
        http.get(f"https://127.0.0.1:{port}/metrics", ssl=authority.trust) as answer,
    ):
        assert "sdp_loop_lag_seconds" in await answer.text()


async def test_the_end_of_a_certificate_is_a_figure() -> None:
    metrics = Metrics()
    metrics.certified("controller", 1.8e9)
    found = samples((await metrics.text()).decode())
    assert found["sdp_certificate_end_time_seconds", (("use", "controller"),)] == 1.8e9
