from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from scheduler.sandbox_log import LINES, MAX_BYTES, MAX_LINE, last_lines


@dataclass
class Files:
    """An agent's files API."""

    texts: dict[str, str] = field(default_factory=dict)
    url: str = ""
    raw: bytes | None = None

    async def read(self, request: web.Request) -> web.Response:
        if self.raw is not None:
            return web.Response(body=self.raw)
        text = self.texts.get(request.query["path"])
        if text is None:
            return web.Response(status=404)
        if "offset" not in request.query:
            return web.json_response({"data": "", "offset": len(text)})
        offset, length = int(request.query["offset"]), int(request.query["length"])
        assert length <= MAX_BYTES
        return web.json_response({"data": text[offset : offset + length], "offset": offset})


@pytest.fixture(params=["/files/read", "/slave(1)/files/read"])
async def files(request: pytest.FixtureRequest) -> AsyncIterator[Files]:
    files = Files()
    application = web.Application()
    application.router.add_get(request.param, files.read)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    files.url = f"http://127.0.0.1:{runner.addresses[0][1]}/slave(1)"
    yield files
    await runner.cleanup()


def sandbox(name: str) -> str:
    return f"/frameworks/fw/executors/g.a.0/runs/latest/{name}"


async def test_the_end_of_a_long_log_is_found(files: Files) -> None:
    files.texts[sandbox("stderr")] = "".join(f"line {n}\n" for n in range(100_000))
    lines = await last_lines(files.url, "fw", "g.a.0")
    assert lines == tuple(f"line {n}" for n in range(100_000 - LINES, 100_000))


async def test_the_output_is_taken_when_there_are_no_errors(files: Files) -> None:
    files.texts |= {sandbox("stderr"): " \n", sandbox("stdout"): "hello\n"}
    assert await last_lines(files.url, "fw", "g.a.0") == ("hello",)


async def test_nothing_that_a_terminal_obeys_comes_through(files: Files) -> None:
    files.texts[sandbox("stderr")] = "\x1b[2Jboo\a\n" + "x" * 2000
    first, second = await last_lines(files.url, "fw", "g.a.0")
    assert first == "�[2Jboo�"
    assert len(second) == MAX_LINE


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"[]", b'{"data": 1}', b"{" * 10_000_000])
async def test_nonsense_is_no_log(files: Files, raw: bytes) -> None:
    files.raw = raw
    assert await last_lines(files.url, "fw", "g.a.0") == ()


@pytest.mark.parametrize("url", ["", "nonsense", "file:///etc/passwd", "http://127.0.0.1:9"])
async def test_an_agent_that_does_not_answer_is_no_error(url: str) -> None:
    assert await last_lines(url, "fw", "g.a.0", seconds=1.0) == ()
