"""What every program is: its options, its logging, its KATCP server, its orderly end.

A program's ``__main__`` is three lines: it makes a parser with `make_parser`, adds its options, and calls
`run` with a coroutine that builds its server::

    async def start(options: argparse.Namespace, resources: AsyncExitStack) -> ProgramServer: ...

    if __name__ == "__main__":
        sys.exit(run(make_parser(), start))

`run` opens the KATCP port only when that coroutine has returned: whoever can connect can take data.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, ClassVar, Final, NoReturn

import aiokatcp

from pipelines.common import quality
from pipelines.common import telstate as ts
from pipelines.common.endpoints import Endpoint, parse_endpoint
from pipelines.common.errors import PipelineError, ProgramError
from pipelines.common.spead import DEFAULT_INTERFACE

logger = logging.getLogger(__name__)

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMAT: Final = "%(asctime)s.%(msecs)03d %(levelname)s %(program)s %(name)s: %(message)s"
MAX_CAPTURE_BLOCK_ID: Final = (1 << 48) - 1
"""Capture block ids travel as 48-bit numbers."""

Start = Callable[[argparse.Namespace, AsyncExitStack], Awaitable["ProgramServer"]]


class ProgramServer(aiokatcp.DeviceServer):
    """A program's KATCP server; subclasses add requests and sensors.

    Parameters
    ----------
    options
        The program's options; ``host`` and ``port`` are used.
    """

    STAGE: ClassVar[str] = ""
    """Stage that its quality records are of; empty: it makes none."""
    QUALITY: ClassVar[tuple[str, ...]] = ()
    """Sensors that go into its quality records."""
    stream_name = ""
    """Stream that they are about."""

    VERSION = "sdp-pipelines-1.0"
    BUILD_STATE = "sdp-pipelines-1.0"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options.host, options.port)
        self.name: str = getattr(options, "name", self.STAGE or "program")
        self._device_status: aiokatcp.Sensor[aiokatcp.DeviceStatus] = aiokatcp.Sensor(
            aiokatcp.DeviceStatus,
            "device-status",
            "Overall state of the program",
            default=aiokatcp.DeviceStatus.OK,
            initial_status=aiokatcp.Sensor.Status.NOMINAL,
            status_func=_device_status_status,
        )
        self.sensors.add(self._device_status)

    @property
    def device_status(self) -> aiokatcp.DeviceStatus:
        """Overall state; setting it logs the change."""
        return self._device_status.value

    def set_device_status(self, status: aiokatcp.DeviceStatus, reason: str) -> None:
        """Change the overall state and log why."""
        if status is not self.device_status:
            level = logging.INFO if status is aiokatcp.DeviceStatus.OK else logging.WARNING
            logger.log(level, "device-status %s: %s", status.name.lower(), reason)
            self._device_status.value = status

    def report_quality(self, queue: quality.QualityQueue) -> None:
        """Put the sensors of :attr:`QUALITY` into the data queue until the server stops."""
        reporter = quality.Reporter(
            queue,
            self.sensors,
            self.QUALITY,
            task=self.name,
            stage=self.STAGE,
            stream=self.stream_name,
        )
        self.add_service_task(asyncio.create_task(reporter.run()))

    def add_sensor(
        self,
        kind: type[Any],
        name: str,
        description: str,
        *,
        units: str = "",
        default: Any = None,
        warn_above: float | None = None,
    ) -> aiokatcp.Sensor[Any]:
        """Add a sensor with a first value (its type's own default where none is given).

        Above `warn_above` its status is ``warn``, where a value is set without another.
        """
        sensor: aiokatcp.Sensor[Any] = aiokatcp.Sensor(
            kind,
            name,
            description,
            units,
            default=default,
            initial_status=aiokatcp.Sensor.Status.NOMINAL,
            status_func=partial(_status_above, math.inf if warn_above is None else warn_above),
        )
        self.sensors.add(sensor)
        return sensor


def _status_above(limit: float, value: Any) -> aiokatcp.Sensor.Status:
    worse = isinstance(value, int | float) and value > limit
    return aiokatcp.Sensor.Status.WARN if worse else aiokatcp.Sensor.Status.NOMINAL


def _device_status_status(value: aiokatcp.DeviceStatus) -> aiokatcp.Sensor.Status:
    return {
        aiokatcp.DeviceStatus.OK: aiokatcp.Sensor.Status.NOMINAL,
        aiokatcp.DeviceStatus.DEGRADED: aiokatcp.Sensor.Status.WARN,
        aiokatcp.DeviceStatus.FAIL: aiokatcp.Sensor.Status.ERROR,
    }[value]


def check_capture_block_id(cbid: str) -> str:
    """Check a capture block id that a client sent.

    Raises
    ------
    aiokatcp.FailReply
        It is not a string of decimal digits that fits in 48 bits.
    """
    if not (cbid.isascii() and cbid.isdigit() and len(cbid) <= 15) or (
        int(cbid) > MAX_CAPTURE_BLOCK_ID
    ):
        raise aiokatcp.FailReply(f"{cbid!r:.60} is no capture block id: expected decimal digits")
    return cbid


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit with status 2."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line in one line."""
        raise ProgramError(message)


def make_bare_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Make a parser without options, which raises `ProgramError` where argparse would exit."""
    # Abbreviated options would make it unclear which ones a stored configuration may fill in.
    return _Parser(prog=f"python3 -m {program}", description=description, allow_abbrev=False)


def make_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Make a parser with the options that every program has.

    Parameters
    ----------
    program
        Module that is run, for the usage.
    description
        What the program does, for ``--help``.
    """
    parser = make_bare_parser(program, description)
    parser.add_argument("--name", default=program.rpartition(".")[2], help="name, used in logs")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=port_number, default=0, help="port, 0 for any [%(default)s]")
    parser.add_argument(
        "--telstate", type=option(parse_endpoint), metavar="HOST:PORT", help="telescope state"
    )
    parser.add_argument(
        "--interface",
        default=DEFAULT_INTERFACE,
        metavar="ADDRESS",
        help="address of the interface for multicast [%(default)s]",
    )
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="[%(default)s]")
    parser.add_argument(
        "--config-key",
        metavar="KEY",
        help="key of telescope state with a dict of further options; the command line wins",
    )
    return parser


def option(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Turn a parser that raises `PipelineError` into a ``type`` for argparse, keeping the message."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except PipelineError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return convert


def port_number(text: str) -> int:
    """Type of an option: a TCP port, or 0 for any."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 0 to 65535")
    return int(text)


def config_arguments(config: object, argv: Sequence[str]) -> list[str]:
    """Turn a stored configuration into arguments, leaving out what `argv` gives itself.

    Parameters
    ----------
    config
        Dict of option names (``n_chans`` or ``n-chans``) to a string, a number, a bool (``--x`` or
        ``--no-x``), None (left out), or a list of these (the option is repeated).
    argv
        The command line.

    Raises
    ------
    ProgramError
        The configuration is not such a dict.
    """
    if not isinstance(config, dict):
        raise ProgramError("stored configuration must be a dict of options")
    given = {argument.partition("=")[0] for argument in argv}
    arguments: list[str] = []
    for key, value in config.items():
        if not isinstance(key, str):
            raise ProgramError(
                f"stored configuration has {key!r:.60} where an option's name belongs"
            )
        name = key.replace("_", "-")
        if f"--{name}" in given or f"--no-{name}" in given:
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            arguments.extend(_config_argument(name, item))
    return arguments


def _config_argument(name: str, value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, str | int | float):
        return [f"--{name}={value}"]
    raise ProgramError(f"stored configuration: {name} is {value!r:.60}, expected text or a number")


async def parse_options(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line, and the stored configuration where it names one.

    Raises
    ------
    ProgramError
        An option is unknown, missing or malformed, on the command line or in the stored configuration.
    TelstateError
        The stored configuration cannot be had.
    """
    pre = _Parser(add_help=False, allow_abbrev=False)
    pre.add_argument("--config-key")
    pre.add_argument("--telstate", type=option(parse_endpoint))
    first, _ = pre.parse_known_args(argv)
    if first.config_key is None or {"-h", "--help"} & set(argv):
        return parser.parse_args(argv)
    if first.telstate is None:
        raise ProgramError("--config-key needs --telstate")
    config = await _fetch_config(first.telstate, first.config_key)
    try:
        return parser.parse_args([*config_arguments(config, argv), *argv])
    except ProgramError as exc:
        raise ProgramError(f"{exc} (with {first.config_key!r} of telescope state)") from exc


async def _fetch_config(endpoint: Endpoint, key: str) -> Any:
    async with ts.connect(endpoint) as telstate:
        return await ts.get(telstate, key)


def run(parser: argparse.ArgumentParser, start: Start, argv: Sequence[str] | None = None) -> int:
    """Run a program until SIGTERM or SIGINT, and return its exit status.

    Parameters
    ----------
    parser
        With the program's own options beside those of `make_parser`.
    start
        Builds the server. What must be closed after the server has stopped goes on the exit stack.
    argv
        Command line without the program; default: ``sys.argv``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        # Within the event loop argparse's way to exit would end a task and leave a traceback.
        parser.print_help()
        return 0
    return asyncio.run(_run(parser, start, arguments))


async def _run(parser: argparse.ArgumentParser, start: Start, argv: list[str]) -> int:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    try:
        async with AsyncExitStack() as resources:
            server = await _unless(end, _start(parser, start, argv, resources))
            if server is not None:
                await _serve(server, end)
    except Exception as exc:
        logger.debug("the program failed", exc_info=True)
        return report_failure(exc)
    return 0


async def _start(
    parser: argparse.ArgumentParser, start: Start, argv: list[str], resources: AsyncExitStack
) -> ProgramServer:
    options = await parse_options(parser, argv)
    set_up_logging(options.name, options.log_level)
    server = await start(options, resources)
    await server.start()
    if server.STAGE and options.telstate is not None:
        queue = await resources.enter_async_context(quality.connect(options.telstate))
        server.report_quality(queue)
    host, port = server.sockets[0].getsockname()[:2]
    logger.info("ready on %s:%d", host, port)
    return server


async def _unless(end: asyncio.Event, work: Awaitable[ProgramServer]) -> ProgramServer | None:
    """Await `work`, or cancel it and return None when the end is asked for first."""
    task = asyncio.ensure_future(work)
    ended = asyncio.create_task(end.wait())
    await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait({task})
    return task.result() if not task.cancelled() and task.exception() is None else None


async def _serve(server: ProgramServer, end: asyncio.Event) -> None:
    """Serve until the end is asked for or the server halts itself; raises what halted it."""
    ended = asyncio.create_task(end.wait())
    joined = asyncio.create_task(server.join())
    await asyncio.wait({ended, joined}, return_when=asyncio.FIRST_COMPLETED)
    if not joined.done():
        logger.info("stopping")
        server.halt()
    ended.cancel()
    await joined


def set_up_logging(name: str, level: str) -> None:
    """Log to standard error, one line each, with the program's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(LOG_FORMAT, "%Y-%m-%dT%H:%M:%S", defaults={"program": name})
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # numba and matplotlib narrate at debug level what nobody reads.
    logging.getLogger("numba").setLevel(logging.WARNING)
    # Several programs publish the same attributes, and every stop of a stream drops empty chunks: no news.
    for name in ("katsdptelstate", "spead2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def report_failure(exc: BaseException) -> int:
    """Say in one line on standard error why the program ends, and return its exit status."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    text = " ".join(str(exc).split())
    # What is not raised on purpose needs its kind to be understood: KeyError('x') reads as 'x'.
    kind = "" if text and isinstance(exc, PipelineError | OSError) else f"{type(exc).__name__}: "
    sys.stderr.write(f"error: {kind}{text}\n")
    return 1
