"""How much CPU ingest takes: to receive, beside spead2's own receiver, and to process.

::

    python3 -m benchmarks.ingest [--rate 2] [--packet 8872] [--seconds 5]

Receiving: a process sends dumps of two heaps over UDP on loopback; a second one receives them with the receiver
of ingest, then, in the same way, with the yardstick: spead2's receiver, heap at a time (all of its work is
in C++). Reported are heaps lost and the CPU time of the receiving process per gigabit. Processing: time per
sample for arrays of 8 to 64 antennas; a sample is one product of one channel in one dump, 64 bits on the wire.

Measure on a quiet machine: on a busy one both receivers lose heaps.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import spead2
import spead2.recv
import spead2.recv.asyncio

from pipelines.catalogue import n_products
from pipelines.common import spead
from pipelines.common.endpoints import Endpoint
from pipelines.ingest.compute import Averager, L0Dump
from pipelines.ingest.layout import InputLayout, OutputLayout
from pipelines.ingest.receive import Receiver, n_chunks

PORT = 17148
TICKS = 1 << 20
HEAPS_PER_DUMP = 2
N_BLS = 128
WINDOW = 4


def input_layout(heap_bytes: int) -> InputLayout:
    """Return a layout with heaps of about this size."""
    per_heap = heap_bytes // (N_BLS * 8)
    return InputLayout(
        n_chans=per_heap * HEAPS_PER_DUMP,
        n_chans_per_substream=per_heap,
        n_bls=N_BLS,
        channels=range(per_heap * HEAPS_PER_DUMP),
        ticks_per_dump=TICKS,
        scale_factor_timestamp=1e9,
        scale=1.0,
    )


async def send(layout: InputLayout, n_dumps: int, rate: float, packet: int) -> None:
    """Send dumps at `rate` bytes per second."""
    sender = spead.make_sender([Endpoint("127.0.0.1", PORT)], rate=rate, max_packet_size=packet)
    heaps = []
    stamps = [np.zeros((), ">u8") for _ in range(4)]
    counts = np.ones((layout.n_chans_per_substream, N_BLS, 2), np.int32)
    for stamp in stamps:
        for channel in range(0, layout.n_chans, layout.n_chans_per_substream):
            items = spead.correlator_items(layout.n_chans_per_substream, N_BLS)
            items["timestamp"].value = stamp
            items["frequency"].value = channel
            items["xeng_raw"].value = counts
            heap = items.get_heap(data="all", descriptors="none")
            heap.repeat_pointers = True
            heaps.append(heap)
    pending: set[asyncio.Task[int]] = set()
    for dump in range(n_dumps):
        while len(pending) > 4:  # so that no heap is changed that is still being sent
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        slot = dump % len(stamps)
        stamps[slot][...] = dump * TICKS
        for heap in heaps[slot * HEAPS_PER_DUMP : (slot + 1) * HEAPS_PER_DUMP]:
            pending.add(asyncio.ensure_future(sender.async_send_heap(heap)))
    await asyncio.wait(pending)


def cpu() -> float:
    """Return the CPU seconds that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def receive_chunks(layout: InputLayout) -> tuple[int, float]:
    """Receive with the receiver of ingest until all is silent; return heaps and CPU seconds."""
    receiver = Receiver(layout, [Endpoint("127.0.0.1", PORT)], ["127.0.0.1"], WINDOW)
    receiver.open()
    stream = await receiver.switch(active=True)
    print("ready", flush=True)
    start = cpu()
    ending = asyncio.create_task(end_when_silent(lambda: stream.packets, stream.finish))
    heaps = 0
    async for dump in stream.dumps():
        heaps += dump.received
        stream.give_back(dump.slot)
    await ending
    used = cpu() - start
    await receiver.close()
    return heaps, used


async def receive_heaps(layout: InputLayout) -> tuple[int, float]:
    """Receive with spead2's receiver, heap at a time; return heaps and CPU seconds."""
    memory = n_chunks(WINDOW) * HEAPS_PER_DUMP
    pool = spead2.MemoryPool(layout.heap_bytes, layout.heap_bytes + 4096, memory, memory)
    stream = spead2.recv.asyncio.Stream(
        spead2.ThreadPool(1), spead2.recv.StreamConfig(memory_allocator=pool)
    )
    stream.add_udp_reader(PORT, max_size=65536, buffer_size=64 << 20, bind_hostname="127.0.0.1")
    print("ready", flush=True)
    start = cpu()
    ending = asyncio.create_task(end_when_silent(lambda: stream.stats["packets"], stream.stop))
    heaps = 0
    async for _ in stream:
        heaps += 1
    await ending
    return heaps, cpu() - start


async def end_when_silent(packets: Callable[[], int], finish: Callable[[], None]) -> None:
    """Call `finish` when data has come and then none for a second."""
    seen = 0
    while not seen or packets() != seen:
        seen = packets()
        await asyncio.sleep(1)
    finish()


@dataclass
class Outcome:
    """What a receiver made of what was sent."""

    lost: int
    cpu_per_gb: float


def run_receiver(args: argparse.Namespace, kind: str) -> Outcome:
    """Run receiver and sender as processes of their own."""
    layout = input_layout(args.heap)
    n_dumps = max(8, int(args.rate * 1e9 / 8 * args.seconds / layout.chunk_bytes))
    options = ["--heap", str(args.heap), "--rate", str(args.rate), "--packet", str(args.packet)]
    program = [sys.executable, "-m", "benchmarks.ingest", *options]
    sender = [*program, "--role", "send", "--dumps", str(n_dumps)]
    gigabits = n_dumps * layout.chunk_bytes * 8 / 1e9
    n_heaps = n_dumps * HEAPS_PER_DUMP
    receiver = subprocess.Popen([*program, "--role", kind], stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    receiver.stdout.readline()
    subprocess.run(sender, check=True)
    heaps, used = receiver.stdout.readline().split()
    receiver.wait()
    return Outcome(n_heaps - int(heaps), float(used) / gigabits)


def benchmark_processing() -> None:
    """Print what flagging and averaging cost for arrays of several sizes, on one core."""
    print("antennas  products  channels  ns/sample  Gb/s per core")
    rng = np.random.default_rng(0)
    for antennas, channels in ((8, 4096), (16, 1024), (32, 256), (64, 64)):
        products = n_products(antennas)
        source = InputLayout(
            n_chans=channels,
            n_chans_per_substream=channels // 4,
            n_bls=products,
            channels=range(channels),
            ticks_per_dump=TICKS,
            scale_factor_timestamp=1e9,
            scale=1.0,
        )
        layout = OutputLayout(
            source=source, output_channels=range(channels), ratio=4, continuum_factor=1
        )
        averager = Averager(layout, excise=True)
        averager.warm_up()
        counts = rng.normal(0, 1e4, (channels, products, 2)).astype(np.int32)
        present = np.ones(4, np.uint8)
        out = L0Dump.empty(layout)
        start = time.process_time()
        for _ in range(4):
            averager.add(counts, present)
        averager.finish(out)
        sample = (time.process_time() - start) / (4 * channels * products)
        print(
            f"{antennas:8d}  {products:8d}  {channels:8d}  {sample * 1e9:9.1f}"
            f"  {64e-9 / sample:13.2f}"
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rate", type=float, default=2.0, help="Gb/s [%(default)s]")
    parser.add_argument("--packet", type=int, default=8872, help="bytes [%(default)s]")
    parser.add_argument("--heap", type=int, default=4 << 20, help="bytes [%(default)s]")
    parser.add_argument("--seconds", type=float, default=5.0, help="of sending [%(default)s]")
    parser.add_argument("--repeats", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--role", choices=("send", "chunks", "heaps"), help=argparse.SUPPRESS)
    parser.add_argument("--dumps", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    layout = input_layout(args.heap)
    if args.role == "send":
        asyncio.run(send(layout, args.dumps, args.rate * 1e9 / 8, args.packet))
    elif args.role is not None:
        receive = receive_chunks if args.role == "chunks" else receive_heaps
        print(*asyncio.run(receive(layout)), flush=True)
    else:
        print(f"receiving at {args.rate:g} Gb/s, packets of {args.packet}, heaps of {args.heap}")
        for _ in range(args.repeats):
            for kind, name in (("chunks", "ingest"), ("heaps", "spead2")):
                outcome = run_receiver(args, kind)
                print(f"{name:8s} lost {outcome.lost}, {outcome.cpu_per_gb:.4f} CPU s per Gb")
        benchmark_processing()


if __name__ == "__main__":
    main()
