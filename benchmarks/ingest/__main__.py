"""How much CPU and memory ingest takes, and what it loses, beside spead2's own receiver.

::

    scripts/spead2-tools build/spead2 .venv/bin/python
    python -m benchmarks.ingest [receive] [program] [memory] [--soak SECONDS]

``receive``: a sender and, one after the other, the receivers: ingest's, and the yardstick, spead2's own C++
program (without it, ``spead2-py``: spead2's Python receiver, whose work is in C++ as well). Printed are heaps
lost, the CPU time of the receiving process per gigabit, its ratio to the yardstick's, and the greatest rate at
which most runs lose nothing.

``program``: the whole program (receive, flag, average, send), for arrays of 8 to 64 antennas: CPU time per
gigabit, its ratio to receiving alone, the rate that a core is worth, and the cost of a sample (of one product,
channel and dump: 64 bits).

``memory``: the most that was resident, and what of it is beside the arrays, by the formula of the controller's
request; it asks for the arrays and `catalogue.PYTHON_MIB`.

``--soak``: the whole program for so long at half of the greatest rate at which it loses nothing.

CPU time is less sensitive to a busy machine than rates are. On one all receivers lose heaps: ``--nice -10``
helps, and needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.ingest import program, receivers
from benchmarks.ingest.traffic import Traffic
from pipelines import catalogue

PARTS: Final = ("receive", "program", "memory")
PACKETS: Final = (1472, 8872)
RATES: Final = (1.0, 2.0, 3.0, 4.0, 6.0)
ARRAYS: Final = ((8, 4096), (16, 1024), (32, 256), (64, 64))
"""Antennas and channels: dumps of the same size."""


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def receive_traffic(gigabits: float, packet: int) -> Traffic:
    """Heaps of 4 MiB, two in a dump, as spead2's own benchmark has them."""
    return Traffic(8, 2 * 3640, 2, gigabits, packet, _free_port())


def array_traffic(antennas: int, n_chans: int, gigabits: float) -> Traffic:
    """Dumps of four heaps, in jumbo packets."""
    return Traffic(antennas, n_chans, 4, gigabits, 8872, _free_port())


def receive(args: argparse.Namespace) -> None:
    """Compare receivers."""
    kinds = ["ingest", "spead2" if (args.tools / "spead2_recv").exists() else "spead2-py"]
    if kinds[1] == "spead2-py":
        print(
            f"no spead2_recv in {args.tools}: scripts/spead2-tools makes it; the yardstick is spead2's Python"
        )
    for packet in args.packets:
        print(
            f"\nreceive: packets of {packet} B, heaps of 4 MiB, {args.repeats} × {args.seconds:g} s"
        )
        print("  Gb/s  receiver   lost of sent  CPU s/Gb   ratio")
        free = dict.fromkeys(kinds, 0.0)
        for rate in args.rates:
            outcomes: dict[str, list[receivers.Outcome]] = {kind: [] for kind in kinds}
            for _ in range(args.repeats):
                for kind in kinds:
                    traffic = receive_traffic(rate, packet)
                    outcomes[kind].append(
                        receivers.measure(kind, args.tools, traffic, args.seconds)
                    )
            for kind in kinds:
                _print_receiver(rate, kind, outcomes[kind], outcomes[kinds[1]])
                if statistics.median(outcome.lost for outcome in outcomes[kind]) == 0:
                    free[kind] = rate
        print(
            "  greatest rate without loss: " + ", ".join(f"{k} {v:g} Gb/s" for k, v in free.items())
        )


def _print_receiver(
    rate: float,
    kind: str,
    outcomes: Sequence[receivers.Outcome],
    yardstick: Sequence[receivers.Outcome],
) -> None:
    cpu = statistics.median(outcome.cpu_per_gigabit for outcome in outcomes)
    other = statistics.median(outcome.cpu_per_gigabit for outcome in yardstick)
    lost = "/".join(str(outcome.lost) for outcome in outcomes)
    print(
        f"  {rate:4g}  {kind:9s}  {lost:>8s} of {outcomes[0].sent:<5d}"
        f"  {cpu:7.4f}  {cpu / other:6.2f}",
        flush=True,
    )


def whole_program(args: argparse.Namespace) -> None:
    """Print what the whole program takes, by the size of the array."""
    alone = receivers.measure("ingest", args.tools, receive_traffic(1.0, 8872), args.seconds)
    print(
        f"\nprogram: at {args.program_rate:g} Gb/s; receiving alone {alone.cpu_per_gigabit:.4f} CPU s/Gb"
    )
    print("  antennas  products  channels  lost  CPU s/Gb  ratio  Gb/s per core  ns/sample")
    costs = []
    for antennas, n_chans in ARRAYS:
        traffic = array_traffic(antennas, n_chans, args.program_rate)
        figures = asyncio.run(program.measure(traffic, args.seconds))
        cpu = figures.cpu_per_gigabit
        costs.append(cpu)
        print(
            f"  {antennas:8d}  {traffic.stream.n_bls:8d}  {n_chans:8d}  {figures.lost:4d}  {cpu:8.3f}"
            f"  {cpu / alone.cpu_per_gigabit:5.0f}  {1 / cpu:13.2f}  {cpu * 64:9.1f}",
            flush=True,
        )
    print(f"  the greatest cost of a sample is {max(costs) / min(costs):.2f} of the least")


def memory(args: argparse.Namespace) -> None:
    """Print resident memory against the formula, for streams of several sizes."""
    print(
        f"\nmemory, MiB; the controller asks for the arrays and {catalogue.PYTHON_MIB} beside them"
    )
    print("  antennas  channels  resident  arrays  beside them")
    for antennas, n_chans in ((8, 1024), (8, 4096), (16, 4096), (16, 8192)):
        traffic = array_traffic(antennas, n_chans, args.program_rate)
        figures = asyncio.run(program.measure(traffic, 5))
        resident, arrays = figures.peak_mib, program.arrays_mib(traffic)
        print(
            f"  {antennas:8d}  {n_chans:8d}  {resident:8.0f}  {arrays:6.0f}  {resident - arrays:11.0f}",
            flush=True,
        )


def soak(args: argparse.Namespace) -> None:
    """Find the greatest rate without loss of the whole program, and run at half of it."""
    free = args.soak_rate * 2 if args.soak_rate else _loss_free(args)
    traffic = array_traffic(16, 1024, free / 2)
    print(f"\nsoak: 16 antennas at {free / 2:g} Gb/s for {args.soak:g} s", flush=True)
    figures = asyncio.run(program.measure(traffic, args.soak))
    print(f"  {figures.heaps} heaps received, {figures.lost} lost; {figures.peak_mib:.0f} MiB")


def _loss_free(args: argparse.Namespace) -> float:
    """Return the greatest rate, in steps of a tenth, at which the whole program loses nothing in one run."""
    best, rate = 0.0, 0.1
    while True:
        figures = asyncio.run(program.measure(array_traffic(16, 1024, rate), args.seconds))
        print(
            f"  {rate:.1f} Gb/s: {figures.lost} of {figures.heaps + figures.lost} heaps lost",
            flush=True,
        )
        if figures.lost:
            return best
        best, rate = rate, round(rate + 0.1, 1)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.ingest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} [all of them]")
    add("--tools", type=Path, default=Path("build/spead2"), help="spead2's programs [%(default)s]")
    add("--seconds", type=float, default=5.0, help="of sending, each time [%(default)s]")
    add("--repeats", type=int, default=3, help="of each receiver [%(default)s]")
    add("--rates", type=float, nargs="+", default=RATES, help="Gb/s, for receiving %(default)s")
    add("--packets", type=int, nargs="+", default=PACKETS, help="bytes %(default)s")
    add("--program-rate", type=float, default=0.2, help="Gb/s, of the program [%(default)s]")
    add("--soak", type=float, metavar="SECONDS", help="run the program for so long")
    add("--soak-rate", type=float, metavar="GBIT/S", help="[half of what goes without loss]")
    add("--nice", type=int, default=0, help="priority of all processes [%(default)s]")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    os.nice(args.nice)
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "receive": receive, "program": whole_program, "memory": memory,
    }  # fmt: skip
    if args.soak:
        soak(args)
        return
    for part in args.parts or PARTS:
        parts[part](args)


if __name__ == "__main__":
    main()
