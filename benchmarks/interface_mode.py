"""How fast interface mode configures 192 tasks, beside that many bare KATCP servers and connections.

``python -m benchmarks.interface_mode`` prints CPU seconds and their ratio: what the controller adds to what any
such set of servers and clients costs in one process.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, cast

import aiokatcp

from scheduler.service import Scheduler
from sdpcontroller.control import ConfigureProduct, DeconfigureProduct
from sdpcontroller.interface_mode import StandInScheduler, private_redis
from sdpcontroller.interface_mode.programs import StandInProgram
from sdpcontroller.master import Master
from sdpcontroller.store import Store

STREAMS = 38
"""Visibility streams: two ingests, calibration, writer and display each."""
ANTENNA = "m{:03d}, -30:42:39.8, 21:26:38.0, 1035.0, 13.5, {:.1f} -207.3 1.2"


def document(n_streams: int = STREAMS) -> str:
    """A product with five tasks for each visibility stream, and three more."""
    outputs: dict[str, Any] = {
        "voltage": {
            "type": "sim.cbf.antenna_channelised_voltage",
            "antennas": [ANTENNA.format(i, 30 * i) for i in range(4)],
            "n_chans": 1024,
            "bandwidth": 856e6,
            "adc_sample_rate": 1712e6,
            "centre_frequency": 1284e6,
            "band": "l",
        },
        "corr": {
            "type": "sim.cbf.baseline_correlation_products",
            "src_streams": ["voltage"],
            "int_time": 0.5,
            "n_endpoints": 4,
            "n_chans_per_substream": 256,
        },
    }
    for i in range(n_streams):
        outputs[f"l0_{i}"] = {
            "type": "sdp.vis",
            "src_streams": ["corr"],
            "output_int_time": 2.0,
            "continuum_factor": 1,
            "archive": True,
        }
        outputs[f"cal_{i}"] = {"type": "sdp.cal", "src_streams": [f"l0_{i}"], "buffer_time": 60.0}
    config = {"develop": True, "shutdown_delay": 0.0}
    return json.dumps({"version": "4.9", "inputs": {}, "outputs": outputs, "config": config})


async def configure() -> tuple[int, float, float]:
    """Configure in interface mode; return the number of tasks, wall and CPU seconds."""
    async with private_redis() as (host, port):
        store = await Store.connect(f"redis://{host}:{port}/0")
        master = Master(
            store,
            cast(Scheduler, StandInScheduler()),
            address=("127.0.0.1", 5001),
            end_products=True,
        )
        ready, stop = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(master.run(ready, stop))
        await ready.wait()
        wall, cpu = time.monotonic(), time.process_time()
        await master.execute(ConfigureProduct("p", document()))
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        tasks = len(master.products()["p"].tasks)
        await master.execute(DeconfigureProduct("p", force=True))
        stop.set()
        await running
        await store.close()
    return tasks, wall, cpu


async def yardstick(n: int) -> tuple[float, float]:
    """Start that many servers and connect a client to each; return wall and CPU seconds."""
    wall, cpu = time.monotonic(), time.process_time()
    servers = [StandInProgram("ingest") for _ in range(n)]
    for server in servers:
        await server.start()
    clients = [aiokatcp.Client(*server.sockets[0].getsockname()[:2]) for server in servers]
    await asyncio.gather(*(client.wait_connected() for client in clients))
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    for client in clients:
        client.close()
        await client.wait_closed()
    for server in servers:
        await server.stop()
    return wall, cpu


async def main() -> None:
    """Measure and print."""
    tasks, wall, cpu = await configure()
    bare_wall, bare_cpu = await yardstick(tasks)
    print(f"configure {tasks} tasks: {wall:.2f} s wall, {cpu:.2f} s CPU")
    print(f"{tasks} bare servers and clients: {bare_wall:.2f} s wall, {bare_cpu:.2f} s CPU")
    print(f"ratio of CPU: {cpu / bare_cpu:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
