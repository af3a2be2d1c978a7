"""A sky of point and Gaussian sources, seen by an interferometer with noise, gains, interference and faults.

Computed as the measurement equation of the interface says, with the true uvw at the centre of each dump.
The primary beam is a circle: a source within `FIELD_OF_VIEW` of the phase centre is seen at its full flux
density, any other not at all (far sidelobes of a real dish are some 40 dB down). Not modelled: smearing within
a channel or a dump, parallactic rotation (feeds are aligned with the sky), the horizon.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import katpoint
import numpy as np
from numpy.typing import NDArray

from pipelines.common import uvw
from pipelines.common.baselines import POLARISATIONS, correlator_ordering
from pipelines.common.stream_info import CorrelatorStream
from pipelines.correlator.errors import ModelError
from pipelines.correlator.gains import GainModel
from pipelines.correlator.kernels import correlate
from pipelines.correlator.leakage import LeakageModel
from pipelines.correlator.rfi import MAX_EMITTERS, RfiModel
from pipelines.correlator.shapes import shapes_of

DEFAULT_SEFD: Final = 420.0
"""System equivalent flux density of one input of MeerKAT in L band, Jy."""

MAX_ANTENNAS: Final = 256
MAX_LEAKAGE: Final = 0.5
MAX_CROSS_DELAY: Final = 1e-6
"""Seconds."""
HOT_GAIN: Final = 64.0
"""36 dB of power: an autocorrelation of `COUNTS_OF_FULL_POWER` is clipped."""

FIELD_OF_VIEW: Final = math.radians(3.0)
"""Radius in which sources are seen, rad: well outside the first null of MeerKAT's beam in L band."""

COUNTS_OF_FULL_POWER: Final = 2.0**22
"""Counts of the autocorrelation of an input with gain 1, unless a scale is given. Noise is then well sampled
(a part in 2000 of the power for 4 million samples is 2000 counts), and gains have 54 dB of room above."""


@dataclass(frozen=True)
class ModelConfig:
    """What is simulated."""

    name: str
    """Of the stream."""
    antennas: tuple[katpoint.Antenna, ...]
    n_chans: int
    n_chans_per_substream: int
    bandwidth: float
    """Hz."""
    centre_frequency: float
    """Hz, of channel ``n_chans // 2``."""
    adc_sample_rate: float
    """Hz."""
    int_time: float
    """Wanted time between dumps, s; the true one is a whole number of spectra."""
    start_time: float
    """Unix time that timestamps count from."""
    sources: tuple[katpoint.Target, ...] = ()
    sefd: float = DEFAULT_SEFD
    noise: bool = True
    gains: bool = True
    leakage: float = 0.0
    """Root mean square of the D terms."""
    cross_delay: float = 0.0
    """Delay of all v inputs, s."""
    cross_phase: float = 0.0
    """Phase of all v inputs at frequency 0, degrees."""
    rfi: int = 0
    """Emitters of interference in the band."""
    dead_inputs: tuple[str, ...] = ()
    """Inputs (``m001h``) that give nothing."""
    hot_inputs: tuple[str, ...] = ()
    """Inputs whose power saturates the correlator: their voltage is `HOT_GAIN` times what it should be."""
    seed: int = 0
    scale: float | None = None
    """Jy per count; None: chosen."""

    def __post_init__(self) -> None:
        names = [antenna.name for antenna in self.antennas]
        if not 1 <= len(names) <= MAX_ANTENNAS:
            raise ModelError(f"{len(names)} antennas; expected 1 to {MAX_ANTENNAS}")
        if len(set(names)) != len(names):
            raise ModelError("an antenna is given twice: " + ", ".join(sorted(names)))
        for key in ("n_chans", "n_chans_per_substream"):
            if getattr(self, key) < 1:
                raise ModelError(f"{key} is {getattr(self, key)}; expected at least 1")
        for key in ("bandwidth", "centre_frequency", "adc_sample_rate", "int_time"):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) > 0):
                raise ModelError(f"{key} is {getattr(self, key)}; expected more than 0")
        if not (math.isfinite(self.sefd) and self.sefd >= 0):
            raise ModelError(f"sefd is {self.sefd}; expected 0 or more")
        if not (math.isfinite(self.start_time) and self.start_time >= 0):
            raise ModelError(f"start_time is {self.start_time}; expected a Unix time")
        if not 0 <= self.rfi <= MAX_EMITTERS:
            raise ModelError(f"rfi is {self.rfi}; expected 0 to {MAX_EMITTERS} emitters")
        self._check_inputs([name + pol for name in names for pol in POLARISATIONS])
        if not 0 <= self.seed < 2**63:
            raise ModelError(f"seed is {self.seed}; expected 0 to 2**63 - 1")

    def _check_inputs(self, inputs: list[str]) -> None:
        """Check what is said of polarisations and of single inputs."""
        if not 0 <= self.leakage <= MAX_LEAKAGE:
            raise ModelError(f"leakage is {self.leakage}; expected 0 to {MAX_LEAKAGE}")
        if not abs(self.cross_delay) <= MAX_CROSS_DELAY or not abs(self.cross_phase) <= 360:
            raise ModelError(
                f"cross_delay is {self.cross_delay} s and cross_phase {self.cross_phase}°; expected at "
                f"most {MAX_CROSS_DELAY} s and 360° either way"
            )
        for kind in ("dead", "hot"):
            for label in getattr(self, f"{kind}_inputs"):
                if label not in inputs:
                    raise ModelError(
                        f"{kind} input {label!r:.60} is none of {inputs[0]} … {inputs[-1]}"
                    )


def spectra(
    n_chans: int, bandwidth: float, adc_sample_rate: float, int_time: float
) -> tuple[int, int]:
    """ADC samples from one spectrum to the next, and spectra in a dump.

    Raises
    ------
    ModelError
        There is no whole number of samples between spectra, or a dump is shorter than a spectrum.
    """
    ticks = n_chans * adc_sample_rate / bandwidth
    if round(ticks) < 1 or abs(ticks - round(ticks)) > 1e-6 * ticks:
        raise ModelError(
            f"{n_chans} channels of {bandwidth:g} Hz at {adc_sample_rate:g} samples/s have a spectrum "
            f"every {ticks:g} samples; expected a whole number"
        )
    n_accs = round(int_time * adc_sample_rate / round(ticks))
    if n_accs < 1:
        raise ModelError(f"int_time {int_time:g} s is shorter than one spectrum")
    return round(ticks), n_accs


def product_flux(
    sources: tuple[katpoint.Target, ...], freqs: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Flux densities of sources in hh, hv, vh and vv.

    Parameters
    ----------
    sources
        With flux models.
    freqs
        Hz, shape (n_chans,).

    Returns
    -------
    array, shape (n_sources, n_chans, 4)
        Jy: I + Q, U + iV, U - iV, I - Q.

    Raises
    ------
    ModelError
        A source has no flux model, or not for these frequencies.
    """
    flux = np.zeros((len(sources), len(freqs), 4), np.complex128)
    for row, source in zip(flux, sources, strict=True):
        if source.flux_model is None:
            raise ModelError(f"source {source.name!r} has no flux model")
        stokes = np.asarray(source.flux_density_stokes(freqs / 1e6))
        if not np.all(np.isfinite(stokes)):
            raise ModelError(
                f"source {source.name!r}: flux model does not cover "
                f"{freqs.min() / 1e6:.1f} to {freqs.max() / 1e6:.1f} MHz"
            )
        i, q, u, v = stokes.T
        row[:] = np.stack([i + q, u + 1j * v, u - 1j * v, i - q], axis=-1)
    return flux


class Model:
    """A `DumpSource` that computes.

    Raises
    ------
    ModelError, StreamError
        The configuration makes no sense.
    """

    n_dumps: int | None = None
    """As many as are asked for."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.antennas = config.antennas
        self.stream = self._stream()
        n_ants = len(self.antennas)
        gains = GainModel.random(n_ants, config.seed) if config.gains else GainModel.unity(n_ants)
        self.gains = dataclasses.replace(
            gains,
            cross_delay=config.cross_delay,
            cross_phase=math.radians(config.cross_phase),
        )
        """Gains of inputs that are neither dead nor hot."""
        self.leakage = LeakageModel.random(n_ants, config.leakage, config.seed)

    def target(self, index: int) -> str | None:
        """Wherever the array is pointed."""
        return None

    @cached_property
    def _freqs(self) -> NDArray[np.float64]:
        config = self.config
        offsets = np.arange(config.n_chans, dtype=np.float64) - config.n_chans // 2
        return np.asarray(config.centre_frequency + offsets * (config.bandwidth / config.n_chans))

    @cached_property
    def flux(self) -> NDArray[np.complex128]:
        """Flux densities of the sources, Jy, shape (n_sources, n_chans, 4)."""
        return product_flux(self.config.sources, self._freqs)

    @cached_property
    def shapes(self) -> NDArray[np.float64]:
        """Envelopes of the sources, see :func:`~pipelines.correlator.kernels.correlate`."""
        return shapes_of(self.config.sources)

    @cached_property
    def rfi(self) -> RfiModel:
        """The interference."""
        band = (float(self._freqs[0]), float(self._freqs[-1]))
        return RfiModel.random(self.config.rfi, band, self.config.seed)

    @cached_property
    def _rfi_flux(self) -> NDArray[np.complex128]:
        return self.rfi.flux(self._freqs)

    def _gains_at(self, index: int) -> NDArray[np.complex128]:
        gains = self.gains.at((index + 0.5) * self.stream.int_time, self._freqs)
        for antenna, name in enumerate(a.name for a in self.antennas):
            for pol, letter in enumerate(POLARISATIONS):
                if name + letter in self.config.dead_inputs:
                    gains[antenna, pol] = 0
                elif name + letter in self.config.hot_inputs:
                    gains[antenna, pol] *= HOT_GAIN
        return gains

    @cached_property
    def _leakage(self) -> NDArray[np.complex128]:
        return self.leakage.at(self.config.n_chans)

    @property
    def noise(self) -> float:
        """Noise of an autocorrelation relative to its power, by the radiometer equation."""
        if not self.config.noise:
            return 0.0
        return 1 / math.sqrt(self.stream.channel_width * self.stream.int_time)

    def _stream(self) -> CorrelatorStream:
        config = self.config
        ticks, n_accs = spectra(
            config.n_chans, config.bandwidth, config.adc_sample_rate, config.int_time
        )
        return CorrelatorStream(
            name=config.name,
            n_chans=config.n_chans,
            n_chans_per_substream=config.n_chans_per_substream,
            bandwidth=config.bandwidth,
            center_freq=config.centre_frequency,
            sync_time=config.start_time,
            int_time=n_accs * ticks / config.adc_sample_rate,
            bls_ordering=correlator_ordering([antenna.name for antenna in config.antennas]),
            n_accs=n_accs,
            ticks_between_spectra=ticks,
            scale_factor_timestamp=config.adc_sample_rate,
            scale=self._scale(),
        )

    def _scale(self) -> float:
        if self.config.scale is not None:
            return self.config.scale
        power = self.config.sefd + np.abs(self.flux[..., [0, 3]]).sum(axis=0).max(initial=0.0)
        return float(power) / COUNTS_OF_FULL_POWER or 1.0

    def dump_centre(self, index: int) -> float:
        """Unix time of the middle of a dump."""
        return self.stream.sync_time + (index + 0.5) * self.stream.int_time

    def uvw(self, index: int, target: katpoint.Target) -> NDArray[np.float64]:
        """Coordinates of the antennas in a dump, m, shape (n_ants, 3)."""
        coordinates: NDArray[np.float64] = uvw.antenna_uvw(
            target, self.dump_centre(index), self.antennas
        )[0]
        return coordinates

    def delays(self, index: int, target: katpoint.Target) -> NDArray[np.float64]:
        """Delays that `correlate` takes, s, shape (n_sources, n_ants)."""
        time = self.dump_centre(index)
        coordinates = self.uvw(index, target)
        reference = self.antennas[0].array_reference_antenna()
        cosines = [
            uvw.direction_cosines(target, source, time, reference) for source in self.config.sources
        ]
        paths: NDArray[np.float64] = np.array(cosines).reshape(-1, 3) @ coordinates.T
        return paths / uvw.SPEED_OF_LIGHT

    def seen(self, index: int, target: katpoint.Target) -> NDArray[np.bool_]:
        """Whether each source is in the field of view during a dump, shape (n_sources,)."""
        time = self.dump_centre(index)
        reference = self.antennas[0].array_reference_antenna()
        return np.array(
            [
                target.separation(source, time, reference) < FIELD_OF_VIEW
                for source in self.config.sources
            ],
            dtype=np.bool_,
        )

    def fill(self, index: int, target: katpoint.Target, out: NDArray[np.int32]) -> None:
        """Compute dump `index`."""
        seen, on = self.seen(index, target), self.rfi.on(index)
        interference = self.rfi.delays(index, len(self.antennas))
        correlate(
            out,
            self._freqs,
            np.concatenate([self.delays(index, target)[seen], interference]),
            self.uvw(index, target)[:, :2] / uvw.SPEED_OF_LIGHT,
            np.concatenate([self.shapes[seen], np.zeros((len(interference), 3))]),
            np.concatenate([self.flux[seen], self._rfi_flux[on]]),
            self._leakage,
            self._gains_at(index),
            self.config.sefd,
            self.noise,
            self.stream.scale,
            self.config.seed,
            index,
        )
