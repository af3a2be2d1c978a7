"""What goes into an image, by its path there: put together from this machine, nothing is written."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import agent_setup
from agent_setup.errors import ImageError
from agent_setup.images import libraries, packages

PROJECT: Final = "sdp-controller"
PACKAGES: Final = "/opt/sdp/lib"
"""Where packages are in an image."""
PYTHON: Final = "/usr/local/bin/python3"
ROOT: Final = Path(agent_setup.__file__).parents[1]
"""Where the project's own packages are here, installed or in their source tree."""
TOOLS: Final = ("sh", "cat", "chmod", "date", "env", "id", "ls", "mkdir", "rm", "sleep", "uname")
"""Of the system: what the go-ahead's wrapper uses, and a person who looks around."""
_LEFT_OUT: Final = frozenset(
    {
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "lib2to3",
        "site-packages",
        "dist-packages",
    }
)
"""Parts of Python's library that no program of ours uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an image is made of."""

    name: str
    modules: tuple[str, ...]
    """Top-level packages of the project."""
    extras: tuple[str, ...]
    """Of the project's optional parts, those whose packages are needed."""
    commands: tuple[str, ...] = ()
    """Programs of the system that ours start."""
    prepare: tuple[str, ...] = ()
    """What is run once in a container, whose changes belong to the image: it compiles what programs would
    otherwise compile whenever they start."""


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="sdp-pipelines",
            modules=("pipelines",),
            extras=("pipelines", "imaging"),
            commands=("redis-server",),
            prepare=("python3", "-m", "pipelines.warm_up"),
        ),
        Recipe(
            name="sdp-controller",
            modules=("scheduler", "sdpcontroller", "katcp_iface", "pipelines", "agent_setup"),
            extras=(),
        ),
    )
}


@dataclass(slots=True)
class Contents:
    """Files and links of an image, by their path there."""

    files: dict[str, Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def collect(recipe: Recipe) -> Contents:
    """Return what an image consists of.

    Raises
    ------
    ImageError
        If a package or program is not installed here.
    """
    contents = Contents()
    _add_packages(contents, recipe)
    _add_python(contents)
    for command in (*TOOLS, *recipe.commands):
        _add_command(contents, command)
    elf = [path for path in contents.files.values() if _may_be_elf(path) and libraries.is_elf(path)]
    carried = {path.resolve() for path in contents.files.values()}
    for name, path in libraries.needed_by(elf).items():
        if path not in carried:
            contents.files[name] = path
    contents.texts |= {
        "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    return contents


def _add_packages(contents: Contents, recipe: Recipe) -> None:
    needed = packages.needed_by(PROJECT, recipe.extras)
    del needed[PROJECT]
    for distribution in needed.values():
        for name, path in packages.installed_files(distribution):
            contents.files[f"{PACKAGES}/{name}"] = path
    for module in recipe.modules:
        if not (ROOT / module).is_dir():
            raise ImageError(f"there is no package {module} in {ROOT}")
        for path in _walk(ROOT / module, frozenset({"ansible", "__pycache__"})):
            contents.files[f"{PACKAGES}/{path.relative_to(ROOT)}"] = path


def _add_python(contents: Contents) -> None:
    """Add the interpreter and its library where they are here: it finds the one by the other's path."""
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    contents.files[str(interpreter)] = interpreter
    contents.links[PYTHON] = str(interpreter)
    left_out = _LEFT_OUT | {Path(sysconfig.get_config_var("LIBPL") or "config").name}
    for name in ("stdlib", "platstdlib"):
        folder = Path(sysconfig.get_path(name, vars={"installed_base": sys.base_prefix})).resolve()
        contents.files |= {str(path): path for path in _walk(folder, left_out)}


def _add_command(contents: Contents, command: str) -> None:
    found = shutil.which(command)
    if found is None:
        raise ImageError(f"{command}, which the image shall hold, is not installed")
    contents.files[f"/bin/{command}"] = Path(found).resolve()


def _walk(folder: Path, without: frozenset[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in without:
            continue
        if path.is_dir():
            yield from _walk(path, without)
        elif path.is_file():
            yield path


def _may_be_elf(path: Path) -> bool:
    return ".so" in path.name or os.access(path, os.X_OK)


def folders(paths: Sequence[str]) -> list[str]:
    """Return the folders that paths lie in, each after the one that it lies in itself."""
    found = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted(found - {"/"})
