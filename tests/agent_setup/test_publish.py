"""Files are replaced whole or not at all, and what is not ours is left alone."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_setup import publish
from agent_setup.errors import DiscoveryError
from agent_setup.forms import Form

OLD = {"attributes/sdp.rack": "r1\n", "attributes/sdp.island": "i\n", "resources/cpus": "2\n"}
NEW = {"attributes/sdp.rack": "r2\n", "resources/cpus": "2\n", "resources/mem": "5\n"}


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_is_no_longer_true_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    publish.publish(Form.DIRECTORY, tmp_path, OLD)
    (tmp_path / "attributes/os").write_text("debian\n")
    (tmp_path / "attributes/link").symlink_to("os")
    (tmp_path / "work_dir").write_text("/var/lib/mesos\n")
    changed = publish.publish(Form.DIRECTORY, tmp_path, NEW)
    assert [line for change in changed for line in change.lines()] == [
        "- attributes/sdp.island: i",
        "~ attributes/sdp.rack: r1 -> r2",
        "+ resources/mem: 5",
    ]
    foreign = {"attributes/os": "debian\n", "attributes/link": "debian\n"}
    assert contents(tmp_path) == NEW | foreign | {"work_dir": "/var/lib/mesos\n"}
    assert (tmp_path / "attributes/link").is_symlink()
    assert (tmp_path / "attributes").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "attributes/sdp.rack").stat().st_mode & 0o777 == 0o644


def test_the_same_again_touches_nothing(tmp_path: Path) -> None:
    publish.publish(Form.DIRECTORY, tmp_path, NEW)
    before = [(tmp_path / name).stat().st_ino for name in ("attributes", *NEW)]
    assert publish.publish(Form.DIRECTORY, tmp_path, NEW) == []
    assert [(tmp_path / name).stat().st_ino for name in ("attributes", *NEW)] == before


class Crash(BaseException):
    """The process ends here."""


STEPS = ("_exchange", "_fill", "_synchronize", "_copy_foreign", "_build", "_put")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("step", STEPS)
def test_whenever_it_is_interrupted_a_directory_is_old_or_new(
    step: str, count: int, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish.publish(Form.DIRECTORY, tmp_path, OLD)
    real: Callable[..., object] = getattr(publish, step)
    calls = 0

    def crashing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls <= count:
            return real(*arguments)
        if after:
            real(*arguments)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(publish, step, crashing)
        with contextlib.suppress(Crash):
            publish.publish(Form.DIRECTORY, tmp_path, NEW)
    for folder in publish.DIRECTORIES:
        there = {f"{folder}/{name}": text for name, text in contents(tmp_path / folder).items()}
        allowed = [{k: v for k, v in f.items() if k.startswith(folder)} for f in (OLD, NEW)]
        assert there in allowed
    publish.publish(Form.DIRECTORY, tmp_path, NEW)
    assert contents(tmp_path) == NEW, "the next run completes it, and nothing else is left"


@pytest.mark.parametrize("step", ["_fill", "_synchronize"])
def test_a_single_file_is_old_or_new(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "sdp-agent"
    publish.publish(Form.ENVIRONMENT, target, {"": "old\n"})

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(publish, step, crash)
        with pytest.raises(Crash):
            publish.publish(Form.ENVIRONMENT, target, {"": "new\n"})
    assert contents(tmp_path) in ({"sdp-agent": "old\n"}, {"sdp-agent": "new\n"})


def test_requests_to_end_wait_until_everything_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = publish._exchange

    def interrupted(one: Path, other: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        real(one, other)

    publish.publish(Form.DIRECTORY, tmp_path, OLD)
    monkeypatch.setattr(publish, "_exchange", interrupted)
    # A shell starts what it puts into the background with SIGINT ignored: then nothing would be raised.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            publish.publish(Form.DIRECTORY, tmp_path, NEW)
    finally:
        signal.signal(signal.SIGINT, before)
    assert contents(tmp_path) == NEW


def test_a_file_system_that_cannot_exchange_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish.publish(Form.DIRECTORY, tmp_path, OLD)

    def unable(*_: object) -> None:
        raise OSError(errno.EINVAL, "no exchange")

    monkeypatch.setattr(publish, "_exchange", unable)
    with pytest.raises(DiscoveryError, match=r"cannot be written: .* no exchange"):
        publish.publish(Form.DIRECTORY, tmp_path, NEW)
    assert contents(tmp_path) == OLD


def test_where_nothing_can_be_written_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiscoveryError, match="cannot be written"):
        publish.publish(Form.JSON, tmp_path / "file", {"attributes": "a:1\n"})
