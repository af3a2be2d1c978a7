"""Documents to read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

ANTENNA = (
    "m{:03d}, -30:42:39.8, 21:26:38.0, 1035.0, 13.5, {:.3f} -207.289 1.2075 5874.184 5875.444 -1, "
    "-0:00:39.7 0 -0:04:04.4 -0:04:53.0 0:00:57.8 -0:00:13.9 0:13:45.2 0:00:59.8, 1.14"
)


def make_document(n_antennas: int = 64, n_chans: int = 32768) -> dict[str, Any]:
    """A document as MeerKAT's CAM sends it, with a simulated correlator."""
    return {
        "version": "4.5",
        "inputs": {"camdata": {"type": "cam.http", "url": "http://10.8.67.235/api/client/1"}},
        "outputs": {
            "i0_antenna_channelised_voltage": {
                "type": "sim.cbf.antenna_channelised_voltage",
                "antennas": [ANTENNA.format(i, 30.0 * i) for i in range(n_antennas)],
                "n_chans": n_chans,
                "bandwidth": 856000000,
                "adc_sample_rate": 1712000000.0,
                "centre_frequency": 1284000000.0,
                "band": "l",
            },
            "i0_baseline_correlation_products": {
                "type": "sim.cbf.baseline_correlation_products",
                "src_streams": ["i0_antenna_channelised_voltage"],
                "int_time": 0.499,
                "n_endpoints": 16,
                "n_chans_per_substream": n_chans // 64,
            },
            "sdp_l0": {
                "type": "sdp.vis",
                "src_streams": ["i0_baseline_correlation_products"],
                "output_int_time": 8,
                "continuum_factor": 1,
                "archive": True,
            },
            "sdp_l0_continuum": {
                "type": "sdp.vis",
                "src_streams": ["i0_baseline_correlation_products"],
                "output_int_time": 8,
                "continuum_factor": 32,
                "archive": True,
            },
            "cal": {
                "type": "sdp.cal",
                "src_streams": ["sdp_l0"],
                "parameters": {"preferred_refants": ["m003"], "g_solint": 10},
                "buffer_time": 1800.0,
            },
            "sdp_l1_flags": {
                "type": "sdp.flags",
                "src_streams": ["sdp_l0", "cal"],
                "archive": True,
            },
            "sdp_l1_flags_continuum": {
                "type": "sdp.flags",
                "src_streams": ["sdp_l0_continuum", "cal"],
                "archive": False,
                "rate_ratio": 8.0,
            },
            "continuum_image": {
                "type": "sdp.continuum_image",
                "src_streams": ["sdp_l1_flags_continuum"],
                "mfimage_parameters": {"maxFBW": 0.02, "Robust": -1.5},
                "max_realtime": 5000.0,
                "min_time": 300.0,
            },
            "spectral_image": {
                "type": "sdp.spectral_image",
                "src_streams": ["sdp_l1_flags", "continuum_image"],
                "output_channels": [100, 4000],
                "parameters": {"clean_mode": "IQUV", "major": 3},
            },
        },
        "config": {
            "develop": {"any_gpu": True},
            "image_tag": "latest",
            "image_overrides": {"katsdpingest": "registry.example:5000/katsdpingest:v3"},
            "service_overrides": {
                "ingest.sdp_l0.0": {"config": {"threads": [1, None]}, "host": "sdp-1"}
            },
            "shutdown_delay": 0,
        },
        "simulation": {
            "sources": [
                "J1, radec, 3:30:00.00, -35:00:00.0, (500.0 2000.0 1.0)",
                "J2, radec, 3:33:00.00, -35:01:00.0, (500.0 2000.0 0.5 -0.1)",
            ],
            "clock_ratio": 0.5,
            "start_time": 1700000000,
            "target": "field, radec, 3:30:00.00, -35:00:00.0",
            "seed": 7,
        },
    }


@pytest.fixture
def make() -> Callable[..., dict[str, Any]]:
    return make_document


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """Eight antennas: quick to read. Not to be changed."""
    return make_document(8, 4096)


@pytest.fixture
def changed(document: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Return the document with values replaced, by dotted path; ``...`` removes."""

    def apply(changes: dict[str, Any]) -> dict[str, Any]:
        result = copy.deepcopy(document)
        for path, value in changes.items():
            *steps, last = path.split(".")
            here = result
            for step in steps:
                here = here[step]
            if value is ...:
                del here[last]
            else:
                here[last] = value
        return result

    return apply
