"""How fast a product configuration is read: ``python -m benchmarks.documents``.

A document of 64 antennas and 32k channels, with all kinds of outputs. The yardsticks are beside it: the parser
of JSON alone, and that with a bare validation by the exported JSON Schema, which checks single fields only;
what is read here is checked across streams, with antennas that katpoint has parsed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import jsonschema

from sdpcontroller import config

AIM: Final = 0.05
"""Seconds."""
ANTENNA: Final = (
    "m{:03d}, -30:42:39.8, 21:26:38.0, 1035.0, 13.5, {:.1f} -207.289 1.2075 5874.184 5875.444 -1, "
    "-0:00:39.7 0 -0:04:04.4 -0:04:53.0 0:00:57.8 -0:00:13.9 0:13:45.2 0:00:59.8, 1.14"
)
"""With its delay and pointing models, as CAM sends it."""


def document(antennas: int = 64, channels: int = 32768) -> dict[str, Any]:
    """Return a product of a simulated correlator, calibrated, written, imaged."""
    correlator = {
        "voltage": {
            "type": "sim.cbf.antenna_channelised_voltage",
            "antennas": [ANTENNA.format(n, 30.0 * n) for n in range(antennas)],
            "n_chans": channels,
            "bandwidth": 856e6,
            "adc_sample_rate": 1712e6,
            "centre_frequency": 1284e6,
            "band": "l",
        },
        "products": {
            "type": "sim.cbf.baseline_correlation_products",
            "src_streams": ["voltage"],
            "int_time": 0.499,
            "n_endpoints": 16,
            "n_chans_per_substream": channels // 64,
        },
    }
    offline = {
        "continuum_image": {"type": "sdp.continuum_image", "src_streams": ["flags_32"]},
        "spectral_image": {
            "type": "sdp.spectral_image",
            "src_streams": ["flags_1", "continuum_image"],
            "output_channels": [100, 4000],
        },
    }
    return {
        "version": "4.5",
        "outputs": {**correlator, **_realtime("l0_1", 1), **_realtime("l0_32", 32), **offline},
    }


def _realtime(name: str, factor: int) -> dict[str, Any]:
    """Return visibilities, averaged over channels, with calibration and flags of their own."""
    vis = {"type": "sdp.vis", "src_streams": ["products"], "output_int_time": 8.0}
    flags = {"type": "sdp.flags", "src_streams": [name, f"cal_{factor}"], "archive": True}
    return {
        name: {**vis, "continuum_factor": factor, "archive": True},
        f"cal_{factor}": {"type": "sdp.cal", "src_streams": [name]},
        f"flags_{factor}": flags,
    }


def fastest(act: Callable[[], object], times: int) -> float:
    """Return the CPU seconds of the fastest of so many: the others were disturbed."""
    found = []
    for _ in range(times):
        begun = time.thread_time()
        act()
        found.append(time.thread_time() - begun)
    return min(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.documents", description=__doc__)
    parser.add_argument("--antennas", type=int, default=64)
    parser.add_argument("--channels", type=int, default=32768)
    parser.add_argument("--times", type=int, default=20, help="of which the fastest counts")
    options = parser.parse_args(arguments)
    text = json.dumps(document(options.antennas, options.channels))
    validator = jsonschema.Draft202012Validator(config.json_schema())
    ours = fastest(lambda: config.parse(text), options.times)
    bare = fastest(lambda: validator.validate(json.loads(text)), options.times)
    alone = fastest(lambda: json.loads(text), options.times)
    print(f"{options.antennas} antennas, {options.channels} channels: {len(text)} bytes")
    verdict = "met" if ours <= AIM else "MISSED"
    print(f"  read: {1000 * ours:.2f} ms of CPU (aim {1000 * AIM:g} ms: {verdict})")
    print(f"  {ours / bare:.2f} x JSON and a bare JSON Schema ({1000 * bare:.2f} ms)")
    print(f"  {ours / alone:.1f} x the parser of JSON alone ({1000 * alone:.3f} ms)")


if __name__ == "__main__":
    main()
