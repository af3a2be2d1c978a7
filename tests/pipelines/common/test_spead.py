"""Senders."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
import numpy as np
import spead2, spead2.send
from pipelines.common import spead
from pipelines.common.endpoints import Endpoint

class Holder:
    pass

async def main(size, rate):
    sender = spead.make_sender([Endpoint("239.102.31.77", 7148)], rate=rate)
    # Only the interpreter's end takes what refers to itself apart.
    holder = Holder()
    holder.sender, holder.itself = sender, holder
    data = np.zeros(size, np.uint8)
    heap = spead2.send.Heap(spead.FLAVOUR)
    heap.add_item(spead2.Item(0x1234, "data", "", data.shape, dtype=data.dtype, value=data))
    await sender.async_send_heap(heap)

asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
"""


@pytest.mark.parametrize(("size", "rate"), [(140_000, 1e6), (400, 1e3)])
def test_a_program_ends_though_its_sender_waits_for_its_rate(size: int, rate: float) -> None:
    """The last burst is as large as a burst can be, so that the limit is waited for after it."""
    subprocess.run([sys.executable, "-c", PROGRAM, str(size), str(rate)], check=True, timeout=120)
