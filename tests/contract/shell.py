"""The programs of the recorded tasks, played in virtual time: what they do, and when and how they end.

A tiny shell that knows the commands of the recordings and raises on any other, so that none is played by guess.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_HARMLESS = ("echo", "env", "nproc", "ls", "cat", "test")
_SIGNALLED = re.compile(r"kill -(\d+) \$\$")
_TRAP = re.compile(r"""trap (["'])(.*?)\1 TERM""")
_SERVER = re.compile(r"exec python3 -m http\.server --bind \S+ (\d+)")


@dataclass
class Program:
    """What a task does from the moment at which it runs."""

    seconds: float | None = None
    """After which it ends by itself; None: never."""
    status: int = 0
    """Exit status then; negative: a signal."""
    on_term: str = "die"
    """``die``, ``ignore``, or the commands of a trap."""
    files: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)
    """By name: when it appears and disappears."""
    output: dict[str, str] = field(default_factory=lambda: {"stdout": "", "stderr": ""})
    """What it writes at once, by stream."""
    server: int | None = None
    """Port of an HTTP server that knows ``/`` only."""

    def has_file(self, name: str, elapsed: float) -> bool:
        """Whether a file is there after so many seconds."""
        present = False
        for when, there in self.files.get(name, ()):
            if when <= elapsed:
                present = there
        return present


def program(task: Mapping[str, Any]) -> Program:
    """Return what a ``TaskInfo`` does."""
    command = task.get("command", {})
    docker = task.get("container", {}).get("type") == "DOCKER"
    if command.get("shell", True):
        return _shell(command["value"])
    value, arguments = command.get("value"), list(command.get("arguments", []))
    if docker and value is not None:
        arguments = [value, *arguments]
    if not docker:
        arguments = arguments or [value]
    return _executed(arguments, docker=docker)


def _executed(arguments: list[str], *, docker: bool) -> Program:
    if not arguments:  # the image's own entry point: a shell without input
        return Program(0.0)
    name = arguments[0].rpartition("/")[2]
    if name == "sleep":
        return Program(float(arguments[1]), on_term="ignore" if docker else "die")
    if name == "sh":
        found = _shell(arguments[-1])
        if docker and found.on_term == "die":
            found.on_term = "ignore"  # process 1 of a container ignores what it does not catch
        return found
    if arguments == ["true"]:
        return Program(0.0)
    if arguments == ["/no/such"]:  # no container comes of it
        return Program()
    if arguments == ["/no/such/file"]:
        return Program(0.0, status=1)
    raise ValueError(f"unknown program {arguments}")


def _shell(text: str) -> Program:
    found = Program()
    if (trap := _TRAP.match(text)) is not None:
        found.on_term = trap[2]
        text = text[trap.end() :].lstrip("; ")
    elapsed = 0.0
    for step in (part.strip() for part in text.split(";")):
        words = step.split()
        if words[:1] == ["exec"] and words[1] in ("sleep", "exit"):
            words = words[1:]
        match words:
            case ["sleep", count]:
                elapsed += float(count)
            case ["touch" | "rm" as what, name]:
                found.files.setdefault(name.strip("/"), []).append((elapsed, what == "touch"))
            case ["exit", status]:
                return _ended(found, elapsed, int(status))
            case ["true"] | ["kill", "-9", "1"]:
                pass
            case ["while", *_]:
                return found
            case ["nosuchcommand"]:
                return _ended(found, elapsed, 127)
            case ["x=a"]:  # grows until the kernel kills it
                return _ended(found, elapsed, -int(signal.SIGKILL))
            case ["echo", word]:
                found.output["stdout"] += f"{word}\n"
            case ["echo", word, ">&2"]:
                found.output["stderr"] += f"{word}\n"
            case [name, *_] if name in _HARMLESS:
                pass
            case _:
                if (server := _SERVER.match(step)) is not None:
                    found.server = int(server[1])
                    return found
                if (killed := _SIGNALLED.match(step)) is None:
                    raise ValueError(f"unknown command {step!r}")
                if len(text.split(";")) == 1:
                    return _ended(found, elapsed, -int(killed[1]))
    return _ended(found, elapsed, found.status)


def _ended(found: Program, seconds: float, status: int) -> Program:
    found.seconds, found.status = seconds, status
    return found
