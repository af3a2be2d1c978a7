"""What an installed distribution needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_setup.errors import ImageError
from agent_setup.images import packages


def installed(folder: Path, name: str, *requires: str, extras: tuple[str, ...] = ()) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.py").write_text("")
    (info / "RECORD").write_text(f"{name}.py,,\n../../../bin/{name},,\n{name}/gone.py,,\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_all_that_is_needed_is_found_once_however_it_is_written(site: Path) -> None:
    installed(
        site, "xq_top", "XQ.left", "xq-right>=1; python_version>'3'", "xq-none; extra=='none'"
    )
    installed(site, "xq_left", "xq_right", "xq_old; python_version<'3'")
    installed(site, "xq_right", "xq_top", "xq_far; extra=='far'", extras=("far",))
    installed(site, "xq_far")
    assert set(packages.needed_by("xq_top", ())) == {"xq-top", "xq-left", "xq-right"}
    installed(site, "xq_wide", "xq_right", "xq_right[far]")
    assert set(packages.needed_by("xq_wide", ())) >= {"xq-right", "xq-far"}


def test_extras_are_followed_when_they_are_asked_for(site: Path) -> None:
    installed(site, "xq_top", "xq_more; extra=='more'", extras=("more",))
    installed(site, "xq_more")
    assert set(packages.needed_by("xq_top", ())) == {"xq-top"}
    assert set(packages.needed_by("xq_top", ("more",))) == {"xq-top", "xq-more"}


def test_what_is_missing_is_named_with_who_needs_it(site: Path) -> None:
    installed(site, "xq_top", "xq_gone")
    with pytest.raises(ImageError, match="xq_gone, which xq_top needs, is not installed"):
        packages.needed_by("xq_top", ())


def test_scripts_and_files_that_are_gone_are_left_out(site: Path) -> None:
    installed(site, "xq_top")
    (distribution,) = packages.needed_by("xq_top", ()).values()
    assert [name for name, _ in packages.installed_files(distribution)] == ["xq_top.py"]
