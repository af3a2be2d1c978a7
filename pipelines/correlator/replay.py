"""Streaming a recorded observation as if a correlator sent it now.

Circular feeds are carried as linear ones, R as h and L as v: the products keep their places (RR RL LR LL as hh
hv vh vv) and their meaning is the recording's. Rows that are not there, and samples that are flagged or no
numbers, are sent with the marker of missing data.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import katpoint
import numpy as np
from numpy.typing import NDArray

from pipelines.common.baselines import correlator_ordering
from pipelines.common.spead import MISSING
from pipelines.common.stream_info import CorrelatorStream
from pipelines.correlator.errors import ReplayError
from pipelines.correlator.kernels import COUNT_LIMIT
from pipelines.correlator.measurement_set import open_measurement_set
from pipelines.correlator.model import spectra
from pipelines.correlator.replay_geometry import FieldGeometry, antenna_descriptions

logger = logging.getLogger(__name__)

MEDIAN_COUNTS: Final = 2.0**17
"""Counts of the median amplitude: 17 bits, with 14 above before counts are clipped."""

SAMPLE_DUMPS: Final = 8
"""Dumps that the scale is found from."""

_SWAPPED: Final = np.array([0, 2, 1, 3])
"""Where hh hv vh vv of (A, B) are in (B, A)."""


@dataclass(frozen=True)
class ReplayDescription:
    """What a product configuration has to say of a recording."""

    antennas: tuple[str, ...]
    """katpoint descriptions."""
    n_chans: int
    bandwidth: float
    """Hz."""
    centre_frequency: float
    """Hz, of channel ``n_chans // 2``."""
    adc_sample_rate: float
    """Hz; made up, twice the bandwidth."""
    int_time: float
    """Seconds from dump to dump."""
    start_time: float
    """Unix time at which the first dump begins."""
    n_dumps: int
    target: str
    """katpoint description of the first phase centre."""
    band: str
    """MeerKAT's letter of a band, ``x`` outside of all of them."""

    @property
    def duration(self) -> float:
        """Seconds of the observation."""
        return self.n_dumps * self.int_time


def describe_replay(path: Path | str) -> ReplayDescription:
    """Describe a MeasurementSet for a product configuration.

    Raises
    ------
    ReplayError
        It cannot be replayed.
    """
    return Replay(path, name="replay").description


def band_letter(frequency: float) -> str:
    """MeerKAT's band that has a frequency (Hz) near its middle: ``u``, ``l``, ``s`` or ``x``."""
    bands = {"u": (544e6, 950e6), "l": (950e6, 1712e6), "s": (1712e6, 3500e6)}
    return next((name for name, (low, high) in bands.items() if low <= frequency < high), "x")


class Replay:
    """A `DumpSource` that reads a MeasurementSet.

    Parameters
    ----------
    path
        The MeasurementSet.
    name
        Of the stream.
    data_column
        Column with the visibilities.
    n_chans_per_substream
        Default: what makes `n_substreams`.
    n_substreams
        Used where the number of channels of each is not given.

    Raises
    ------
    ReplayError, StreamError
        It cannot be replayed, or not so.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        name: str,
        data_column: str = "DATA",
        n_chans_per_substream: int | None = None,
        n_substreams: int = 1,
    ) -> None:
        self._ms = open_measurement_set(path, data_column)
        descriptions = antenna_descriptions(self._ms.names, self._ms.positions, self._ms.diameters)
        self.antennas = tuple(katpoint.Antenna(text) for text in descriptions)
        self._fields = {
            int(field): FieldGeometry(self._ms, int(field), self.antennas)
            for field in np.unique(self._ms.field)
        }
        n_chans = len(self._ms.freqs)
        if n_chans_per_substream is None and n_chans % n_substreams:
            raise ReplayError(f"{path}: {n_chans} channels cannot be divided by {n_substreams}")
        self.stream = self._stream(name, n_chans_per_substream or n_chans // n_substreams)
        self.n_dumps: int | None = self._ms.grid.n_dumps
        self._targets = self._dump_targets()
        self.description = self._describe(descriptions)

    def _stream(self, name: str, n_chans_per_substream: int) -> CorrelatorStream:
        freqs = self._ms.freqs
        n_chans = len(freqs)
        bandwidth = float((freqs[-1] - freqs[0]) / (n_chans - 1) * n_chans)
        ticks, n_accs = spectra(n_chans, bandwidth, 2 * bandwidth, self._ms.grid.int_time)
        int_time = n_accs * ticks / (2 * bandwidth)
        return CorrelatorStream(
            name=name,
            n_chans=n_chans,
            n_chans_per_substream=n_chans_per_substream,
            bandwidth=bandwidth,
            center_freq=float(freqs[n_chans // 2]),
            sync_time=self._ms.grid.first_centre - 0.5 * int_time,
            int_time=int_time,
            bls_ordering=correlator_ordering(self._ms.names),
            n_accs=n_accs,
            ticks_between_spectra=ticks,
            scale_factor_timestamp=2 * bandwidth,
            scale=self._scale(),
        )

    def _scale(self) -> float:
        """Scale that gives the median amplitude `MEDIAN_COUNTS`."""
        dumps = np.unique(self._ms.grid.index)
        chosen = dumps[:: max(1, len(dumps) // SAMPLE_DUMPS)][:SAMPLE_DUMPS]
        amplitudes = [np.abs(data[~bad]) for data, bad in map(self._read, map(int, chosen))]
        amplitude = np.concatenate(amplitudes)
        amplitude = amplitude[amplitude > 0]
        if not len(amplitude):
            raise ReplayError(f"{self._ms.path} has no data that is neither flagged nor zero")
        return float(np.median(amplitude)) / MEDIAN_COUNTS

    def _describe(self, antennas: tuple[str, ...]) -> ReplayDescription:
        stream = self.stream
        return ReplayDescription(
            antennas=antennas,
            n_chans=stream.n_chans,
            bandwidth=stream.bandwidth,
            centre_frequency=stream.center_freq,
            adc_sample_rate=stream.scale_factor_timestamp,
            int_time=stream.int_time,
            start_time=stream.sync_time,
            n_dumps=self._ms.grid.n_dumps,
            target=self._targets[0],
            band=band_letter(stream.center_freq),
        )

    def _dump_targets(self) -> tuple[str, ...]:
        """Phase centre of every dump; that of the one before where a dump is lost."""
        targets: list[str] = []
        for dump in range(self._ms.grid.n_dumps):
            rows = self._ms.rows_of(dump)
            if rows.start < rows.stop:
                targets.append(self._fields[int(self._ms.field[rows.start])].description)
            else:
                targets.append(targets[-1])
        return tuple(targets)

    def target(self, index: int) -> str:
        """Phase centre of a dump."""
        return self._targets[index]

    def _read(self, index: int) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Visibilities of a dump's rows and where they are bad, both (n_rows, n_chans, n_corr)."""
        which = self._ms.rows_of(index)
        data = self._ms.read(self._ms.data_column, which)
        flags = self._ms.read("FLAG", which) | self._ms.read("FLAG_ROW", which)[:, None, None]
        expected = (which.stop - which.start, len(self._ms.freqs), len(self._ms.products))
        if data.shape != expected or flags.shape != expected:
            raise ReplayError(
                f"{self._ms.path}: dump {index} has {data.shape}, expected {expected}"
            )
        if self._ms.descending:
            data, flags = data[:, ::-1], flags[:, ::-1]
        return data, flags | ~np.isfinite(data)

    def fill(self, index: int, target: katpoint.Target, out: NDArray[np.int32]) -> None:
        """Read dump `index`; its phase centre is the recording's, whatever `target` is."""
        out[..., 0], out[..., 1] = MISSING
        which = self._ms.rows_of(index)
        if which.start == which.stop:
            return
        data, bad = self._read(index)
        ant1, ant2 = self._ms.ant1[which], self._ms.ant2[which]
        signs = np.array([self._fields[int(field)].sign for field in self._ms.field[which]])
        # The interface has baselines as (lower, higher); the other way round is the conjugate, and so is a
        # recording whose UVW are.
        reversed_pair = ant1 > ant2
        conjugate = reversed_pair ^ (signs < 0)
        data = np.where(conjugate[:, None, None], data.conj(), data)
        lower, higher = np.minimum(ant1, ant2), np.maximum(ant1, ant2)
        products = np.array(self._ms.products)
        place = np.where(reversed_pair[:, None], _SWAPPED[products], products)
        columns = 4 * (higher * (higher + 1) // 2 + lower)[:, None] + place
        for part, values in enumerate((data.real, data.imag)):
            # A float32 has not enough digits for large counts.
            counts = np.rint(np.where(bad, 0.0, values.astype(np.float64)) / self.stream.scale)
            counts = np.clip(counts, -COUNT_LIMIT, COUNT_LIMIT).astype(np.int32)
            counts[bad] = MISSING[part]
            out[:, columns, part] = counts.transpose(1, 0, 2)
