"""Two controllers with different queues: both say so, and what is up keeps its queue if it can."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.faults.bench.bench import Bench
from tests.faults.bench.observer import DOCUMENT
from tests.faults.test_preemption import MACHINE, QUEUES, alarms, until


async def test_the_one_that_leads_counts_and_the_other_is_an_alarm(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.json"
    first.write_text(QUEUES.replace("realtime", "observations"))
    second.write_text(json.dumps({"queues": {"realtime": {"priority": 7}, "batch": {}}}))
    async with Bench(tmp_path / "bench", controllers=2, machine=MACHINE) as bench:
        await bench.start("A", "", "--queues", str(first))
        await bench.ask("product-configure", "p", DOCUMENT)
        assert await bench.sensors(r"^p\.queue$") == {"p.queue": "observations"}
        await bench.start("B", "", "--queues", str(second))

        async def told() -> str:
            return (await alarms(bench)).get("queues", "")

        port = bench.controllers["B"].port
        assert f"the queues of 127.0.0.1:{port} (standing by)" in await until("the alarm", told)
        log = bench.controllers["B"].log
        assert "had other queues: " in log.read_text(), "it says so before it leads"
        alive = set(bench.running())

        await bench.signal("A", signal.SIGKILL)
        _, listed = await bench.ask("queue-list")
        assert [words[:2] for words in listed] == [["realtime", "7"], ["batch", "0"]]

        async def replaced() -> bool:
            return (await bench.sensors(r"^p\.queue$")) == {"p.queue": "realtime"}

        await until("another queue", replaced)
        _, events = await bench.ask("product-events", "p")
        said = "queue observations is not declared any more: it waits in realtime"
        assert any(text == said for _, text in events)
        assert set(bench.running()) == alive, "nothing of it was touched"
        assert await alarms(bench) == {}
        await bench.ask("product-deconfigure", "p", 1)
