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
from pipelines.common.option_types import bounded, channel_range
from pipelines.common.program import make_parser, option, run
from pipelines.common.spead import DEFAULT_INTERFACE
from pipelines.common.stream_info import CorrelatorStream
from pipelines.ingest.compute import Averager
from pipelines.ingest.layout import InputLayout, OutputLayout, dumps_per_output
from pipelines.ingest.receive import Receiver
from pipelines.ingest.send import L0Sender, output_rate
from pipelines.ingest.server import IngestServer, IngestSettings
from pipelines.ingest.weights import Weighting


def one_output(text: str) -> Endpoint:
    """Type of an option: an endpoint with SPEAD's default port."""
    return parse_endpoint(text, SPEAD_PORT)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser("pipelines.ingest", "Receives correlator heaps, averages and flags, sends L0.")
    _add_input_options(p.add_argument_group("input"))
    _add_output_options(p.add_argument_group("output"))
    _add_timing_options(p.add_argument_group("timing"))
    p.add_argument("--workers", type=bounded(int, 1, 256), default=1, metavar="THREADS")
    return p


def _add_input_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--input-stream", required=True, metavar="NAME", help="correlation stream")
    add(
        "--input",
        required=True,
        type=option(parse_endpoints),
        metavar="ADDRESS[+N][:PORT]",
        help="multicast groups that carry this ingest's channels",
    )
    add(
        "--input-interface",
        action="append",
        metavar="ADDRESS",
        help="interface for them; repeated, the groups are shared out in order [--interface]",
    )
    add("--channels", type=channel_range, metavar="A:B", help="channels of this ingest [all]")
    add("--window", type=bounded(int, 2, 64), default=INGEST_WINDOW, metavar="DUMPS")


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output-stream", required=True, metavar="NAME", help="L0 stream")
    add("--output", required=True, type=option(one_output), metavar="ADDRESS[:PORT]")
    add("--output-interface", metavar="ADDRESS", help="interface for L0 [--interface]")
    add(
        "--output-channels",
        type=channel_range,
        metavar="A:B",
        help="correlator channels of the whole L0 stream [all]",
    )
    add("--output-int-time", type=bounded(float, 1e-6, 1e6), default=2.0, metavar="SECONDS")
    add("--continuum-factor", type=bounded(int, 1, 1 << 20), default=1, metavar="CHANNELS")
    add(
        "--excise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep samples with interference out of averages [on]",
    )


def _add_timing_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--clock-ratio",
        type=bounded(float, 0, 1e6),
        default=1.0,
        metavar="R",
        help="wall seconds per second of the observation, 0 for as fast as it comes [%(default)s]",
    )
    add(
        "--max-rate",
        type=bounded(float, 1e3, 1e12),
        default=1e9,
        metavar="BIT/S",
        help="rate of the output with a clock ratio of 0 [%(default)g]",
    )
    for name, default, meaning in (
        ("--idle-time", 1.0, "silence after which the input is taken to be drained"),
        ("--drain-time", 10.0, "longest wait for that silence"),
    ):
        add(
            name,
            type=bounded(float, 0, 3600),
            default=default,
            metavar="SECONDS",
            help=f"{meaning} [%(default)s]",
        )


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> IngestServer:
    """Read telescope state, touch the memory, compile, join the groups; return the server."""
    if options.telstate is None:
        raise ProgramError("--telstate is needed: the input stream is described there")
    telstate = await resources.enter_async_context(ts.connect(options.telstate))
    source = await CorrelatorStream.load(telstate, options.input_stream)
    layout = _layout(options, source)
    interfaces = options.input_interface or [options.interface]
    receiver = Receiver(layout.source, options.input, interfaces, options.window)
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
