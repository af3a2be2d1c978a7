"""``python3 -m pipelines.ingest``: command line of ingest."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack

from pipelines.catalogue import INGEST_WINDOW, SPEAD_PORT
from pipelines.common import telstate as ts
from pipelines.common.baselines import canonical_order
from pipelines.common.endpoints import Endpoint, parse_endpoint, parse_endpoints
from pipelines.common.errors import ProgramError
from pipelines.common.program import make_parser, option, run
from pipelines.common.spead import DEFAULT_INTERFACE
from pipelines.common.stream_info import CorrelatorStream
from pipelines.ingest.compute import Averager
from pipelines.ingest.layout import InputLayout, OutputLayout, dumps_per_output
from pipelines.ingest.receive import Receiver
from pipelines.ingest.send import L0Sender, output_rate
from pipelines.ingest.server import IngestServer, IngestSettings
from pipelines.ingest.weights import Weighting


def channel_range(text: str) -> range:
    """Type of an option: ``A:B``, the channels from A to before B."""
    start, colon, stop = text.partition(":")
    if not colon or not all(x.isascii() and x.isdigit() and len(x) < 10 for x in (start, stop)):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no range of channels: expected A:B")
    return range(int(start), int(stop))


def bounded(kind: type[int] | type[float], low: float, high: float) -> argparse._ActionType:
    """Return the type of an option: a number between two bounds."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(low) - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is no number from {low:g} to {high:g}")
        return value

    return convert


def one_output(text: str) -> Endpoint:
    """Type of an option: an endpoint with SPEAD's default port."""
    return parse_endpoint(text, SPEAD_PORT)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser("pipelines.ingest", "Receives correlator heaps, averages and flags, sends L0.")
    p.add_argument("--input-stream", required=True, metavar="NAME", help="correlation stream")
    p.add_argument(
        "--input",
        required=True,
        type=option(parse_endpoints),
        metavar="ADDRESS[+N][:PORT]",
        help="multicast groups that carry this ingest's channels",
    )
    p.add_argument("--output-stream", required=True, metavar="NAME", help="L0 stream")
    p.add_argument("--output", required=True, type=option(one_output), metavar="ADDRESS[:PORT]")
    p.add_argument("--output-interface", metavar="ADDRESS", help="interface for L0 [--interface]")
    p.add_argument(
        "--channels", type=channel_range, metavar="A:B", help="channels of this ingest [all]"
    )
    p.add_argument(
        "--output-channels",
        type=channel_range,
        metavar="A:B",
        help="correlator channels of the whole L0 stream [all]",
    )
    p.add_argument(
        "--output-int-time", type=bounded(float, 1e-6, 1e6), default=2.0, metavar="SECONDS"
    )
    p.add_argument(
        "--continuum-factor", type=bounded(int, 1, 1 << 20), default=1, metavar="CHANNELS"
    )
    p.add_argument(
        "--excise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep flagged samples out of averages [on]",
    )
    p.add_argument("--window", type=bounded(int, 2, 64), default=INGEST_WINDOW, metavar="DUMPS")
    p.add_argument("--workers", type=bounded(int, 1, 256), default=1, metavar="THREADS")
    p.add_argument(
        "--clock-ratio",
        type=bounded(float, 0, 1e6),
        default=1.0,
        metavar="R",
        help="wall seconds per second of the observation, 0 for as fast as it comes [%(default)s]",
    )
    p.add_argument(
        "--max-rate",
        type=bounded(float, 1e3, 1e12),
        default=1e9,
        metavar="BIT/S",
        help="rate of the output with a clock ratio of 0 [%(default)g]",
    )
    p.add_argument(
        "--idle-time",
        type=bounded(float, 0, 3600),
        default=1.0,
        metavar="SECONDS",
        help="silence after which the input is taken to be drained [%(default)s]",
    )
    p.add_argument(
        "--drain-time",
        type=bounded(float, 0, 3600),
        default=10.0,
        metavar="SECONDS",
        help="longest wait for that silence [%(default)s]",
    )
    return p


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> IngestServer:
    """Read telescope state, touch the memory, compile, join the groups; return the server."""
    if options.telstate is None:
        raise ProgramError("--telstate is needed: the input stream is described there")
    telstate = await resources.enter_async_context(ts.connect(options.telstate))
    source = await CorrelatorStream.load(telstate, options.input_stream)
    layout = _layout(options, source)
    receiver = Receiver(layout.source, options.input, options.interface, options.window)
    await asyncio.to_thread(receiver.open)
    resources.push_async_callback(receiver.close)
    order = canonical_order(source.bls_ordering)
    ordering = tuple(source.bls_ordering[product] for product in order)
    averager = Averager(
        layout, options.excise, order, Weighting.of(ordering, source), workers=options.workers
    )
    resources.callback(averager.close)
    await asyncio.to_thread(averager.warm_up)
    interface = options.output_interface or options.interface or DEFAULT_INTERFACE
    rate = output_rate(layout, options.clock_ratio, options.max_rate)
    sender = L0Sender(layout, options.output, interface, rate)
    description = layout.stream(options.output_stream, source, ordering, excise=options.excise)
    await description.publish(telstate)
    settings = IngestSettings(
        options.output_stream, source.sync_time, options.idle_time, options.drain_time
    )
    server = IngestServer(options, settings, telstate, layout, receiver, averager, sender)
    await server.listen()
    return server


def _layout(options: argparse.Namespace, source: CorrelatorStream) -> OutputLayout:
    everything = range(source.n_chans)
    return OutputLayout(
        source=InputLayout.of(source, options.channels or everything),
        output_channels=options.output_channels or everything,
        ratio=dumps_per_output(options.output_int_time, source.int_time),
        continuum_factor=options.continuum_factor,
    )


if __name__ == "__main__":
    sys.exit(run(parser(), start))
