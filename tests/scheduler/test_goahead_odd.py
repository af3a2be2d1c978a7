"""The go-ahead's wrapper among controllers that are none, and in images and sandboxes that lack something."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scheduler.goahead import GoAhead, new_token, wrapped, wrapper_environment
from tests.conftest import PATIENCE
from tests.scheduler.waiting import (
    TASK,
    Image,
    answers,
    bin_with,
    busybox_only,
    python,
    run_wrapper,
)

GO = b'{"verdict": "go", "values": {}}\n'
CLIENTS = ("curl", "wget", "python3", "BusyBox")


@dataclass
class Controller:
    """Answers everybody alike."""

    status: bytes = b"200 OK"
    body: bytes = GO
    head: bytes = b""
    asked: list[bytes] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            question = await reader.readuntil(b"\r\n\r\n")
            if question.startswith(b"POST"):
                length = int(question.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                question += await reader.readexactly(length)
            self.asked.append(question)
            self.asked_at.append(time.monotonic())
            writer.write(b"HTTP/1.1 %s\r\n%sConnection: close\r\n" % (self.status, self.head))
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(self.body), self.body))
            await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def there(self, host: str = "127.0.0.1") -> AsyncIterator[str]:
        """Be there; yields the base URL."""
        server = await asyncio.start_server(self.serve, host, 0)
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{server.sockets[0].getsockname()[1]}"
        server.close()
        await server.wait_closed()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(client: str, tmp_path: Path) -> Image:
    """An image with one client and hardly more."""
    if client == "BusyBox":
        return busybox_only(tmp_path)
    return Image(bin_with(tmp_path, client), ("/bin/sh",))


async def outcome(
    tmp_path: Path,
    image: Image,
    *bases: str,
    seconds: float = 600,
    token: str = "",
    **environment: str,
) -> tuple[int | None, str]:
    """Wait for the go-ahead, from these controllers; return the exit status and what was said."""
    told = wrapper_environment(TASK, token or new_token(), bases, seconds) | environment
    command = (python(), "-c", "")
    process = await run_wrapper(tmp_path, told, image=image, command=command)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, said.decode()


@pytest.mark.parametrize("status", [b"302 Found", b"307 Temporary Redirect"])
async def test_nobody_is_told_the_token_because_somebody_says_so(
    tmp_path: Path, client: str, image: Image, status: bytes
) -> None:
    if client == "BusyBox":
        pytest.skip("BusyBox' wget follows redirections, whatever it is told")
    token, elsewhere = new_token(), Controller()
    async with elsewhere.there() as there:
        away = Controller(status, b"", f"Location: {there}/\r\n".encode())
        async with away.there() as here:
            code, said = await outcome(tmp_path, image, here, seconds=1, token=token)
    assert code == 124, said
    assert not elsewhere.asked
    assert any(token.encode() in question for question in away.asked)
    assert "no answer yet" in said


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (b"200 OK", b""),
        (b"200 OK", b"\0\1\2"),
        (b"401 No", b"<html>go away</html>\n"),
        (b"502 Bad Gateway", b""),
    ],
)
async def test_who_is_no_controller_is_told_of_and_asked_with_pauses(
    tmp_path: Path, status: bytes, body: bytes
) -> None:
    image = Image(bin_with(tmp_path, "curl"), ("/bin/sh",))
    stranger = Controller(status, body)
    async with stranger.there() as base:
        code, said = await outcome(tmp_path, image, base, seconds=3)
    assert code == 124
    assert f"no answer yet: {base}: " in said
    assert said.count("no answer yet") == 1
    assert len(stranger.asked) <= 4


async def test_what_a_stranger_says_at_length_fills_no_disk(
    tmp_path: Path, client: str, image: Image
) -> None:
    stranger, controller = Controller(body=b"x" * 10_000_000), Controller()
    began = time.monotonic()
    async with stranger.there() as first, controller.there() as second:
        code, said = await outcome(tmp_path, image, first, second)
    assert code == 0, said
    assert time.monotonic() - began < PATIENCE / 4
    assert not answers(tmp_path)


@pytest.fixture
def hole() -> Iterator[str]:
    """A host that does not even refuse: whatever is sent there is lost."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # more than may wait
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield "http://{}:{}".format(*listener.getsockname())


async def test_a_controller_that_is_down_costs_seconds_and_only_once(
    tmp_path: Path, client: str, image: Image, hole: str
) -> None:
    if client == "BusyBox":
        pytest.skip("BusyBox' wget has one limit for everything, of half a minute")
    controller = GoAhead(poll_seconds=0.2)
    await controller.start()
    token = new_token()
    controller.open(TASK, token)
    began = time.monotonic()
    waiting = asyncio.create_task(outcome(tmp_path, image, hole, controller.base_url, token=token))
    asyncio.get_running_loop().call_later(6.0, controller.let_through, TASK)
    assert (await waiting)[0] == 0
    assert time.monotonic() - began < 9.5, "each question begins with who answered last"
    await controller.stop()


async def test_a_sandbox_that_takes_nothing_is_no_reason_not_to_go(
    tmp_path: Path, image: Image
) -> None:
    async with Controller().there() as base:
        code, said = await outcome(tmp_path, image, base, MESOS_SANDBOX="/no/such/folder")
    assert (code, said) == (0, "")
    assert not answers(tmp_path)


@pytest.mark.parametrize("client", ["python3"], indirect=True)
async def test_files_of_the_task_are_no_modules_of_the_wrapper(
    tmp_path: Path, image: Image
) -> None:
    """Neither in its sandbox nor where its environment says that modules are."""
    (tmp_path / "http.py").write_text("raise SystemExit('not that one')")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "email.py").write_text("raise SystemExit('nor that one')")
    told = wrapper_environment(TASK, new_token(), ["http://127.0.0.1:9"], 1)
    environment = told | {"PYTHONPATH": str(elsewhere)}
    process = await run_wrapper(tmp_path, environment, image=image)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert b"that one" not in said
    assert b"refused" in said


async def test_controllers_have_addresses_of_either_kind(tmp_path: Path, image: Image) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
    async with Controller().there("::1") as base:
        code, said = await outcome(tmp_path, image, base)
    assert code == 0, said


async def test_nothing_is_needed_of_standard_input_and_output(tmp_path: Path, image: Image) -> None:
    words = wrapped((python(), "-c", "open('ran', 'w')"))
    words = [*image.shell, *words[1:]]
    async with Controller().there() as base:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "closing", *words,
            cwd=tmp_path,
            env={
                "PATH": image.path,
                "TMPDIR": str(tmp_path),
                "MESOS_SANDBOX": str(tmp_path),
                **wrapper_environment(TASK, new_token(), [base], 600),
            },
        )  # fmt: skip
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    assert (tmp_path / "ran").exists()


async def test_a_command_arrives_as_it_was_given(tmp_path: Path) -> None:
    words = ("'", '"', "$x `y` \\", "a\nb\n", "µ€𝛑", "", "-n", "x" * 100_000, "*")
    code = "import json, sys; json.dump(sys.argv[1:], open('got', 'w'))"
    async with Controller().there() as base:
        process = await run_wrapper(
            tmp_path,
            wrapper_environment(TASK, new_token(), [base], 600),
            command=(python(), "-c", code, *words),
        )
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, said
    assert tuple(json.loads((tmp_path / "got").read_text())) == words
