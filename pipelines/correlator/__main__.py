"""Correlator simulator: a model sky or a recording as a stream of baseline correlation products."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, TypeVar

import katpoint
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import telstate as ts
from pipelines.common.endpoints import parse_endpoints
from pipelines.common.errors import ProgramError
from pipelines.common.program import make_parser, option, run
from pipelines.common.spead import MAX_PACKET_SIZE
from pipelines.correlator.errors import CorrelatorError, ModelError
from pipelines.correlator.faults import FaultPlan
from pipelines.correlator.meerkat import ENU, antenna_description
from pipelines.correlator.model import DEFAULT_SEFD, Model, ModelConfig
from pipelines.correlator.sender import HeapSender, send_rate
from pipelines.correlator.server import CorrelatorServer
from pipelines.correlator.simulator import Simulator, parse_target
from pipelines.correlator.source import DumpSource

T = TypeVar("T")

DEFAULT_ANTENNAS: Final = ("m000", "m001", "m002", "m003")
_REPLAY_TOLERANCE: Final = 1e-3
"""Relative difference that options may have from what a recording says."""


def parser() -> argparse.ArgumentParser:
    """Command line of the program."""
    result = make_parser("pipelines.correlator", __doc__ or "")
    stream = result.add_argument_group("stream")
    stream.add_argument("--stream", required=True, metavar="NAME", help="name of the stream")
    stream.add_argument(
        "--endpoints",
        type=option(parse_endpoints),
        required=True,
        metavar="ADDRESS[+N][:PORT]",
        help="where substreams are sent",
    )
    stream.add_argument("--max-packet-size", type=int, default=MAX_PACKET_SIZE, metavar="BYTES")
    stream.add_argument(
        "--max-rate",
        type=float,
        default=4e9,
        metavar="BIT/S",
        help="bound on the rate; the rate itself with a clock ratio of 0 [%(default)g]",
    )
    stream.add_argument(
        "--clock-ratio",
        type=float,
        default=1.0,
        metavar="R",
        help="wall seconds per second of the observation, 0 for as fast as --max-rate [1]",
    )
    _add_model_options(result.add_argument_group("model"))
    replay = result.add_argument_group("replay")
    replay.add_argument("--replay", metavar="FILE.ms", help="send this MeasurementSet, not a model")
    replay.add_argument("--replay-data-column", default="DATA", metavar="COLUMN")
    faults = result.add_argument_group("faults", "fractions of heaps, from 0 to 1")
    for fault in ("drop", "duplicate", "truncate", "reorder", "late"):
        faults.add_argument(f"--{fault}-fraction", type=float, default=0.0, metavar="F")
    return result


def _add_model_options(model: argparse._ArgumentGroup) -> None:
    add = model.add_argument
    add(
        "--antenna",
        action="append",
        metavar="DESCRIPTION",
        help="katpoint description, or a MeerKAT antenna's name; repeated [m000 to m003]",
    )
    add("--n-chans", type=int, metavar="N", help="channels [1024]")
    add("--n-chans-per-substream", type=int, metavar="N", help="[one substream per endpoint]")
    add("--bandwidth", type=float, metavar="HZ", help="[856e6]")
    add("--centre-frequency", type=float, metavar="HZ", help="of channel N/2 [1284e6]")
    add("--adc-sample-rate", type=float, metavar="HZ", help="[twice the bandwidth]")
    add("--int-time", type=float, metavar="S", help="time between dumps [2]")
    add("--start-time", type=float, metavar="UNIX", help="time of the first dump [now]")
    add(
        "--source",
        action="append",
        metavar="DESCRIPTION",
        help="katpoint description with a flux model; repeated. The tag gaussian:MAJOR:MINOR:ANGLE "
        "(arcseconds at half maximum, degrees from north through east) makes it a Gaussian",
    )
    add("--target", metavar="DESCRIPTION", help="where the array points at first [first source]")
    add("--sefd", type=float, default=DEFAULT_SEFD, metavar="JY", help="of an input [%(default)g]")
    add("--noise", action=argparse.BooleanOptionalAction, default=True, help="thermal noise")
    add("--gains", action=argparse.BooleanOptionalAction, default=True, help="imperfect gains")
    add("--leakage", type=float, default=0.0, metavar="D", help="rms of the D terms [%(default)g]")
    add("--cross-delay", type=float, default=0.0, metavar="S", help="of v against h [%(default)g]")
    add("--cross-phase", type=float, default=0.0, metavar="DEG", help="at 0 Hz [%(default)g]")
    add("--rfi", type=int, default=0, metavar="N", help="emitters of interference [%(default)s]")
    for kind, effect in (("dead", "gives nothing"), ("hot", "saturates the correlator")):
        add(
            f"--{kind}-inputs",
            action="append",
            default=[],
            metavar="INPUT",
            help=f"input that {effect}, such as m001h; repeated",
        )
    add("--scale", type=float, metavar="JY", help="Jy per count [chosen]")
    add("--seed", type=int, default=0, metavar="N", help="of gains, noise and faults [%(default)s]")


def make_source(options: argparse.Namespace) -> DumpSource:
    """Make what is streamed. Slow: reads files.

    Raises
    ------
    PipelineError
        The options make no sense, or the recording cannot be replayed.
    """
    if options.replay is not None:
        return _make_replay(options)
    return Model(model_config(options))


def model_config(options: argparse.Namespace) -> ModelConfig:
    """Model that the options ask for.

    Raises
    ------
    ModelError
        They make no sense.
    """
    n_chans = _given(options.n_chans, 1024)
    bandwidth = _given(options.bandwidth, 856e6)
    return ModelConfig(
        name=options.stream,
        antennas=tuple(parse_antenna(text) for text in options.antenna or DEFAULT_ANTENNAS),
        n_chans=n_chans,
        n_chans_per_substream=_substream_channels(options, n_chans),
        bandwidth=bandwidth,
        centre_frequency=_given(options.centre_frequency, 1284e6),
        adc_sample_rate=_given(options.adc_sample_rate, 2 * bandwidth),
        int_time=_given(options.int_time, 2.0),
        start_time=_given(options.start_time, time.time()),
        sources=tuple(parse_target(text) for text in options.source or ()),
        sefd=options.sefd,
        noise=options.noise,
        gains=options.gains,
        leakage=options.leakage,
        cross_delay=options.cross_delay,
        cross_phase=options.cross_phase,
        rfi=options.rfi,
        dead_inputs=tuple(options.dead_inputs),
        hot_inputs=tuple(options.hot_inputs),
        seed=options.seed,
        scale=options.scale,
    )


def _given(value: T | None, default: T) -> T:
    """Value of an option, or what it is where it was not given."""
    return default if value is None else value


def _substream_channels(options: argparse.Namespace, n_chans: int) -> int:
    if options.n_chans_per_substream is not None:
        return int(options.n_chans_per_substream)
    n_endpoints = len(options.endpoints)
    if n_chans % n_endpoints:
        raise ModelError(f"{n_chans} channels cannot be divided among {n_endpoints} endpoints")
    return n_chans // n_endpoints


def parse_antenna(text: str) -> katpoint.Antenna:
    """Read a katpoint description or the name of a MeerKAT antenna.

    Raises
    ------
    ModelError
        It is neither.
    """
    try:
        return katpoint.Antenna(antenna_description(text) if text in ENU else text)
    except (ValueError, TypeError) as exc:
        raise ModelError(
            f"{text!r:.100} is no katpoint description of an antenna, nor a MeerKAT antenna: {exc}"
        ) from exc


def _make_replay(options: argparse.Namespace) -> DumpSource:
    # Only here, since casacore need not be installed for models.
    from pipelines.correlator.replay import Replay

    replay = Replay(
        options.replay,
        name=options.stream,
        data_column=options.replay_data_column,
        n_chans_per_substream=options.n_chans_per_substream,
        n_substreams=len(options.endpoints),
    )
    _check_replay(options, replay)
    return replay


def _check_replay(options: argparse.Namespace, replay: DumpSource) -> None:
    """Refuse options that contradict the recording: others were configured by them."""
    stream = replay.stream
    for key, value in (
        ("n_chans", stream.n_chans),
        ("bandwidth", stream.bandwidth),
        ("centre_frequency", stream.center_freq),
        ("int_time", stream.int_time),
    ):
        asked = getattr(options, key)
        if asked is not None and abs(asked - value) > _REPLAY_TOLERANCE * value:
            raise CorrelatorError(
                f"--{key.replace('_', '-')} is {asked:g}, but {options.replay} has {value:g}"
            )
    names = [antenna.name for antenna in replay.antennas]
    asked_names = [parse_antenna(text).name for text in options.antenna or ()]
    if asked_names and asked_names != names:
        raise CorrelatorError(
            f"{options.replay} has the antennas {', '.join(names)}, not those of --antenna"
        )


def first_target(options: argparse.Namespace, source: DumpSource) -> katpoint.Target | None:
    """Where the array points at first; None where nothing says."""
    description = source.target(0) or options.target or next(iter(options.source or ()), None)
    return None if description is None else parse_target(description)


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> CorrelatorServer:
    """Build the server: source, sender, simulator; publish the stream's description."""
    if not 0 <= options.clock_ratio < float("inf"):
        raise ProgramError(f"--clock-ratio is {options.clock_ratio}; expected 0 or more")
    if not 512 <= options.max_packet_size <= 65000 or not 1e3 <= options.max_rate < 1e12:
        raise ProgramError("--max-packet-size must be 512 to 65000, --max-rate 1e3 to 1e12 bit/s")
    source = await asyncio.to_thread(make_source, options)
    sender = HeapSender(
        source.stream,
        options.endpoints,
        rate=send_rate(source.stream, options.clock_ratio, options.max_rate),
        interface=options.interface,
        max_packet_size=options.max_packet_size,
        faults=FaultPlan(
            options.drop_fraction,
            options.duplicate_fraction,
            options.truncate_fraction,
            options.seed,
            options.reorder_fraction,
            options.late_fraction,
        ),
    )
    # Alone, without a product, it keeps its telescope state to itself.
    telstate = (
        TelescopeState()
        if options.telstate is None
        else await resources.enter_async_context(ts.connect(options.telstate))
    )
    await source.stream.publish(telstate)
    server = CorrelatorServer(options, source.stream.int_time * options.clock_ratio)
    simulator = Simulator(
        source,
        sender,
        telstate,
        clock_ratio=options.clock_ratio,
        target=first_target(options, source),
        on_progress=server.update,
    )
    await simulator.warm_up()
    server.attach(simulator)
    return server


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
