"""Product configurations of all shapes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from sdpcontroller import config
from sdpcontroller.config import ProductConfig
from sdpcontroller.workflows import realtime
from sdpcontroller.workflows.plan import Workflow

ANTENNA = "m{:03d}, -30:42:39.8, 21:26:38.0, 1035.0, 13.5, {:.1f} -207.3 1.2"
SOURCE = "J1, radec target, 4:24:00.0, -38:00:00.0, (500.0 3000.0 0.0)"


def make_config(
    *,
    n_antennas: int = 4,
    n_substreams: int = 8,
    per_substream: int = 128,
    n_endpoints: int = 4,
    int_time: float = 0.5,
    dumps: int = 4,
    factors: tuple[int, ...] = (1,),
    output_channels: tuple[int, int] | None = None,
    archive: bool = True,
    cal: bool = True,
    clock_ratio: float = 1.0,
    **more: Any,
) -> ProductConfig:
    """One simulated correlator, a visibility stream for each of `factors`, each with cal and image."""
    outputs: dict[str, Any] = {
        "voltage": {
            "type": "sim.cbf.antenna_channelised_voltage",
            "antennas": [ANTENNA.format(i, 30 * i) for i in range(n_antennas)],
            "n_chans": n_substreams * per_substream,
            "bandwidth": 856e6,
            "adc_sample_rate": 1712e6,
            "centre_frequency": 1284e6,
            "band": "l",
        },
        "corr": {
            "type": "sim.cbf.baseline_correlation_products",
            "src_streams": ["voltage"],
            "int_time": int_time,
            "n_endpoints": n_endpoints,
            "n_chans_per_substream": per_substream,
        },
    }
    for number, factor in enumerate(factors):
        outputs[f"l0_{number}"] = {
            "type": "sdp.vis",
            "src_streams": ["corr"],
            "output_int_time": dumps * int_time,
            "continuum_factor": factor,
            "archive": archive,
        }
        if output_channels is not None:
            outputs[f"l0_{number}"]["output_channels"] = list(output_channels)
        if cal:
            outputs[f"cal_{number}"] = {"type": "sdp.cal", "src_streams": [f"l0_{number}"]}
    outputs |= more.pop("outputs", {})
    document = {
        "version": "4.9",
        "outputs": outputs,
        "simulation": {"sources": [SOURCE], "clock_ratio": clock_ratio, "start_time": 1772382000},
        **more,
    }
    return config.parse(json.dumps(document))


@st.composite
def config_strategy(draw: st.DrawFn) -> ProductConfig:
    n_endpoints = draw(st.sampled_from([1, 2, 4, 16]))
    n_substreams = n_endpoints * draw(st.sampled_from([1, 2, 4]))
    per_substream = draw(st.sampled_from([16, 128, 512]))
    cut = draw(st.integers(0, n_substreams - 1)) * per_substream
    channels = draw(st.sampled_from([None, (cut, n_substreams * per_substream)]))
    return make_config(
        n_antennas=draw(st.integers(4, 16)),
        n_substreams=n_substreams,
        per_substream=per_substream,
        n_endpoints=n_endpoints,
        dumps=draw(st.integers(1, 16)),
        factors=tuple(draw(st.lists(st.sampled_from([1, 2, 8]), min_size=1, max_size=2))),
        output_channels=channels,
        archive=draw(st.booleans()),
        clock_ratio=draw(st.sampled_from([0.2, 1.0, 3.0])),
        config={"develop": {"less_resources": draw(st.booleans())}},
    )


def build(product: ProductConfig) -> Workflow:
    needs = realtime.multicast_needs(product)
    groups = {name: f"239.192.{number}.1" for number, name in enumerate(needs)}
    return realtime.build(product, "array_1", groups)
