"""A whole observation with the resource client of the old `katcp` package, run in an environment of its own.

Usage: old_katcp_client.py HOST:PORT CONFIG. Prints what it saw as one JSON object.
"""

import collections
import collections.abc
import json
import sys

import tornado.gen
import tornado.ioloop
from katcp import resource_client

# The package is older than Python 3.10, which took these names away.
for name in ("Sequence", "Mapping", "Iterable", "Callable"):
    setattr(collections, name, getattr(collections.abc, name))


@tornado.gen.coroutine
def observe(address, config):
    host, port = address.split(":")
    client = resource_client.KATCPClientResource(
        {"name": "sdp", "address": (host, int(port)), "controlled": True}
    )
    client.start()
    yield client.until_synced(timeout=60)
    seen = {"requests": sorted(client.req)}
    seen["hints"] = {name: client.req[name].timeout_hint for name in client.req}
    # Without a timeout of its own it waits as long as the hint says.
    reply = yield client.req.product_configure("array_1", config)
    seen["configure"] = [reply.succeeded, *reply.reply.arguments]
    while "array_1_state" not in client.sensor:  # it is told of new sensors once a second
        yield tornado.gen.sleep(0.1)
    yield client.sensor.array_1_state.set_sampling_strategy("event")
    yield client.wait("array_1_state", lambda reading: reading.value == "idle", timeout=60)
    reply = yield client.req.capture_init("array_1", timeout=60)
    seen["capture_init"] = reply.reply.arguments
    state = yield client.sensor.array_1_state.get_reading()
    seen["state"] = [state.status, state.value]
    blocks = yield client.sensor.array_1_capture_block_state.get_value()
    seen["blocks"] = json.loads(blocks)
    strategy = yield client.set_sampling_strategy("state", "event")
    seen["strategy"] = repr(strategy)
    reply = yield client.req.capture_done("array_1", timeout=60)
    seen["capture_done"] = reply.reply.arguments
    reply = yield client.req.capture_done("array_1", timeout=60)
    seen["refused"] = [reply.succeeded, reply.reply.arguments[1]]
    reply = yield client.req.product_list(timeout=60)
    seen["products"] = [inform.arguments for inform in reply.informs]
    reply = yield client.req.product_deconfigure("array_1", timeout=60)
    seen["deconfigure"] = reply.succeeded
    client.stop()
    raise tornado.gen.Return(seen)


def _text(value):
    return value.decode() if isinstance(value, bytes) else repr(value)


loop = tornado.ioloop.IOLoop.current()
print(json.dumps(loop.run_sync(lambda: observe(*sys.argv[1:]), timeout=300), default=_text))
