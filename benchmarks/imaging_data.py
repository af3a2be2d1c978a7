"""A simulated observation as a MeasurementSet, by direct sums: what `benchmarks.imaging` images.

64 antennas, 44 of them in a core, the others up to 3.9 km from it; a track at -35° declination from hour angle
-3 h on; point sources with power-law spectra; noise. Two correlations (XX and YY), no flags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import casacore.tables
import numba
import numpy as np
import numpy.typing as npt

SPEED_OF_LIGHT = 299_792_458.0
LATITUDE, DECLINATION = math.radians(-30.7), math.radians(-35.0)
RIGHT_ASCENSION = 1.178
HOUR_ANGLE = -0.8
SIDEREAL_DAY = 86164.1
START = 5.1e9
"""Seconds of modified Julian date: 2020."""
CENTRE = 1284e6
DISH = 13.5

Floats = npt.NDArray[np.float64]
_tables: Any = casacore.tables

SKY = (
    (0.0, 0.0, 1.0),
    (0.002, -0.001, 0.7),
    (-0.0035, 0.0025, 0.5),
    (0.0051, 0.0048, 0.4),
    (-0.0048, -0.0056, 0.3),
)
"""Direction cosines l and m, and flux density, of five sources; those of the design's measurements."""


@dataclass(frozen=True)
class Simulation:
    """What is observed.

    Attributes
    ----------
    antennas, dumps, channels : int
        How many; 8 s a dump.
    channel_width, noise : float
        Hz; Jy in the real and the imaginary part of one sample.
    sky : tuple of (float, float, float) or (float, float, float, float)
        l, m, flux density at 1284 MHz, spectral index (0 if left out).
    lines : tuple of (float, float, float, float, float)
        l, m, peak, channel of the peak, and width (standard deviation, in channels) of spectral lines.
    seed : int
        Of antennas and noise.
    """

    antennas: int = 64
    dumps: int = 200
    channels: int = 32
    channel_width: float = 856e6 / 1024
    noise: float = 0.05
    sky: tuple[tuple[float, ...], ...] = SKY
    lines: tuple[tuple[float, float, float, float, float], ...] = ()
    seed: int = 1

    @property
    def frequencies(self) -> Floats:
        """Hz, float64 (channels,)."""
        offsets = np.arange(self.channels) - self.channels // 2
        return CENTRE + self.channel_width * offsets.astype(np.float64)


def positions(simulation: Simulation) -> Floats:
    """East, north, up in metres, float64 (antennas, 3)."""
    rng = np.random.default_rng(simulation.seed)
    n_core = round(simulation.antennas * 44 / 64)
    core = rng.normal(0, 250, (n_core, 2))
    radius = rng.uniform(600, 3900, simulation.antennas - n_core)
    angle = rng.uniform(0, 2 * math.pi, radius.size)
    outer = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.column_stack([np.concatenate([core, outer]), rng.normal(0, 3, simulation.antennas)])


def coordinates(simulation: Simulation) -> tuple[Floats, npt.NDArray[np.int32]]:
    """Return u, v, w in metres, float64 (dumps, baselines, 3), and the baselines' antennas (baselines, 2).

    Thompson, Moran & Swenson, 3rd ed., equation 4.1; uvw(first) - uvw(second), as everywhere in this system.
    """
    hours = HOUR_ANGLE + np.arange(simulation.dumps) * 8.0 * 2 * math.pi / SIDEREAL_DAY
    east, north, up = positions(simulation).T
    x = -math.sin(LATITUDE) * north + math.cos(LATITUDE) * up
    z = math.cos(LATITUDE) * north + math.sin(LATITUDE) * up
    sin_h, cos_h = np.sin(hours)[:, None], np.cos(hours)[:, None]
    radial = cos_h * x - sin_h * east
    u = sin_h * x + cos_h * east
    v = -math.sin(DECLINATION) * radial + math.cos(DECLINATION) * z
    w = math.cos(DECLINATION) * radial + math.sin(DECLINATION) * z
    uvw = np.stack([u, v, w], axis=-1)
    pairs = np.stack(np.triu_indices(simulation.antennas, 1), axis=1).astype(np.int32)
    return uvw[:, pairs[:, 0]] - uvw[:, pairs[:, 1]], pairs


@numba.njit(nogil=True, cache=True)
def _add_source(vis, uvw, frequencies, l, m, fluxes):  # type: ignore[no-untyped-def] # noqa: E741 # compiled
    n = math.sqrt(1 - l * l - m * m) - 1
    for row in range(uvw.shape[0]):
        path = 2 * math.pi / SPEED_OF_LIGHT * (uvw[row, 0] * l + uvw[row, 1] * m + uvw[row, 2] * n)
        for channel in range(frequencies.size):
            phase = path * frequencies[channel]
            vis[row, channel] += fluxes[channel] * complex(math.cos(phase), math.sin(phase))


def visibilities(simulation: Simulation, uvw: Floats) -> npt.NDArray[np.complex128]:
    """``Σ S exp(+2πi(ul + vm + w(n-1)))``, complex128 (rows, channels)."""
    frequencies = simulation.frequencies
    vis = np.zeros((len(uvw), frequencies.size), np.complex128)
    for l, m, flux, *index in simulation.sky:  # noqa: E741
        fluxes = flux * (frequencies / CENTRE) ** (index[0] if index else 0.0)
        _add_source(vis, uvw, frequencies, l, m, fluxes)
    for l, m, peak, channel, width in simulation.lines:  # noqa: E741
        offsets = (np.arange(frequencies.size) - channel) / width
        _add_source(vis, uvw, frequencies, l, m, peak * np.exp(-(offsets**2) / 2))
    return vis


def write_measurement_set(path: Path, simulation: Simulation) -> None:
    """Simulate and write; the directory must not be there."""
    uvw, pairs = coordinates(simulation)
    rng = np.random.default_rng(simulation.seed + 1)
    main = _create(path, simulation, len(pairs))
    for dump, rows in enumerate(uvw):
        vis = visibilities(simulation, rows)[..., None]
        shape = (*vis.shape[:2], 2)
        noise = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
        start = dump * len(pairs)
        both = (vis + simulation.noise * noise).astype(np.complex64)
        main.putcol("DATA", both, start, len(pairs))
        main.putcol("FLAG", np.zeros(shape, np.bool_), start, len(pairs))
        main.putcol("UVW", rows, start, len(pairs))
    _fill_main(main, simulation, pairs)
    main.close()
    for name, rows in _subtables(simulation).items():
        with _tables.table(f"{path}::{name}", readonly=False, ack=False) as table:
            _fill(table, rows)


def _create(path: Path, simulation: Simulation, n_baselines: int) -> Any:
    description = _tables.required_ms_desc("MAIN")
    for name, value, kind in (("DATA", 0j, "complex"), ("FLAG", True, "boolean")):
        column = _tables.makearrcoldesc(
            name,
            value,
            shape=[simulation.channels, 2],
            options=4,
            valuetype=kind,
            datamanagertype="TiledColumnStMan",
            datamanagergroup=name,
        )
        description.update(_tables.maketabdesc(column))
    tile = {"DEFAULTTILESHAPE": np.array([2, simulation.channels, n_baselines], np.int32)}
    tiles = _tables.makedminfo(description, {"DATA": tile, "FLAG": tile})
    main = _tables.default_ms(str(path), description, tiles)
    main.addrows(n_baselines * simulation.dumps)
    return main


def _fill_main(main: Any, simulation: Simulation, pairs: npt.NDArray[np.int32]) -> None:
    rows = len(pairs) * simulation.dumps
    times = np.repeat(START + 8.0 * np.arange(simulation.dumps), len(pairs))
    columns: dict[str, npt.NDArray[Any]] = {
        "ANTENNA1": np.tile(pairs[:, 0], simulation.dumps),
        "ANTENNA2": np.tile(pairs[:, 1], simulation.dumps),
        "TIME": times,
        "TIME_CENTROID": times,
        "INTERVAL": np.full(rows, 8.0),
        "EXPOSURE": np.full(rows, 8.0),
        "WEIGHT": np.ones((rows, 2), np.float32),
        "SIGMA": np.ones((rows, 2), np.float32),
        "FLAG_ROW": np.zeros(rows, np.bool_),
        "STATE_ID": np.full(rows, -1, np.int32),
    }
    numbers = ("DATA_DESC_ID", "FIELD_ID", "ARRAY_ID", "OBSERVATION_ID", "PROCESSOR_ID")
    columns |= {n: np.zeros(rows, np.int32) for n in (*numbers, "SCAN_NUMBER", "FEED1", "FEED2")}
    for name, values in columns.items():
        main.putcol(name, values)


def _subtables(simulation: Simulation) -> dict[str, dict[str, list[Any]]]:
    """Rows of the subtables, by column."""
    names = [f"m{i:03d}" for i in range(simulation.antennas)]
    centre = np.array([5109224.0, 2006790.0, -3238922.0])
    direction = np.array([[RIGHT_ASCENSION, DECLINATION]])
    frequencies, width = simulation.frequencies, simulation.channel_width
    widths = np.full(frequencies.size, width)
    return {
        "ANTENNA": {
            "NAME": names,
            "STATION": names,
            "TYPE": ["GROUND-BASED"] * len(names),
            "MOUNT": ["ALT-AZ"] * len(names),
            "DISH_DIAMETER": [DISH] * len(names),
            "POSITION": list(centre + positions(simulation)),
            "OFFSET": [np.zeros(3)] * len(names),
            "FLAG_ROW": [False] * len(names),
        },
        "FIELD": {
            "NAME": ["synthetic"],
            "NUM_POLY": [0],
            "SOURCE_ID": [0],
            "TIME": [START],
            **{name: [direction] for name in ("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR")},
            "FLAG_ROW": [False],
        },
        "SPECTRAL_WINDOW": {
            "NUM_CHAN": [frequencies.size],
            "REF_FREQUENCY": [float(frequencies[0])],
            "CHAN_FREQ": [frequencies],
            "CHAN_WIDTH": [widths],
            "EFFECTIVE_BW": [widths],
            "RESOLUTION": [widths],
            "TOTAL_BANDWIDTH": [width * frequencies.size],
            "MEAS_FREQ_REF": [5],
            "NET_SIDEBAND": [1],
            "FLAG_ROW": [False],
        },
        "POLARIZATION": {
            "NUM_CORR": [2],
            "CORR_TYPE": [np.array([9, 12], np.int32)],
            "CORR_PRODUCT": [np.array([[0, 0], [1, 1]], np.int32)],
            "FLAG_ROW": [False],
        },
        "DATA_DESCRIPTION": {
            "SPECTRAL_WINDOW_ID": [0],
            "POLARIZATION_ID": [0],
            "FLAG_ROW": [False],
        },
        "OBSERVATION": {
            "TELESCOPE_NAME": ["MeerKAT"],
            "OBSERVER": ["nobody"],
            "TIME_RANGE": [np.array([START, START + 8.0 * simulation.dumps])],
            "FLAG_ROW": [False],
        },
    }


def _fill(table: Any, columns: dict[str, list[Any]]) -> None:
    table.addrows(len(next(iter(columns.values()))))
    for name, values in columns.items():
        for row, value in enumerate(values):
            table.putcell(name, row, value)
