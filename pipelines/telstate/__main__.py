"""Become the Redis server that holds the telescope state of one product.

Ready when the port accepts connections. Nothing is saved while it runs, since the state lives as long as
its product; SIGTERM and SIGINT make it write ``telstate.rdb`` to its directory for whoever asks what happened.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipelines.common.errors import ProgramError
from pipelines.common.program import make_bare_parser, port_number, report_failure

SERVER: Final = "redis-server"


def server_arguments(server: str, host: str, port: int, directory: Path) -> list[str]:
    """Command line of the Redis server.

    Parameters
    ----------
    server
        Path of the executable.
    host
        Address to listen on.
    port
        TCP port.
    directory
        Where the state is written at the end.
    """
    # Protected mode turns away everybody who is not on this host, which is only right on loopback.
    protected = "yes" if ipaddress.ip_address(host).is_loopback else "no"
    settings = {
        "bind": host,
        "port": str(port),
        "protected-mode": protected,
        "dir": str(directory),
        "dbfilename": "telstate.rdb",
        "save": "",
        "appendonly": "no",
        "shutdown-on-sigterm": "save",
        "shutdown-on-sigint": "save",
        "daemonize": "no",
        # 0: telescope state; 1: the data queue of quality assessment (pipelines.common.quality).
        "databases": "2",
    }
    return [server, *(part for key, value in settings.items() for part in (f"--{key}", value))]


def parser() -> argparse.ArgumentParser:
    """Command line of the program."""
    result = make_bare_parser("pipelines.telstate", "Telescope state of one product (Redis)")
    result.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    result.add_argument("--port", type=port_number, required=True, help="port to listen on")
    result.add_argument("--dir", type=Path, default=Path(), help="where the state is saved [.]")
    return result


def command(argv: Sequence[str]) -> list[str]:
    """Command line of the server for a command line of this program.

    Raises
    ------
    ProgramError
        An option is malformed, the directory is not there, or Redis is not installed.
    """
    options = parser().parse_args(argv)
    server = shutil.which(SERVER)
    if server is None:
        raise ProgramError(f"{SERVER} is not installed: install Debian's package redis-server")
    if options.port == 0:
        raise ProgramError("--port must not be 0: others have to know it")
    try:
        ipaddress.ip_address(options.host)
    except ValueError as exc:
        raise ProgramError(f"--host {options.host!r} is no IP address") from exc
    if not options.dir.is_dir():
        raise ProgramError(f"--dir {options.dir} is no directory")
    return server_arguments(server, options.host, options.port, options.dir.resolve())


def main() -> int:
    """Start the server in place of this process."""
    try:
        arguments = command(sys.argv[1:])
        # No shell is the point: the task's process is the server itself.
        os.execv(arguments[0], arguments)  # noqa: S606
    except (ProgramError, OSError) as exc:
        return report_failure(exc)


if __name__ == "__main__":
    sys.exit(main())
