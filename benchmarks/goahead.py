"""How fast waiting tasks are let through: ``python -m benchmarks.goahead``.

So many tasks wait, each with its question open on a connection of its own over the loopback interface; then all
are let through, and the time is taken until the last has read its answer. The yardstick is a bare aiohttp
handler that answers the same number of such questions at once with the same text.

With ``--tls``: what a question costs over TLS, each on a connection of its own as the wrapper's clients ask;
the yardstick is the same over plain HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from scheduler.goahead import GoAhead, new_token
from tests.certificates import Authority

TASKS: Final = 1000
VALUES: Final = {f"value{n}": "x" * 60 for n in range(8)}
"""Late-bound values, as of a task with a few streams."""


async def let_through(n_tasks: int) -> tuple[float, float, int]:
    """Return wall time and CPU time from letting through to the last answer, and the bytes of one answer."""
    gates = GoAhead()
    await gates.start()
    tokens = {f"graph.task{n}.0": new_token() for n in range(n_tasks)}
    for task_id, token in tokens.items():
        gates.open(task_id, token)
    async with _session() as session:
        asked = [
            asyncio.create_task(
                _answer(session, f"{gates.base_url}/tasks/{task_id}/go-ahead", token)
            )
            for task_id, token in tokens.items()
        ]
        while sum(gates.waiting(t) for t in tokens) < n_tasks:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        wall, cpu = time.perf_counter(), time.process_time()
        for task_id in tokens:
            gates.let_through(task_id, VALUES)
        answers = await asyncio.gather(*asked)
        taken = time.perf_counter() - wall, time.process_time() - cpu
    await gates.stop()
    assert all('"go"' in answer for answer in answers)
    return *taken, len(answers[0])


async def bare(n_tasks: int, size: int) -> tuple[float, float]:
    """Answer that many questions with that many bytes, and nothing else; return wall time and CPU time."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="x" * size, content_type="application/json")

    application = web.Application()
    application.router.add_get("/tasks/{task_id}/go-ahead", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with _session() as session:
        wall, cpu = time.perf_counter(), time.process_time()
        urls = (f"{base}/tasks/graph.task{n}.0/go-ahead" for n in range(n_tasks))
        await asyncio.gather(*(_answer(session, url, "none") for url in urls))
        taken = time.perf_counter() - wall, time.process_time() - cpu
    await runner.cleanup()
    return taken


async def asked_anew(
    n_questions: int, context: ssl.SSLContext | None, trust: ssl.SSLContext | bool
) -> float:
    """Answer questions one after the other, each on a new connection; return the CPU time, both ends."""
    gates, token = GoAhead(tls=context), new_token()
    await gates.start()
    gates.open("graph.task.0", token)
    gates.let_through("graph.task.0", VALUES)
    url, head = (
        f"{gates.base_url}/tasks/graph.task.0/go-ahead",
        {"Authorization": f"Bearer {token}"},
    )
    began = time.process_time()
    for _ in range(n_questions):
        connector = aiohttp.TCPConnector(ssl=trust, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, headers=head) as response,
        ):
            assert response.status == 200, await response.text()
    taken = time.process_time() - began
    await gates.stop()
    return taken


def encryption(n_questions: int) -> str:
    """Compare questions over TLS with those over plain HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        context, trust = authority.context("127.0.0.1"), authority.trust
    plain = asyncio.run(asked_anew(n_questions, None, True))
    tls = asyncio.run(asked_anew(n_questions, context, trust))
    return (
        f"a question on a new connection: {1000 * tls / n_questions:.2f} ms of CPU over TLS, both ends;"
        f" {1000 * plain / n_questions:.2f} ms over plain HTTP; ratio {tls / plain:.2f}"
    )


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def _answer(session: aiohttp.ClientSession, url: str, token: str) -> str:
    headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"}
    async with session.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.text()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goahead", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--tls", action="store_true", help="what a question costs over TLS")
    options = parser.parse_args(arguments)
    if options.tls:
        print(encryption(options.tasks))
        return 0
    wall, cpu, size = asyncio.run(let_through(options.tasks))
    bare_wall, bare_cpu = asyncio.run(bare(options.tasks, size))
    print(
        f"{options.tasks} waiting tasks let through in {wall:.2f} s ({cpu:.2f} s CPU, both ends);"
        f" a bare handler takes {bare_wall:.2f} s ({bare_cpu:.2f} s CPU) from question to answer;"
        f" ratio {cpu / bare_cpu:.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
