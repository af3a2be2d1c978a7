"""Reading MeasurementSets (version 2, https://casa.nrao.edu/Memos/229.html) through casacore.

One field in one spectral window. Rows may stand in any order; those of a baseline and a time become a sample of
the spool, and what is missing has no weight. Linear and circular feeds alike: Stokes I is half the sum of the
parallel hands.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import casacore.tables
import numpy as np
import numpy.typing as npt

from pipelines.imaging.errors import ImagingError, NoVisibilitiesError
from pipelines.imaging.parallel_hands import stokes_i
from pipelines.imaging.selection import Observation, choose_target
from pipelines.imaging.source import Progress
from pipelines.imaging.visibilities import VisibilitySpool

logger = logging.getLogger(__name__)

UNIX_EPOCH = 40587 * 86400.0
"""Seconds of modified Julian date at the Unix epoch."""

PARALLEL_HANDS = ((9, 12), (5, 8), (1, 1))
"""XX and YY, RR and LL, I: casacore's ``Stokes::StokesTypes``."""

READ_BYTES = 16 * 2**20
"""Visibilities that are read at once: few enough to stay in a cache while they become Stokes I."""

SPARSE = 4
"""Rows are read together with those between them, unless that is this many times as much."""

TIME_TOLERANCE = 1e-3
"""Times nearer than this, in seconds, are one dump."""

_tables: Any = casacore.tables
"""It has no annotations."""


@dataclass(frozen=True)
class Rows:
    """Where the chosen rows go.

    Attributes
    ----------
    numbers : intp (rows,)
        In the main table, ascending.
    baseline, dump : intp (rows,)
        Place in the spool.
    n_baselines : int
        Pairs of antennas.
    times : float64 (dumps,)
        Unix seconds.
    """

    numbers: npt.NDArray[np.intp]
    baseline: npt.NDArray[np.intp]
    dump: npt.NDArray[np.intp]
    n_baselines: int
    times: npt.NDArray[np.float64]


class MeasurementSetSource:
    """One field of a MeasurementSet; see :class:`pipelines.imaging.source.VisibilitySource`.

    Raises
    ------
    ImagingError
        It cannot be read, has no such field, more than one spectral window, or no parallel hands.
    """

    def __init__(self, path: Path, target: str | None, *, applycal: bool) -> None:
        self._path = path
        try:
            self._main = _tables.table(str(path), ack=False)
            self._open(target, applycal=applycal)
        except RuntimeError as error:
            raise ImagingError(f"cannot read {path}: {_line(error)}") from error

    def _open(self, target: str | None, *, applycal: bool) -> None:
        main, path = self._main, self._path
        field_ids, self._flag_row = main.getcol("FIELD_ID"), main.getcol("FLAG_ROW")
        name, field = _choose_field(path, main, field_ids, target)
        self._rows = _rows_of(main, np.flatnonzero(field_ids == field))
        self.shape = (self._rows.n_baselines, self._rows.times.size)
        window, self._hands = _description(path, main, self._rows.numbers)
        frequencies = np.asarray(window.getcell("CHAN_FREQ", 0), np.float64)
        self._descending = frequencies.size > 1 and frequencies[0] > frequencies[-1]
        columns = main.colnames()
        corrected = applycal and "CORRECTED_DATA" in columns
        self._column = "CORRECTED_DATA" if corrected else "DATA"
        self.applied: tuple[str, ...] = ("CORRECTED_DATA",) if corrected else ()
        self._weights = (
            "WEIGHT_SPECTRUM"
            if "WEIGHT_SPECTRUM" in columns
            and main.iscelldefined("WEIGHT_SPECTRUM", int(self._rows.numbers[0]))
            else "WEIGHT"
        )
        self.observation = _observation(
            path, name, field, np.sort(frequencies), self._rows.times, _interval(main, self._rows)
        )

    def read(self, directory: Path, channels: range, progress: Progress) -> VisibilitySpool:
        """Read some channels."""
        rows = self._rows
        spool = VisibilitySpool(
            (rows.n_baselines, rows.times.size, len(channels)),
            self.observation.frequencies[channels.start : channels.stop],
            directory,
            rows.times,
        )
        try:
            self._fill(spool, channels, progress)
        except BaseException as error:
            spool.close()
            if isinstance(error, RuntimeError):
                raise ImagingError(f"cannot read {self._path}: {_line(error)}") from error
            raise
        return spool

    def _fill(self, spool: VisibilitySpool, channels: range, progress: Progress) -> None:
        rows, n_hands = self._rows, self._n_correlations()
        step = max(READ_BYTES // (len(channels) * n_hands * 8), 1)
        n_rows = rows.numbers.size
        for start in range(0, n_rows, step):
            part = slice(start, min(start + step, n_rows))
            place = (rows.baseline[part], rows.dump[part])
            vis, weights, uvw = self._read_rows(rows.numbers[part], channels)
            spool.vis[place], spool.weights[place], spool.uvw[place] = vis, weights, uvw
            progress(part.stop / n_rows)

    def _n_correlations(self) -> int:
        return int(self._main.getcell(self._column, int(self._rows.numbers[0])).shape[1])

    def _read_rows(
        self, numbers: npt.NDArray[np.intp], channels: range
    ) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Stokes I, weights and uvw of some rows of the main table."""
        table, start, n = self._main, int(numbers[0]), int(numbers[-1] - numbers[0]) + 1
        chosen: slice | npt.NDArray[np.intp] = slice(None)
        if n > SPARSE * numbers.size:
            table, start, n = table.selectrows(numbers.tolist()), 0, numbers.size
        elif n > numbers.size:
            chosen = numbers - start
        n_all = self.observation.frequencies.size
        low, high = channels.start, channels.stop
        if self._descending:
            low, high = n_all - high, n_all - low
        hands = list(self._hands)

        def cells(column: str) -> npt.NDArray[Any]:
            """Read a column's rows and channels, (row, chan, correlation), frequencies ascending."""
            if (low, high) == (0, n_all):
                values = table.getcol(column, start, n)
            else:
                last = [high - 1, self._n_correlations() - 1]
                values = table.getcolslice(column, [low, 0], last, [], start, n)
            values = np.asarray(values)[chosen]
            return values[:, ::-1] if self._descending else values

        weights = _spread(
            cells(self._weights)
            if self._weights == "WEIGHT_SPECTRUM"
            else table.getcol("WEIGHT", start, n)[chosen][:, None, :],
            cells("FLAG"),
            self._flag_row[numbers],
            hands,
        )
        vis = cells(self._column)
        stokes, weight = stokes_i(vis[..., hands[0]], vis[..., hands[1]], *weights)
        return stokes, weight, table.getcol("UVW", start, n)[chosen]


def _spread(
    weights: npt.NDArray[np.float32],
    flags: npt.NDArray[np.bool_],
    flag_row: npt.NDArray[np.bool_],
    hands: list[int],
) -> list[npt.NDArray[np.float32]]:
    """Weights of both hands for every channel; zero where flagged."""
    bad = flags | flag_row[:, None, None] if flag_row.any() else flags
    full = [np.broadcast_to(weights[..., hand], bad.shape[:2]) for hand in hands]
    return [np.where(bad[..., hand], np.float32(0), w) for hand, w in zip(hands, full, strict=True)]


def _choose_field(
    path: Path, main: Any, field_ids: npt.NDArray[np.int32], wanted: str | None
) -> tuple[str, int]:
    """Name and number of the field that is imaged; calibrators are known by their rows' intents."""
    names = [str(name) for name in _subtable(path, "FIELD").getcol("NAME")]
    modes = _subtable(path, "STATE")
    intents = modes.getcol("OBS_MODE") if modes.nrows() else []
    states = main.getcol("STATE_ID")
    tracked = []
    ids, first_rows = np.unique(field_ids, return_index=True)
    for field, row in zip(ids.tolist(), first_rows.tolist(), strict=True):
        state = int(states[row])
        calibrates = 0 <= state < len(intents) and "CALIBRATE" in intents[state]
        tracked.append((names[field], ("cal",) if calibrates else ()))
    name = choose_target(tracked, wanted)
    return name, int(ids[[n for n, _ in tracked].index(name)])


def _rows_of(main: Any, numbers: npt.NDArray[np.intp]) -> Rows:
    """Sort the rows of a field by baseline and time; those of an antenna with itself are left out."""
    first = main.getcol("ANTENNA1")[numbers].astype(np.int64)
    second = main.getcol("ANTENNA2")[numbers].astype(np.int64)
    crossed = first != second
    numbers, pairs = numbers[crossed], (first * 2**32 + second)[crossed]
    if not numbers.size:
        raise NoVisibilitiesError("no baseline between two antennas")
    baselines, baseline = np.unique(pairs, return_inverse=True)
    rounded = np.round(main.getcol("TIME")[numbers] / TIME_TOLERANCE)
    times, dump = np.unique(rounded, return_inverse=True)
    return Rows(
        numbers,
        baseline.astype(np.intp),
        dump.astype(np.intp),
        len(baselines),
        times * TIME_TOLERANCE - UNIX_EPOCH,
    )


def _description(
    path: Path, main: Any, numbers: npt.NDArray[np.intp]
) -> tuple[Any, tuple[int, int]]:
    """Spectral window (a table of one row) of the rows, and where the parallel hands are."""
    kinds = np.unique(main.getcol("DATA_DESC_ID")[numbers])
    if kinds.size != 1:
        raise ImagingError(
            f"{path}: the field has rows of {kinds.size} spectral windows; split off one of them"
        )
    descriptions = _subtable(path, "DATA_DESCRIPTION")
    window = int(descriptions.getcell("SPECTRAL_WINDOW_ID", int(kinds[0])))
    polarisation = int(descriptions.getcell("POLARIZATION_ID", int(kinds[0])))
    types = [int(t) for t in _subtable(path, "POLARIZATION").getcell("CORR_TYPE", polarisation)]
    for a, b in PARALLEL_HANDS:
        if a in types and b in types:
            windows = _subtable(path, "SPECTRAL_WINDOW").selectrows([window])
            return windows, (types.index(a), types.index(b))
    raise NoVisibilitiesError(f"{path}: correlations {types} have no pair of parallel hands")


def _observation(
    path: Path,
    name: str,
    field: int,
    frequencies: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
    interval: float,
) -> Observation:
    ra, dec = _subtable(path, "FIELD").getcell("PHASE_DIR", field)[0]
    diameters = _subtable(path, "ANTENNA").getcol("DISH_DIAMETER")
    diameter = float(np.max(diameters, initial=0.0))
    if not 0 < diameter < 1000:
        raise ImagingError(f"{path}: antennas have a diameter of {diameter:g} m")
    observations = _subtable(path, "OBSERVATION")
    telescope = str(observations.getcell("TELESCOPE_NAME", 0)) if observations.nrows() else ""
    return Observation(
        name=name,
        ra=float(ra) % (2 * math.pi),
        dec=float(dec),
        frequencies=frequencies,
        start=float(times[0]),
        end=float(times[-1]),
        dump_period=interval,
        diameter=diameter,
        capture_block="",
        telescope=telescope,
    )


def _interval(main: Any, rows: Rows) -> float:
    return float(main.getcell("INTERVAL", int(rows.numbers[0])))


def _subtable(path: Path, name: str) -> Any:
    return _tables.table(f"{path}::{name}", ack=False)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
