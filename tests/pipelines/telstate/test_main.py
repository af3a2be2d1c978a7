"""The telescope state task: a Redis server in the program's place."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from pipelines.common.errors import ProgramError
from pipelines.telstate.__main__ import command, server_arguments
from tests.conftest import PATIENCE


def start(port: int, directory: Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.telstate", f"--port={port}", f"--dir={directory}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment or None,
    )


def test_the_process_becomes_the_server_and_saves_what_it_held(
    unused_port: int, tmp_path: Path
) -> None:
    process = start(unused_port, tmp_path)
    client = redis.Redis(port=unused_port, retry_on_error=[redis.ConnectionError])
    try:
        assert process.stdout is not None
        while b"Ready to accept connections" not in process.stdout.readline():
            assert process.poll() is None
        client.set("key", "value")
        assert client.info("server")["process_id"] == process.pid
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert (tmp_path / "telstate.rdb").read_bytes().startswith(b"REDIS")


def test_without_redis_one_line_names_the_package(unused_port: int, tmp_path: Path) -> None:
    process = start(unused_port, tmp_path, PATH=str(tmp_path))
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert errors.decode().splitlines() == [
        "error: redis-server is not installed: install Debian's package redis-server"
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--port"),
        (["--port=x"], "port"),
        (["--port=0"], "must not be 0"),
        (["--port=5000", "--host=no-such"], "no IP address"),
        (["--port=5000", "--dir=/no/such"], "no directory"),
    ],
)
def test_malformed_options_are_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        command(argv)


def test_only_loopback_is_protected(tmp_path: Path) -> None:
    def protected(host: str) -> str:
        arguments = server_arguments("redis-server", host, 5000, tmp_path)
        return arguments[arguments.index("--protected-mode") + 1]

    assert protected("127.0.0.1") == protected("::1") == "yes"
    assert protected("10.0.0.1") == "no"
