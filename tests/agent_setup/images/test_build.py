"""The file system of an image, as an archive."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from agent_setup.errors import ImageError
from agent_setup.images import build, libraries
from agent_setup.images.contents import RECIPES, Contents, Recipe, collect


def test_packages_belong_to_the_programs_user_and_the_rest_to_root(tmp_path: Path) -> None:
    program, again = tmp_path / "a.py", tmp_path / "b.py"
    program.write_text("print()\n")
    again.hardlink_to(program)
    os.utime(program, ns=(0, 1_700_000_000_123_456_700))
    contents = Contents(
        files={"/opt/sdp/lib/a.py": program, "/opt/sdp/lib/b.py": again, "/bin/a": program},
        links={"/usr/local/bin/python3": "/bin/a"},
        texts={"/etc/group": "root:x:0:\n"},
    )
    stream = io.BytesIO()
    build.write(contents, stream, owner=(1000, 100))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        members = {f"/{m.name}": m for m in archive}
        assert archive.extractfile("opt/sdp/lib/b.py").read() == b"print()\n"  # type: ignore[union-attr]
    assert (members["/opt/sdp/lib"].uid, members["/opt/sdp/lib/a.py"].gid) == (1000, 100)
    assert (members["/bin/a"].uid, members["/tmp"].mode) == (0, 0o1777)  # noqa: S108
    assert members["/opt/sdp/lib/a.py"].mtime == program.stat().st_mtime
    assert members["/usr/local/bin/python3"].linkname == "/bin/a"
    order = list(members)
    assert all(order.index(str(Path(n).parent)) < order.index(n) for n in order if n.count("/") > 1)


def test_the_interpreter_comes_with_what_it_is_linked_with() -> None:
    found = libraries.needed_by([Path(sys.executable).resolve()])
    assert any(name.endswith("libc.so.6") for name in found)
    assert all(path.is_file() and not path.is_symlink() for path in found.values())
    assert all(".." not in name for name in found)


def test_an_image_of_the_programs_has_none_of_the_controller() -> None:
    names = set(collect(RECIPES["sdp-pipelines"]).files)
    assert "/opt/sdp/lib/pipelines/telstate/__main__.py" in names
    assert "/opt/sdp/lib/numpy/__init__.py" in names
    assert {"/bin/sh", "/bin/rm", "/bin/redis-server"} <= names
    for absent in ("scheduler", "sdpcontroller", "pytest", "mypy"):
        assert not any(name.startswith(f"/opt/sdp/lib/{absent}/") for name in names)


def engine() -> bool:
    return (
        shutil.which("docker") is not None
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    )


def said(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(not engine(), reason="no Docker engine answers")
def test_an_image_is_prepared_once_and_takes_the_place_of_the_one_before() -> None:
    shell = Path(shutil.which("busybox") or "")
    if not shell.is_file():
        pytest.skip("busybox is not installed")
    contents = Contents(files={"/bin/sh": shell}, texts={"/opt/sdp/lib/x": "1\n"})
    reference = f"sdp-test-build:{os.getpid()}"
    make = ("sh", "-c", "echo 2 > /opt/sdp/lib/y")
    try:
        build.build(contents, reference, owner=(1000, 100), labels={"a": "b c"}, prepare=make)
        first = said("images", "--quiet", "--no-trunc", reference)
        show = "{{.Config.User}} {{.Config.Cmd}} {{.Config.Labels.a}}"
        assert said("inspect", "--format", show, reference) == "1000:100 [python3] b c"
        assert said("run", "--rm", reference, "sh", "-c", "read y </opt/sdp/lib/y; echo $y") == "2"
        build.build(contents, reference, owner=(0, 0), labels={})
        assert first not in said("images", "--all", "--quiet", "--no-trunc").split()
        with pytest.raises(ImageError, match=r"^docker start: .*"):
            build.build(
                contents, reference, owner=(0, 0), labels={}, prepare=("sh", "-c", "exit 3")
            )
    finally:
        subprocess.run(["docker", "rmi", "--force", reference], capture_output=True, check=False)


def test_what_is_not_here_is_named() -> None:
    recipe = Recipe(name="x", modules=(), extras=(), commands=("no-such-program",))
    with pytest.raises(ImageError, match="no-such-program, which the image shall hold"):
        collect(recipe)
