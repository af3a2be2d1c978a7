"""The product configurations of the demonstration, as documents that CAM could send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.correlator.meerkat import antenna_description

if TYPE_CHECKING:  # it needs the programs' own packages, which only a replay has to have
    from pipelines.correlator.replay import ReplayDescription

PRODUCT: Final = "demo"
CORRELATION: Final = "i0_baseline_correlation_products"
VOLTAGE: Final = "i0_antenna_channelised_voltage"
VIS: Final = "sdp_l0"
CAL: Final = "cal"
IMAGE: Final = "continuum_image"

ANTENNAS: Final = ("m000", "m011", "m022", "m034", "m040", "m044", "m051", "m055")
"""Eight of MeerKAT's antennas whose baselines, 100 m to 2.2 km, are spread evenly."""

START_TIME: Final = 1772382000.0
"""2026-03-01 16:20 UTC: the field is near the zenith of the Karoo."""

CALIBRATOR: Final = (
    "J0408-6545, radec bpcal gaincal delaycal, 4:08:20.38, -65:45:09.1, "
    "(800.0 8400.0 -3.708 3.807 -0.7202)"
)
"""MeerKAT's southern bandpass calibrator with the flux model of its pipelines: 14.7 Jy at 1284 MHz."""

FIELD: Final = "Demo field, radec target, 4:24:00.0, -38:00:00.0"
"""Phase centre of the simulated field; the name of the target is that of its image."""

SOURCES: Final = (
    "S1, radec, 4:24:00.0, -38:00:00.0, (500.0 3000.0 0.0)",
    "S2, radec, 4:25:05.0, -37:48:30.0, (500.0 3000.0 -0.155)",
    "S3, radec, 4:22:46.0, -38:09:15.0, (500.0 3000.0 -0.301)",
    "S4, radec, 4:24:32.0, -38:17:40.0, (500.0 3000.0 -0.398)",
    "S5, radec, 4:23:14.0, -37:44:50.0, (500.0 3000.0 -0.523)",
)
"""1, 0.7, 0.5, 0.4 and 0.3 Jy, flat over the band."""


@dataclass(frozen=True, slots=True)
class Pointing:
    """A target, and how long to stay on it."""

    target: str
    """katpoint description."""
    seconds: float
    """Of wall clock."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the demonstration does."""

    document: dict[str, Any]
    """Product configuration."""
    pointings: tuple[Pointing, ...]
    """In order. A replay has one, and the recording decides where it looks."""
    sky: tuple[str, ...]
    """katpoint descriptions of what the image must show; empty where that is not known."""
    what: str
    """For people."""
    replay: bool = False


def simulated(
    seconds: float,
    calibrator_seconds: float,
    *,
    antennas: Sequence[str] = ANTENNAS,
    cycles: int = 1,
) -> Observation:
    """Eight antennas, 1024 channels in eight substreams, five sources and a calibrator.

    Parameters
    ----------
    seconds, calibrator_seconds
        Of a cycle, on the field and on the calibrator before it; where there are several cycles, there is the
        calibrator once more at the end.
    antennas
        Names of MeerKAT's antennas.
    """
    document = _document(
        antennas=[antenna_description(name) for name in antennas],
        n_chans=1024,
        bandwidth=856e6,
        adc_sample_rate=1712e6,
        centre_frequency=1284e6,
        band="l",
        correlation={"int_time": 0.5, "n_endpoints": 4, "n_chans_per_substream": 128},
        output_int_time=2.0,
        simulation={
            "sources": [*SOURCES, CALIBRATOR],
            "start_time": START_TIME,
            "target": CALIBRATOR,
        },
    )
    calibrator = Pointing(CALIBRATOR, calibrator_seconds)
    pointings = (calibrator, Pointing(FIELD, seconds)) * cycles
    return Observation(
        document,
        pointings if cycles == 1 else (*pointings, calibrator),
        SOURCES,
        f"{len(antennas)} antennas of MeerKAT (simulated), {len(SOURCES)} sources",
    )


def replayed(path: Path, recording: ReplayDescription, rate: float) -> Observation:
    """Send a recorded observation instead, `rate` seconds of it per second."""
    n_chans = recording.n_chans
    per_substream = n_chans // 4 if n_chans % 4 == 0 else n_chans
    document = _document(
        antennas=list(recording.antennas),
        n_chans=n_chans,
        bandwidth=recording.bandwidth,
        adc_sample_rate=recording.adc_sample_rate,
        centre_frequency=recording.centre_frequency,
        band=recording.band,
        correlation={
            "int_time": recording.int_time,
            "n_endpoints": n_chans // per_substream,
            "n_chans_per_substream": per_substream,
        },
        output_int_time=recording.int_time,
        simulation={
            "start_time": recording.start_time,
            "replay": {"file": str(path.resolve()), "rate": rate},
        },
    )
    duration = recording.n_dumps * recording.int_time / rate
    return Observation(
        document,
        (Pointing(recording.target, duration),),
        (),
        f"{path.name}: {len(recording.antennas)} antennas, {recording.n_dumps} dumps",
        replay=True,
    )


def _document(
    *,
    antennas: list[str],
    n_chans: int,
    bandwidth: float,
    adc_sample_rate: float,
    centre_frequency: float,
    band: str,
    correlation: dict[str, Any],
    output_int_time: float,
    simulation: dict[str, Any],
) -> dict[str, Any]:
    return {
        "version": "4.9",
        "inputs": {},
        "outputs": {
            VOLTAGE: {
                "type": "sim.cbf.antenna_channelised_voltage",
                "antennas": antennas,
                "n_chans": n_chans,
                "bandwidth": bandwidth,
                "adc_sample_rate": adc_sample_rate,
                "centre_frequency": centre_frequency,
                "band": band,
            },
            CORRELATION: {
                "type": "sim.cbf.baseline_correlation_products",
                "src_streams": [VOLTAGE],
                **correlation,
            },
            VIS: {
                "type": "sdp.vis",
                "src_streams": [CORRELATION],
                "output_int_time": output_int_time,
                "continuum_factor": 1,
                "excise": False,
                "archive": True,
            },
            CAL: {"type": "sdp.cal", "src_streams": [VIS], "buffer_time": 200.0},
            IMAGE: {"type": "sdp.continuum_image", "src_streams": [VIS, CAL], "min_time": 5.0},
        },
        "config": {"develop": {"less_resources": True, "disable_ibverbs": True}},
        "simulation": simulation,
    }
