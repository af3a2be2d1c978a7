"""A simulated observation by direct Fourier sums in double precision; no gridder, no katpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import katpoint
import katsdptelstate
import numpy as np
import pytest
from katdal.chunkstore_npy import NpyFileChunkStore
from katsdptelstate.rdb_writer import RDBWriter

LIGHT = 299_792_458.0
LATITUDE = math.radians(-30.7)

# East, north, up in metres of eight antennas, spread like the inner part of MeerKAT.
ANTENNAS = np.array(
    [
        [-8.3, -207.3, 8.6],
        [1.1, -171.8, 8.5],
        [199.6, -112.3, 8.3],
        [-535.0, -318.8, 9.2],
        [295.1, -326.2, 8.0],
        [-371.7, 397.1, 7.5],
        [626.1, 55.9, 7.9],
        [-102.1, -1007.4, 8.8],
    ]
)


@dataclass(frozen=True)
class Observation:
    """Stokes I visibilities: uvw (rows, 3) in metres, baseline by baseline, and what was put in."""

    uvw: np.ndarray
    frequencies: np.ndarray
    vis: np.ndarray
    weights: np.ndarray
    sky: np.ndarray  # (sources, 3): l, m, flux

    @property
    def longest(self) -> float:
        length = np.sqrt(np.sum(self.uvw**2, axis=1)).max()
        return float(length * self.frequencies.max() / LIGHT)


def baselines(antennas: np.ndarray, dec: float, hour_angles: np.ndarray) -> np.ndarray:
    """uvw(A) - uvw(B) in metres, (baselines × times, 3); Thompson, Moran, Swenson eq. 4.1."""
    east, north, up = antennas.T
    x = -math.sin(LATITUDE) * north + math.cos(LATITUDE) * up
    z = math.cos(LATITUDE) * north + math.sin(LATITUDE) * up
    sin_h, cos_h = np.sin(hour_angles)[:, None], np.cos(hour_angles)[:, None]
    u = sin_h * x + cos_h * east
    radial = cos_h * x - sin_h * east
    v = -math.sin(dec) * radial + math.cos(dec) * z
    w = math.cos(dec) * radial + math.sin(dec) * z
    uvw = np.stack([u, v, w], axis=-1)
    first, second = np.triu_indices(len(antennas), 1)
    return (uvw[:, first] - uvw[:, second]).transpose(1, 0, 2).reshape(-1, 3)


def predict(
    uvw: np.ndarray, frequencies: np.ndarray, sky: np.ndarray, index: float = 0.0
) -> np.ndarray:
    """Σ S exp(+2πi(ul + vm + w(n-1))), with a spectral index about the middle of the band."""
    vis = np.zeros((len(uvw), len(frequencies)), np.complex128)
    spectrum = (frequencies / frequencies.mean()) ** index
    for l, m, flux in sky:  # noqa: E741
        path = uvw @ np.array([l, m, math.sqrt(1 - l * l - m * m) - 1])
        vis += flux * spectrum * np.exp(2j * np.pi / LIGHT * path[:, None] * frequencies)
    return vis


def observe(
    sky: np.ndarray,
    *,
    rng: np.random.Generator,
    noise: float = 0.0,
    dec: float = math.radians(-35.0),
    hour_angle: float = 0.1,
    dumps: int = 3,
    seconds: float = 24.0,
    channels: int = 1024,
    index: float = 0.0,
    antennas: np.ndarray = ANTENNAS,
) -> Observation:
    hours = hour_angle + np.arange(dumps) * seconds / dumps * 2 * np.pi / 86164.1
    frequencies = 856e6 + 856e6 / channels * np.arange(channels)
    uvw = baselines(antennas, dec, hours)
    vis = predict(uvw, frequencies, sky, index)
    vis += noise * (rng.standard_normal(vis.shape) + 1j * rng.standard_normal(vis.shape))
    weights = np.ones(vis.shape, np.float32)
    return Observation(uvw, frequencies, vis.astype(np.complex64), weights, sky)


@pytest.fixture
def observation() -> Callable[..., Observation]:
    return observe


# --- a data set of the telescope's own format, as katdal reads it -------------------------------------

CBID, STREAM = "1700000000", "sdp_l0"
START = 1_700_000_000.0


@dataclass(frozen=True)
class SkySource:
    """A source by its offset from the phase centre in direction cosines; polarised by `q`."""

    l: float  # noqa: E741
    m: float
    flux: float
    q: float = 0.0


def antenna_descriptions(enu: np.ndarray) -> list[str]:
    site = "-30:42:47.41, 21:26:38.0, 1035.0, 13.5"
    return [
        f"m{i:03d}, {site}, {e:.4f} {n:.4f} {u:.4f}" for i, (e, n, u) in enumerate(enu.tolist())
    ]


def write_dataset(
    root: Path,
    sky: Sequence[Sequence[float]],
    *,
    target: str = "Field 1, radec target, 4:30:00.0, -35:00:00.0",
    calibrator: str = "J0408-6545, radec bpcal, 4:08:20.38, -65:45:09.1",
    dumps: int = 3,
    channels: int = 64,
    int_time: float = 8.0,
    noise: float = 0.0,
    flagged: bool = False,
    seed: int = 1,
    gains: bool = False,
) -> Path:
    """Write a MVFv4 data set (dumps: slewing, calibrator, slewing, then the target's); return its rdb.

    Visibilities come from katpoint's uvw and direct sums; the calibrator has none. The first channel of the
    second antenna's v input is flagged, and holds rubbish. With `gains`, the data are multiplied by gains that
    a calibration stream in the data set knows.
    """
    rng = np.random.default_rng(seed)
    antennas = [katpoint.Antenna(text) for text in antenna_descriptions(ANTENNAS)]
    pairs = [(a, b) for b in range(len(antennas)) for a in range(b + 1)]
    hands = [(p, q) for p in "hv" for q in "hv"]
    ordering = [(antennas[a].name + p, antennas[b].name + q) for a, b in pairs for p, q in hands]
    frequencies = 856e6 + 856e6 / channels * np.arange(channels)
    total = dumps + 3
    times = START + int_time * (0.5 + np.arange(total))
    vis = np.zeros((total, channels, len(ordering)), np.complex64)
    field = katpoint.Target(target)
    reference = katpoint.Antenna("array, -30:42:47.41, 21:26:38.0, 1035.0, 0.0")
    for t in range(3, total):
        # From the reference towards the antenna, so that differences are uvw(A) - uvw(B).
        position = np.array([field.uvw(a, times[t], reference) for a in antennas])
        for i, (a, b) in enumerate(pairs):
            uvw = (position[a] - position[b])[None]
            for source in (SkySource(*values) for values in sky):
                wave = predict(uvw, frequencies, np.array([[source.l, source.m, 1.0]]))[0]
                vis[t, :, 4 * i] += (source.flux + source.q) * wave
                vis[t, :, 4 * i + 3] += (source.flux - source.q) * wave
    vis += noise * (rng.standard_normal(vis.shape) + 1j * rng.standard_normal(vis.shape))
    flags = np.full(vis.shape, 16 if flagged else 0, np.uint8)
    bad = [i for i, pair in enumerate(ordering) if "m001v" in pair]
    flags[:, 0, bad] = 16
    vis[:, 0, bad] = 1e6
    gain = np.ones((2, len(antennas)), np.complex64)
    if gains:
        gain *= np.exp(rng.normal(0, 0.3, gain.shape) + 2j * np.pi * rng.random(gain.shape))
    inputs = {a.name + p: gain[i, j] for j, a in enumerate(antennas) for i, p in enumerate("hv")}
    vis *= np.array([inputs[p] * np.conj(inputs[q]) for p, q in ordering])
    chunk_info = _store(root, vis, flags)
    telstate = katsdptelstate.TelescopeState()
    _describe(telstate, antennas, ordering, frequencies, int_time, times, (calibrator, target))
    view = telstate.view(telstate.join(CBID, STREAM))
    view["chunk_info"] = chunk_info
    view["first_timestamp"] = 0.5 * int_time
    if gains:
        _describe_gains(telstate, antennas, gain)
    rdb = root / CBID / f"{CBID}_{STREAM}.rdb"
    rdb.parent.mkdir(parents=True)
    with RDBWriter(str(rdb)) as writer:
        writer.save(telstate)
    return rdb


def _store(root: Path, vis: np.ndarray, flags: np.ndarray) -> dict[str, dict[str, object]]:
    """Write the arrays, a chunk per dump; return chunk_info."""
    arrays = {
        "correlator_data": vis,
        "flags": flags,
        "weights": np.ones(vis.shape, np.uint8),
        "weights_channel": np.ones(vis.shape[:2], np.float32),
    }
    prefix = f"{CBID}-{STREAM.replace('_', '-')}"
    root.mkdir(parents=True, exist_ok=True)
    store = NpyFileChunkStore(str(root))
    info: dict[str, dict[str, object]] = {}
    for name, array in arrays.items():
        store.create_array(f"{prefix}/{name}")
        for dump in range(len(vis)):
            where = (slice(dump, dump + 1), *(slice(0, n) for n in array.shape[1:]))
            store.put_chunk(f"{prefix}/{name}", where, array[where])
        store.mark_complete(f"{prefix}/{name}")
        info[name] = {
            "prefix": prefix,
            "chunks": ((1,) * len(vis), *((n,) for n in array.shape[1:])),
            "dtype": np.lib.format.dtype_to_descr(array.dtype),
            "shape": array.shape,
        }
    return info


def _describe(telstate, antennas, ordering, frequencies, int_time, times, targets) -> None:
    channels = len(frequencies)
    telstate["capture_block_id"], telstate["stream_name"] = CBID, STREAM
    telstate["sub_pool_resources"] = ",".join(a.name for a in antennas)
    telstate["sub_product"], telstate["sub_band"] = "c856M", "l"
    telstate["sdp_archived_streams"] = [STREAM]
    for antenna in antennas:
        telstate[f"{antenna.name}_observer"] = antenna.description
    telstate.view(CBID)["obs_params"] = {
        "observer": "nobody",
        "description": "test",
        "experiment_id": "0",
        "ants": telstate["sub_pool_resources"],
    }
    stream = telstate.view(STREAM)
    values = {
        "stream_type": "sdp.vis",
        "n_chans": channels,
        "bandwidth": 856e6,
        "center_freq": float(frequencies[channels // 2]),
        "sync_time": START,
        "int_time": int_time,
        "bls_ordering": ordering,
        "n_bls": len(ordering),
        "need_weights_power_scale": False,
        "excise": True,
        "src_streams": [],
    }
    for key, value in values.items():
        stream[key] = value
    # What comes within a dump is all of that dump's, and slewing is greedy: a track is announced
    # just before its first dump, a target while slewing.
    for dump, activity, target in (
        (-1, "slew", 0),
        (0.4, "track", 0),
        (2, "slew", 1),
        (2.4, "track", 1),
    ):
        time = times[0] + dump * int_time
        telstate.add("obs_activity", activity, ts=time)
        if activity == "slew":
            telstate.add("cbf_target", targets[target], ts=time)


def _describe_gains(telstate, antennas, gain: np.ndarray) -> None:
    telstate.delete("sdp_archived_streams")
    telstate["sdp_archived_streams"] = [STREAM, "cal"]
    cal = telstate.view("cal")
    cal["stream_type"], cal["src_streams"] = "sdp.cal", [STREAM]
    cal["antlist"], cal["pol_ordering"] = [a.name for a in antennas], ["h", "v"]
    cal["n_chans"], cal["bandwidth"], cal["center_freq"] = 64, 856e6, 1284e6
    cal["refant"], cal["product_B_parts"] = antennas[0].name, 1
    solutions = telstate.view(telstate.join(CBID, "cal"))
    solutions.add("product_G", gain, ts=START)


@pytest.fixture
def dataset_writer() -> Callable[..., Path]:
    return write_dataset
