"""Receivers that are compared, each a process of its own: ingest's, and spead2's own.

``spead2`` is spead2's C++ program (``scripts/spead2-tools`` builds it), with a memory pool as large as ingest's
chunks; ``spead2-py`` is its Python receiver, heap at a time, all of whose work is in C++ too.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import spead2
import spead2.recv
import spead2.recv.asyncio

from benchmarks.ingest import traffic as sending
from benchmarks.ingest.traffic import Traffic
from pipelines.common.endpoints import Endpoint
from pipelines.ingest.receive import MAX_PACKET, SOCKET_BUFFER, Receiver, n_chunks

WINDOW: Final = 4
SILENCE: Final = 1.0
"""Seconds without a packet after which Python's receivers take the stream to be over."""
TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a receiver made of what was sent."""

    sent: int
    """Heaps."""
    lost: int
    cpu_per_gigabit: float
    """CPU seconds of the receiving process."""


def measure(kind: str, tools: Path, traffic: Traffic, seconds: float) -> Outcome:
    """Run a receiver and the sender."""
    n_dumps = traffic.n_dumps(seconds)
    heaps, cpu = (_run_cpp if kind == "spead2" else _run_python)(kind, tools, traffic, n_dumps)
    sent = n_dumps * traffic.n_heaps
    return Outcome(sent, sent - heaps, cpu / (n_dumps * traffic.dump_gigabits))


def _run_python(kind: str, _: Path, traffic: Traffic, n_dumps: int) -> tuple[int, float]:
    command = [sys.executable, "-m", "benchmarks.ingest.receivers", kind, *traffic.arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        subprocess.run(sending.command(traffic, n_dumps), check=True)
        heaps, cpu = receiver.stdout.readline().split()
        receiver.wait(TIMEOUT)
    return int(heaps), float(cpu)


def _run_cpp(_: str, tools: Path, traffic: Traffic, n_dumps: int) -> tuple[int, float]:
    heap = traffic.layout.heap_bytes
    pool = n_chunks(WINDOW) * traffic.n_heaps
    options = {
        "packet": MAX_PACKET, "buffer": SOCKET_BUFFER, "concurrent-heaps": WINDOW * traffic.n_heaps,
        "mem-lower": heap, "mem-upper": heap + 4096, "mem-max-free": pool, "mem-initial": pool,
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in options.items()]
    program = [str(tools / "spead2_recv"), "--quiet", "--mem-pool", *arguments]
    with subprocess.Popen(
        [*program, f"127.0.0.1:{traffic.port}"], stdout=subprocess.PIPE, text=True
    ) as receiver:
        subprocess.run(sending.command(traffic, n_dumps), check=True)
        between = resource.getrusage(resource.RUSAGE_CHILDREN)
        output, _errors = receiver.communicate(timeout=TIMEOUT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    received = re.search(r"Received (\d+) heaps", output)
    if received is None:
        raise RuntimeError(f"spead2_recv said {output!r:.200}")
    return int(received[1]), _seconds(after) - _seconds(between)


def _seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _own_cpu() -> float:
    return _seconds(resource.getrusage(resource.RUSAGE_SELF))


async def _ingest(traffic: Traffic) -> tuple[int, float]:
    receiver = Receiver(
        traffic.layout, [Endpoint("127.0.0.1", traffic.port)], ["127.0.0.1"], WINDOW
    )
    receiver.open()
    stream = await receiver.switch(active=True)
    print("ready", flush=True)
    start = _own_cpu()
    ending = asyncio.create_task(_end_when_silent(lambda: stream.packets, stream.finish))
    heaps = 0
    async for dump in stream.dumps():
        heaps += dump.received
        stream.give_back(dump.slot)
    await ending
    used = _own_cpu() - start
    await receiver.close()
    return heaps, used


async def _spead2(traffic: Traffic) -> tuple[int, float]:
    heap = traffic.layout.heap_bytes
    memory = n_chunks(WINDOW) * traffic.n_heaps
    pool = spead2.MemoryPool(heap, heap + 4096, memory, memory)
    config = spead2.recv.StreamConfig(memory_allocator=pool, stop_on_stop_item=False)
    stream = spead2.recv.asyncio.Stream(spead2.ThreadPool(1), config)
    stream.add_udp_reader(
        traffic.port, max_size=MAX_PACKET, buffer_size=SOCKET_BUFFER, bind_hostname="127.0.0.1"
    )
    print("ready", flush=True)
    start = _own_cpu()
    ending = asyncio.create_task(_end_when_silent(lambda: stream.stats["packets"], stream.stop))
    heaps = 0
    async for received in stream:
        heaps += not received.is_end_of_stream()
    await ending
    return heaps, _own_cpu() - start


async def _end_when_silent(packets: Callable[[], int], finish: Callable[[], None]) -> None:
    """Call `finish` when data has come and then none for a while."""
    seen = 0
    while not seen or packets() != seen:
        seen = packets()
        await asyncio.sleep(SILENCE)
    finish()


def main() -> None:
    """Receive what the command line says; print heaps and CPU seconds."""
    parser = argparse.ArgumentParser(description="Receive a correlator's stream")
    parser.add_argument("kind", choices=("ingest", "spead2-py"))
    parser.add_argument("traffic", nargs=6)
    args = parser.parse_args()
    receive = _ingest if args.kind == "ingest" else _spead2
    print(*asyncio.run(receive(Traffic.parse(args.traffic))), flush=True)


if __name__ == "__main__":
    main()
