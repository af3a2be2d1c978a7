"""The commands that speak to a controller, over KATCP to a server with records in memory."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from katcp_iface import KatcpServer
from sdpcontroller.cli.main import main
from sdpcontroller.config.document import MAX_BYTES
from sdpcontroller.control import (
    Alarm,
    CaptureBlockState,
    ConfigureProduct,
    DeconfigureProduct,
    Severity,
    SystemRecord,
)
from sdpcontroller.errors import CommandError
from tests.katcp_iface.conftest import FakeControl, product, task

Sdp = Callable[..., Awaitable[int]]


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def sdp(control: FakeControl) -> AsyncIterator[Sdp]:
    """Run a command line against the controller."""
    server = KatcpServer(control, port=0)
    await server.start()

    async def run(*words: str) -> int:
        host, port = server.address
        words = (*words, "--controller", f"{host}:{port}")
        return await asyncio.to_thread(main, words)

    yield run
    await server.stop()


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text('{"version": "4.9"}')
    return str(path)


async def test_a_whole_observation(
    sdp: Sdp, control: FakeControl, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await sdp("configure", "array_*", document) == 0
    assert control.executed == [ConfigureProduct("array_*", '{"version": "4.9"}')]
    assert capsys.readouterr().out.startswith("array_0 is up")
    assert await sdp("capture", "start", "array_0") == 0
    assert "1700000000 captures" in capsys.readouterr().out
    assert await sdp("capture", "stop", "array_0", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"capture_block": "1700000000"}
    assert await sdp("deconfigure", "array_0", "--force") == 0
    assert control.executed[-1] == DeconfigureProduct("array_0", force=True)


async def test_status_shows_system_products_blocks_and_tasks(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = {"1": CaptureBlockState.BURNDOWN, "2": CaptureBlockState.CAPTURING}
    control.put(product("array_1", capture_blocks=blocks, reason="ingest.0 died"))
    assert await sdp("status", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["system"]["state"] == "ON"
    (shown,) = data["products"]
    assert shown == {
        "name": "array_1",
        "state": "idle",
        "blocks": {"1": "burndown", "2": "capturing"},
        "tasks": {"ready": 2},
        "reason": "ingest.0 died",
    }
    assert await sdp("status") == 0
    text = capsys.readouterr().out
    for word in ("array_1", "idle", "2 capturing", "2 ready", "ingest.0 died", "127.0.0.1:5050"):
        assert word in text


async def test_tasks_are_listed(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    control.put(product("array_1"))
    assert await sdp("tasks", "array_1") == 0
    out = capsys.readouterr().out
    assert "array_1.ingest.sdp_l0.0" in out and "cpus:1.5; mem:512" in out


async def test_plan_says_by_its_status_whether_it_fits(
    sdp: Sdp, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await sdp("plan", document) == 2  # "fits" is not what the controller says when it fits
    assert "ingest.0 on host-1" in capsys.readouterr().out


async def test_a_refusal_is_one_line_and_status_1(
    sdp: Sdp, control: FakeControl, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    control.fault = CommandError("it does not fit: no GPU")
    assert await sdp("configure", "a", document) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: product-configure was refused: it does not fit: no GPU\n"


async def test_of_several_controllers_the_first_that_answers_is_asked(
    sdp: Sdp, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdpcontroller.cli.cam.CONNECT_TIMEOUT", 0.3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        silent = f"127.0.0.1:{probe.getsockname()[1]}"
        control.put(product("array_1"))
        server = KatcpServer(control, port=0)
        await server.start()
        host, port = server.address
        both = f"{silent},{host}:{port}"
        assert await asyncio.to_thread(main, ("tasks", "--controller", both)) == 0
        await server.stop()
        assert await asyncio.to_thread(main, ("tasks", "--controller", silent)) == 1


def test_nonsense_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(("status", "--controller", "nowhere"))
    assert "expected HOST:PORT" in capsys.readouterr().err
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert main(("resources", str(binary))) == 1
    assert "UTF-8" in capsys.readouterr().err
    assert main(("resources", str(tmp_path / "none"))) == 1


def test_resources_need_no_controller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sdpcontroller.cli import demo_config

    path = tmp_path / "demo.json"
    path.write_text(json.dumps(demo_config.simulated(60.0, 20.0).document))
    assert main(("resources", str(path))) == 0
    table = capsys.readouterr().out
    assert "vis_writer.sdp_l0" in table and table.splitlines()[-1].startswith("total")
    assert main(("resources", str(path), "--why")) == 0
    assert "source: pipelines.catalogue.ingest_bytes" in capsys.readouterr().out
    assert main(("resources", str(path), "--json")) == 0
    assert json.loads(capsys.readouterr().out)["total"]["cores"] == 2


async def test_logs_and_events_are_shown(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    control.put(product("array_1"))
    assert await sdp("logs", "array_1", "telstate") == 0
    assert capsys.readouterr().out == "telstate of array_1\n"
    assert await sdp("events", "array_1", "--count", "2", "--json") == 0
    events = json.loads(capsys.readouterr().out)["events"]
    assert events[1] == {"at": "2025-11-25T22:20:01.250+00:00", "event": "event 1 of array_1"}
    assert await sdp("events", "array_1", "--count", "1") == 0
    assert capsys.readouterr().out == "2025-11-25T22:20:00.250+00:00  event 0 of array_1\n"


async def test_a_file_that_no_controller_reads_is_not_sent(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "huge.json"
    path.write_text("x" * (MAX_BYTES + 1))
    for command in (("configure", "p"), ("plan",)):
        assert await sdp(*command, str(path)) == 1
        assert "more than 1 MiB" in capsys.readouterr().err
    assert control.executed == []


async def test_status_says_what_is_wrong(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = (
        Alarm("repair", Severity.ALARM, "no task is started again [until] repair-resume"),
        Alarm("agent.h", Severity.WARNING, "it is lost"),
    )
    control.set_system(SystemRecord("ALARM", "ON", "connected", "m:5050", wrong))
    assert await sdp("status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "alarm repair: no task is started again [until] repair-resume" in lines[1]
    assert "warning agent.h: it is lost" in lines[2]
    assert await sdp("status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["alarms"][1]["text"] == "it is lost"


async def test_queues_are_listed_and_summed_up(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await sdp("status") == 0
    assert "queues realtime nobody waits   batch 3 waiting, 12 s" in capsys.readouterr().out
    assert await sdp("queues", "batch", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "queue": "batch",
            "priority": "0",
            "waiting": "3",
            "oldest": "12.5",
            "terms": "for postprocessing; preemptible",
        }
    ]
    assert await sdp("queues", "bach") == 1
    assert "did you mean 'batch'?" in capsys.readouterr().err


async def test_brackets_in_a_reason_are_shown_as_they_are(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    """What rich takes for markup: an unbalanced one would be an error."""
    control.put(product("p", reason="died: no such file [/data] in [red]"))
    assert await sdp("status") == 0
    assert "no such file [/data] in [red]" in capsys.readouterr().out
    control.put(product("p", tasks={"t": task("t", resources="cores:[/x] [bold]")}))
    assert await sdp("tasks") == 0
    assert "cores:[/x] [bold]" in capsys.readouterr().out
