"""A calibration that is started again in the midst of a capture block."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.calibration.publish import _polarisation, load_applied, publish_solutions
from pipelines.calibration.solutions import Applied, Polarisation, Products
from pipelines.common import telstate as ts
from pipelines.common.endpoints import parse_endpoint
from tests.pipelines.calibration.conftest import observe

EVERYTHING = Products(delay=True, bandpass=True, gain=True, polarisation=True)
CBID = "1234567890"


async def test_what_was_in_force_is_in_force_again(redis_server: Any) -> None:
    outcome = observe(1, leakage=0.02).scan.solve(EVERYTHING)
    assert outcome is not None
    solutions, applied = outcome
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        nothing, refant = await load_applied(telstate, "cal", CBID)
        assert nothing == Applied() and refant is None
        counts = await publish_solutions(telstate, "cal", CBID, solutions)
        assert counts == {"K": 1, "B": 1, "G": 6, "D": 1, "KCROSS": 0}
        await ts.publish(telstate.view(telstate.join(CBID, "cal")), "refant", "m003")
        found, refant = await load_applied(telstate, "cal", CBID)
        other, _ = await load_applied(telstate, "cal", "1234567891")
    assert refant == "m003"
    np.testing.assert_array_equal(found.delays, applied.delays)
    np.testing.assert_array_equal(found.bandpass, applied.bandpass)
    np.testing.assert_array_equal(found.leakage, applied.leakage)
    assert other == Applied()


async def test_every_product_has_its_quality(redis_server: Any) -> None:
    unpolarised = observe(1, noise=0.1).scan.solve(EVERYTHING)
    polarised = observe(1, noise=0.1, stokes=(0.0, 0.1, 0.0)).scan.solve(
        Products(polarisation=True), unpolarised[1] if unpolarised else None
    )
    assert unpolarised is not None and polarised is not None
    assert polarised[0].gains == ()
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        for solutions, _ in (unpolarised, polarised):
            await publish_solutions(telstate, "cal", CBID, solutions)
        view = telstate.view(telstate.join(CBID, "cal"))
        keys = {key.decode() if isinstance(key, bytes) else key for key in await telstate.keys()}
        shapes = {
            key.removeprefix(f"{CBID}_cal_product_"): np.shape(
                (await view.get_range(key, st=0))[0][0]
            )
            for key in keys
            if "product" in key
        }
    assert shapes == {
        "K": (2, 8),
        "K_snr": (2, 8),
        "B0": (64, 2, 8),
        "B_snr": (2, 8),
        "G": (2, 8),
        "G_snr": (2, 8),
        "D0": (64, 2, 8),
        "D_snr": (2, 8),
        "KCROSS": (2, 8),
        "KCROSS_snr": (),
        "BCROSS_SKY0": (64, 2, 8),
    }


def test_the_phase_is_of_h_alone() -> None:
    phase = np.exp(1j * np.arange(4)).astype(np.complex64)
    samples = {
        key: value
        for _, key, value, _ in _polarisation(
            Polarisation(delay=1e-9, phase=phase, snr=9.0), 0.0, 3
        )
    }
    np.testing.assert_array_equal(samples["product_KCROSS"], [[1e-9] * 3, [0] * 3])
    np.testing.assert_array_equal(samples["product_BCROSS_SKY0"][:, 0, 2], phase)
    np.testing.assert_array_equal(samples["product_BCROSS_SKY0"][:, 1], 1)
