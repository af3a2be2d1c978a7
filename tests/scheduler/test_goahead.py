from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from scheduler.errors import LaunchError
from scheduler.goahead import (
    MAX_POLLS,
    GoAhead,
    digest,
    new_token,
    wrapper_environment,
    wrapper_script,
)
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


@pytest.fixture
async def server() -> AsyncIterator[GoAhead]:
    server = GoAhead(poll_seconds=0.2)
    await server.start()
    yield server
    await server.stop()


async def ask(server: GoAhead, token: str, task_id: str = TASK) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{server.base_url}/tasks/{task_id}/go-ahead",
            headers={"Authorization": f"Bearer {token}"},
        ) as response,
    ):
        return response.status, await response.text()


async def test_a_task_hears_nothing_until_it_is_let_through(server: GoAhead) -> None:
    token = new_token()
    server.open(TASK, token)
    assert (await ask(server, token))[0] == 204
    question = asyncio.create_task(ask(server, token))
    server.let_through(TASK, {"telstate": "10.0.0.1:31000"})
    status, body = await question
    assert (status, json.loads(body)["values"]) == (200, {"telstate": "10.0.0.1:31000"})


async def test_the_answer_is_the_same_however_often_it_is_asked_for(server: GoAhead) -> None:
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK, {"a": "1"})
    server.let_through(TASK, {"a": "2"})
    answers = {await ask(server, token) for _ in range(3)}
    assert len(answers) == 1
    assert json.loads(answers.pop()[1])["values"] == {"a": "1"}


async def test_a_digest_is_enough_to_know_the_owner_by_and_opens_nothing(server: GoAhead) -> None:
    token = new_token()
    server.open(TASK, digest(token))
    server.let_through(TASK)
    assert (await ask(server, token))[0] == 200
    for wrong in (digest(token), new_token(), ""):
        assert (await ask(server, wrong))[0] == 403


async def test_only_the_owner_of_the_token_is_answered(server: GoAhead) -> None:
    server.open(TASK, new_token())
    server.let_through(TASK)
    for wrong in ("", "x", new_token()):
        assert (await ask(server, wrong))[0] == 403


async def test_unknown_and_hopeless_tasks_are_told_apart(server: GoAhead) -> None:
    token = new_token()
    server.open(TASK, token)
    question = asyncio.create_task(ask(server, token))
    await asyncio.sleep(0)
    server.close(TASK)
    assert (await question)[0] == 410
    assert (await ask(server, token))[0] == 410
    server.forget(TASK)
    assert (await ask(server, token))[0] == 404


async def test_who_does_not_lead_any_more_decides_nothing() -> None:
    """It gives its launch up as another controller goes on with it: no task may end for that."""
    leads, token = True, new_token()
    server = GoAhead(poll_seconds=5, may_act=lambda: leads)
    await server.start()
    try:
        server.open(TASK, token)
        question = asyncio.create_task(ask(server, token))
        while not server.waiting(TASK):  # noqa: ASYNC110 - it is the server that waits
            await asyncio.sleep(0)
        leads = False
        server.forget(TASK)
        assert (await question)[0] == 404
    finally:
        await server.stop()


async def test_a_task_that_was_let_through_and_then_ends_does_not_go_again(server: GoAhead) -> None:
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK)
    server.close(TASK)
    assert (await ask(server, token))[0] == 410


async def test_open_questions_are_bounded() -> None:
    token = new_token()
    server = GoAhead(poll_seconds=PATIENCE)
    await server.start()
    try:
        server.open(TASK, token)
        questions = [asyncio.create_task(ask(server, token)) for _ in range(MAX_POLLS + 2)]
        refused = itertools.islice(asyncio.as_completed(questions), 2)
        assert [(await answer)[0] for answer in refused] == [429, 429]
        assert server.waiting(TASK) == MAX_POLLS
        server.let_through(TASK)
        statuses = sorted([status for status, _ in await asyncio.gather(*questions)])
        assert statuses == [200] * MAX_POLLS + [429] * 2
    finally:
        await server.stop()


async def test_too_many_late_values_are_refused(server: GoAhead) -> None:
    server.open(TASK, new_token())
    with pytest.raises(LaunchError):
        server.let_through(TASK, {"a": "x" * 20000})


async def test_a_thousand_waiting_tasks_go_within_a_second(server: GoAhead) -> None:
    tokens = {f"graph.t{n}.0": new_token() for n in range(1000)}
    for task_id, token in tokens.items():
        server.open(task_id, token)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def question(task_id: str, token: str) -> int:
            url = f"{server.base_url}/tasks/{task_id}/go-ahead"
            while True:
                async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as reply:
                    if reply.status != 204:
                        return reply.status

        questions = [asyncio.create_task(question(*item)) for item in tokens.items()]
        done, _ = await asyncio.wait(questions, timeout=0.1)
        assert not done
        began = time.process_time()
        for task_id in tokens:
            server.let_through(task_id)
        assert time.process_time() - began < 1
        assert set(await asyncio.gather(*questions)) == {200}


# ---------------------------------------------------------------------- the wrapper


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - other processes do not tell us
            await asyncio.sleep(0.01)


def command_lines() -> set[bytes]:
    lines = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines.add((folder / "cmdline").read_bytes())
    return lines


def current_umask() -> int:
    os.umask(mask := os.umask(0o22))
    return mask


@pytest.fixture(params=["whole system", "only BusyBox"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    return Image(os.environ["PATH"]) if request.param == "whole system" else busybox_only(tmp_path)


@pytest.mark.parametrize("client", ["curl", "wget", "python3"])
@pytest.mark.parametrize("shell", [("dash",), ("busybox", "sh"), ("bash", "--posix")])
async def test_the_wrapper_becomes_the_program_in_each_shell_with_each_client(
    server: GoAhead, tmp_path: Path, client: str, shell: tuple[str, ...]
) -> None:
    found = shutil.which(shell[0])
    if found is None:
        pytest.skip(f"{shell[0]} is not installed")
    token = new_token()
    server.open(TASK, token)
    path = bin_with(tmp_path, client)
    process = await run_wrapper(
        tmp_path,
        wrapper_environment(TASK, token, [server.base_url], 600),
        image=Image(path, (found, *shell[1:])),
    )
    asyncio.get_running_loop().call_later(0.5, server.let_through, TASK, {"x": 'it\'s {odd} "$x"'})
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert told["values"] == {"x": 'it\'s {odd} "$x"'}
    assert told["leaked"] == []
    assert told["own"] == "kept"
    assert told["umask"] == current_umask()
    assert not answers(tmp_path)


async def test_the_token_is_on_no_command_line(
    server: GoAhead, tmp_path: Path, image: Image
) -> None:
    token = new_token()
    server.open(TASK, token)
    process = await run_wrapper(
        tmp_path,
        wrapper_environment(TASK, token, [server.base_url], 600),
        image=image,
        command=(python(), "-c", ""),
    )
    client = b"wget" if image.shell else b"curl"
    lines: set[bytes] = set()

    def client_is_seen() -> bool:
        lines.update(command_lines())
        return any(server.base_url.encode() in line and client in line for line in lines)

    await until(client_is_seen)
    assert not any(token.encode() in line for line in lines)
    assert all(path.stat().st_mode & 0o077 == 0 for path in answers(tmp_path))
    server.let_through(TASK)
    assert await process.wait() == 0


async def test_the_wrapper_tries_every_controller(
    server: GoAhead, tmp_path: Path, image: Image
) -> None:
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK)
    bases = ["http://127.0.0.1:9", server.base_url]
    process = await run_wrapper(tmp_path, wrapper_environment(TASK, token, bases, 600), image=image)
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0
    assert json.loads(out)["values"] == {}


@contextlib.asynccontextmanager
async def controller(answer: Callable[[int], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """A controller that answers the n-th question as told; yields its base URL."""
    count = 0

    async def ask(_: web.Request) -> web.Response:
        nonlocal count
        count += 1
        return await answer(count)

    application = web.Application()
    application.router.add_route("*", "/tasks/{task}/go-ahead", ask)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


async def go(_: int = 0) -> web.Response:
    return web.Response(text='{"verdict": "go", "values": {"x": "1"}}\n')


@pytest.mark.parametrize(
    "nonsense",
    [
        web.Response,
        lambda **_: web.Response(text="", status=200),
        lambda **_: web.Response(text='<html>{"verdict": "go"</html>', status=200),
        lambda **_: web.Response(text='{"verdict": "later"}', status=429),
        lambda **_: web.Response(body=b"\0" * 10000, status=200),
    ],
)
async def test_the_wrapper_asks_again_after_an_error_or_nonsense(
    tmp_path: Path, image: Image, nonsense: Callable[..., web.Response]
) -> None:
    async def answer(count: int) -> web.Response:
        return nonsense(status=500) if count <= 2 else await go()

    async with controller(answer) as base:
        environment = wrapper_environment(TASK, new_token(), [base], 600)
        process = await run_wrapper(tmp_path, environment, image=image)
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, err
        assert json.loads(out)["values"] == {"x": "1"}


async def test_the_wrapper_finds_the_controller_that_took_over(
    tmp_path: Path, image: Image
) -> None:
    """The first one is cut off in the middle of a question; another one serves the same paths."""
    asked = asyncio.Event()

    async def hang(_: int) -> web.Response:
        asked.set()
        await asyncio.sleep(3600)
        return await go()

    async with controller(go) as second:
        async with controller(hang) as first:
            process = await run_wrapper(
                tmp_path,
                wrapper_environment(TASK, new_token(), [first, second], 600),
                image=image,
            )
            await asyncio.wait_for(asked.wait(), PATIENCE)
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0
    assert json.loads(out)["values"] == {"x": "1"}


async def test_a_signal_reaches_the_program_and_the_wrapper_is_no_more(
    server: GoAhead, tmp_path: Path, image: Image
) -> None:
    """The program is the process that was started: its pid, its exit status."""
    token = new_token()
    server.open(TASK, token)
    server.let_through(TASK)
    code = (
        "import os, signal, sys; print(os.getpid(), flush=True); signal.sigwait({15}); sys.exit(9)"
    )
    code = code.replace("print(", "signal.pthread_sigmask(signal.SIG_BLOCK, {15}); print(", 1)
    process = await run_wrapper(
        tmp_path,
        wrapper_environment(TASK, token, [server.base_url], 600),
        image=image,
        command=(python(), "-c", code),
    )
    assert process.stdout is not None
    assert int(await asyncio.wait_for(process.stdout.readline(), PATIENCE)) == process.pid
    process.terminate()
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 9
    await process.communicate()


async def test_the_wrapper_outlives_a_controller_that_does_not_know_the_task_yet(
    server: GoAhead, tmp_path: Path
) -> None:
    token = new_token()
    process = await run_wrapper(tmp_path, wrapper_environment(TASK, token, [server.base_url], 600))
    await asyncio.sleep(0.3)
    server.open(TASK, token)
    server.let_through(TASK)
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


@pytest.mark.parametrize(
    ("right", "said", "status"), [(False, b"denied", 126), (True, b"gone", 126)]
)
async def test_the_wrapper_ends_when_the_controller_says_no(
    server: GoAhead, tmp_path: Path, image: Image, right: bool, said: bytes, status: int
) -> None:
    token = new_token()
    server.open(TASK, token)
    server.close(TASK)
    environment = wrapper_environment(TASK, token if right else new_token(), [server.base_url], 600)
    process = await run_wrapper(tmp_path, environment, image=image)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == status
    assert not answers(tmp_path)
    assert said in err


async def test_the_wrapper_gives_up_at_its_deadline(tmp_path: Path, image: Image) -> None:
    environment = wrapper_environment(TASK, new_token(), ["http://127.0.0.1:9"], 1)
    process = await run_wrapper(tmp_path, environment, image=image)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 124
    assert not answers(tmp_path)
    assert b"no go-ahead within 1 s" in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_ends_the_wait_at_once_and_leaves_nothing(
    server: GoAhead, tmp_path: Path, image: Image, number: signal.Signals, status: int
) -> None:
    token = new_token()
    server.open(TASK, token)
    environment = wrapper_environment(TASK, token, [server.base_url], 600)
    process = await run_wrapper(tmp_path, environment, image=image)
    await until(lambda: server.waiting(TASK) > 0)
    assert answers(tmp_path)
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), PATIENCE) == status
    assert not answers(tmp_path)
    await until(lambda: not any_of_session(process.pid))


def any_of_session(session: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False


async def test_without_any_client_the_wrapper_says_so(tmp_path: Path) -> None:
    path = bin_with(tmp_path, "true")
    environment = wrapper_environment(TASK, new_token(), ["http://127.0.0.1:9"], 600)
    process = await run_wrapper(tmp_path, environment, image=Image(path))
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 125
    assert b"none of curl" in err


async def test_a_wget_that_sends_no_file_is_no_client(tmp_path: Path) -> None:
    """BusyBox before 1.34 would show the token on its command line."""
    path = bin_with(tmp_path, "true")
    (tmp_path / "bin/wget").write_text(
        "#!/bin/sh\necho 'Usage: wget [--header STR] URL' >&2; exit 1\n"
    )
    (tmp_path / "bin/wget").chmod(0o755)
    environment = wrapper_environment(TASK, new_token(), ["http://127.0.0.1:9"], 600)
    process = await run_wrapper(tmp_path, environment, image=Image(path))
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 125
    assert b"BusyBox 1.34" in err


async def test_a_question_that_hangs_is_asked_again(tmp_path: Path) -> None:
    """BusyBox' wget has no time limit of its own in this build; the limit is made short for this."""
    short = wrapper_script().replace("timeout 30", "timeout 1")
    assert short != wrapper_script()

    async def answer(count: int) -> web.Response:
        if count == 1:
            await asyncio.sleep(3600)
        return await go()

    async with controller(answer) as base:
        image = busybox_only(tmp_path)
        process = await run_wrapper(
            tmp_path, wrapper_environment(TASK, new_token(), [base], 600), image=image, script=short
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out)["values"] == {"x": "1"}
    await until(lambda: not any_of_session(process.pid))


async def test_a_form_is_answered_with_the_verdict_alone(server: GoAhead) -> None:
    token = new_token()
    url = f"{server.base_url}/tasks/{TASK}/go-ahead"
    async with aiohttp.ClientSession() as session:

        async def asked(**form: str) -> str:
            async with session.post(url, data=form) as response:
                assert response.status == 200
                return str((await response.json())["verdict"])

        assert await asked(token=token) == "unknown"
        server.open(TASK, token)
        assert await asked() == await asked(token=new_token()) == "denied"
        assert await asked(token=token) == "not yet"
        server.let_through(TASK)
        assert await asked(token=token) == "go"
        server.close(TASK)
        assert await asked(token=token) == "gone"
        async with session.post(url, data={"token": "x" * 5000}) as response:
            assert response.status == 413, "a question is bounded"


def test_the_wrapper_is_sent_without_its_comments() -> None:
    assert not [line for line in wrapper_script().splitlines() if line.lstrip().startswith("#")]
    assert len(wrapper_script()) < 7000
