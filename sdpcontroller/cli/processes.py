"""The processes that the demonstration consists of: started one by one, ended in the opposite order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdpcontroller.children import with_parent
from sdpcontroller.errors import ControllerError

_POLL: Final = 0.05
"""Seconds between two looks at whether a port answers."""


class ProcessError(ControllerError):
    """A process did not start, or died."""


@dataclass(slots=True)
class _Child:
    name: str
    process: asyncio.subprocess.Process
    log: Path
    patience: float

    def check_alive(self) -> None:
        """Raise what there is to say of a child that has ended."""
        status = self.process.returncode
        if status is not None:
            raise ProcessError(f"{self.name} ended with status {status}; {tail(self.log)}")


class Processes:
    """Children, each in a session of its own, with a log file each.

    Ctrl-C on the terminal does not reach them: it is this object that ends them, in order, when its
    context is left for whatever reason. Where it cannot (``kill -9``), they end all at once.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: list[_Child] = []

    async def __aenter__(self) -> Processes:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # The end of the children must come to its end, however often somebody presses Ctrl-C.
        ending = asyncio.ensure_future(self._end_all())
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(ending)
        ending.result()

    async def start(
        self,
        name: str,
        command: Sequence[str],
        options: Mapping[str, object],
        *,
        port: int,
        timeout: float,
        patience: float = 15,
        orphaned: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start a server and wait until it accepts connections.

        Parameters
        ----------
        name
            For people, and of the log file.
        command
            Program and arguments.
        options
            Further arguments, ``--name value`` each; those that are None are left out.
        port
            TCP port on 127.0.0.1 that it will listen on.
        timeout
            Seconds until it must listen.
        patience
            Seconds that it may take to end when it is told to.
        orphaned
            What it is sent when this process dies without having ended it.

        Raises
        ------
        ProcessError
            If it dies or does not listen in time, with the last lines of its log; if the port is taken, or
            there is no such program.
        """
        arguments = [
            text
            for option, value in options.items()
            if value is not None
            for text in (f"--{option}", str(value))
        ]
        if await _listens(port):
            raise ProcessError(
                f"{name} cannot be started: something listens on port {port} already"
            )
        child = await self._spawn(name, [*command, *arguments], patience, orphaned)
        try:
            async with asyncio.timeout(timeout):
                while not await _listens(port):
                    child.check_alive()
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise ProcessError(
                f"{name} does not listen on port {port} after {timeout:g} s; {tail(child.log)}"
            ) from None

    async def finish(self, name: str, command: Sequence[str]) -> None:
        """Run a program to its end.

        Raises
        ------
        ProcessError
            If it fails, with the last lines of its log, or there is no such program.
        """
        child = await self._spawn(name, command, 5, signal.SIGKILL)
        if await child.process.wait():
            child.check_alive()

    async def _spawn(
        self, name: str, command: Sequence[str], patience: float, orphaned: signal.Signals
    ) -> _Child:
        log = self._log_dir / f"{name}.log"
        with log.open("wb") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *with_parent(command, orphaned),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as exc:
                raise ProcessError(f"{name} cannot be started: {exc}") from exc
        child = _Child(name, process, log, patience)
        self._children.append(child)
        return child

    async def _end_all(self) -> None:
        while self._children:
            await _end(self._children.pop())


async def _end(child: _Child) -> None:
    process = child.process
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(child.patience):
                await process.wait()
        except TimeoutError:
            pass
    # Whatever is left of its session goes with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a log file, for an error message."""
    with contextlib.suppress(OSError):
        last = log.read_text(errors="replace").splitlines()[-lines:]
        return "its last words: " + " | ".join(last) if last else f"it said nothing ({log})"
    return f"its log {log} cannot be read"


def free_ports(count: int) -> list[int]:
    """Find TCP ports on 127.0.0.1 that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def free_block(ports: range, count: int) -> int:
    """Find TCP and UDP ports in a row on 127.0.0.1 that nobody uses now; return the first.

    Parameters
    ----------
    ports
        Where to look: in blocks from its beginning, in random order.
    count
        How many.

    Raises
    ------
    ProcessError
        If something listens in every block.
    """
    firsts = list(ports[: len(ports) - count + 1 : count])
    secrets.SystemRandom().shuffle(firsts)
    for first in firsts:
        if all(map(_unused, range(first, first + count))):
            return first
    raise ProcessError(
        f"no {count} ports in a row are free between {ports[0]} and {ports[-1]}: something listens "
        "in each block of them; see: ss -tulpn"
    )


def _unused(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as sock:
            if (
                kind is socket.SOCK_STREAM
            ):  # what of a connection that has ended is left does not matter
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def need_command(command: str, package: str) -> str:
    """Return the path of a system command.

    Raises
    ------
    ProcessError
        If it is not there; the message says what to type.
    """
    path = shutil.which(command)
    if path is None:
        raise ProcessError(f"{command} is not installed; try: sudo apt-get install {package}")
    return path
