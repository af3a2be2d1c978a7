"""Reading a MeasurementSet: what is in it, and which rows make up which dump.

Version 2 of the format: https://casa.nrao.edu/Memos/229.html. Everything that the file says is checked before
it is used; what cannot be replayed raises `ReplayError` with one line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from casacore.tables import table as _table  # type: ignore[attr-defined]  # it has no __all__
from numpy.typing import NDArray

from pipelines.correlator.errors import ReplayError

logger = logging.getLogger(__name__)

table: Callable[..., Any] = _table
"""Opens a table; casacore has no annotations."""

MJD_OF_UNIX_EPOCH: Final = 40587 * 86400.0
"""Seconds of modified Julian date at the Unix epoch."""

MAX_DUMPS: Final = 1_000_000
MAX_ANTENNAS: Final = 256

PRODUCT_OF_CORR_TYPE: Final = {5: 0, 6: 1, 7: 2, 8: 3, 9: 0, 10: 1, 11: 2, 12: 3}
"""casacore's ``Stokes::StokesTypes`` RR RL LR LL and XX XY YX YY as products hh hv vh vv: R and X are
carried as h, L and Y as v."""

VLA_NAMES: Final = ("EVLA", "VLA", "JVLA")


@dataclass(frozen=True)
class DumpGrid:
    """Regular dumps that rows are sorted into."""

    int_time: float
    """Seconds from dump to dump."""
    first_centre: float
    """Unix time of the centre of dump 0."""
    index: NDArray[np.int64]
    """Dump of each row."""

    @property
    def n_dumps(self) -> int:
        """Number of dumps, lost ones in between included."""
        return int(self.index.max()) + 1


@dataclass(frozen=True)
class MeasurementSet:
    """The parts of a MeasurementSet that are replayed: one spectral window, rows in order of dumps."""

    path: Path
    main: Any
    """The table (`casacore.tables.table`); for one thread at a time."""
    data_column: str
    names: tuple[str, ...]
    """Antennas that occur in the data, in the order of the ANTENNA table, as all that follows."""
    positions: NDArray[np.float64]
    """ITRF, m, shape (n_ants, 3)."""
    diameters: tuple[float, ...]
    freqs: NDArray[np.float64]
    """Hz, ascending, shape (n_chans,)."""
    descending: bool
    """Whether the file has the channels the other way round."""
    products: tuple[int, ...]
    """Product, 0 to 3 for hh hv vh vv, of each correlation of the file."""
    field_names: tuple[str, ...]
    field_directions: NDArray[np.float64]
    """Phase centres, J2000 right ascension and declination, rad, shape (n_fields, 2)."""
    grid: DumpGrid
    rows: NDArray[np.int64]
    """Numbers of the replayed rows in the table, by dump; what follows is per row, in this order."""
    ant1: NDArray[np.int64]
    ant2: NDArray[np.int64]
    field: NDArray[np.int64]
    time: NDArray[np.float64]
    """Unix time of the centre."""

    def rows_of(self, dump: int) -> slice:
        """Where the rows of a dump are in `rows`."""
        first, last = np.searchsorted(self.grid.index, [dump, dump + 1])
        return slice(int(first), int(last))

    def read(self, column: str, which: slice) -> NDArray[Any]:
        """Values of a column in some of `rows`.

        Raises
        ------
        ReplayError
            The file cannot be read there.
        """
        try:
            return np.asarray(self.main.selectrows(self.rows[which]).getcol(column))
        except RuntimeError as exc:
            raise ReplayError(f"{self.path}: {column} cannot be read: {_line(exc)}") from exc


def open_measurement_set(path: Path | str, data_column: str = "DATA") -> MeasurementSet:
    """Open a MeasurementSet and check that it can be replayed.

    Parameters
    ----------
    path
        Its directory.
    data_column
        Column with the visibilities.

    Raises
    ------
    ReplayError
        It is none, or has something that cannot be replayed.
    """
    path = Path(path)
    if not (path / "table.dat").is_file():
        raise ReplayError(f"{path} is no MeasurementSet: it has no file table.dat")
    try:
        return _read(path, data_column)
    except (RuntimeError, ValueError, IndexError, KeyError) as exc:
        raise ReplayError(f"{path} cannot be replayed: {_line(exc)}") from exc


def _read(path: Path, data_column: str) -> MeasurementSet:
    main = table(str(path), ack=False)
    if main.nrows() == 0:
        raise ReplayError(f"{path} has no rows")
    if data_column not in main.colnames():
        raise ReplayError(f"{path} has no column {data_column}")
    if main.getcolkeyword("TIME", "MEASINFO")["Ref"] != "UTC":
        raise ReplayError(f"{path}: times are not UTC")
    description = np.asarray(main.getcol("DATA_DESC_ID"))
    rows = np.flatnonzero(description == description[0])
    if len(rows) < len(description):
        logger.warning("%s: only data description %d is replayed", path, description[0])
    spw, pol = _data_description(path, int(description[0]))
    freqs, descending = _channels(path, spw)
    ants = np.stack([np.asarray(main.getcol(f"ANTENNA{i}"))[rows] for i in (1, 2)]).astype(np.int64)
    time = np.asarray(main.getcol("TIME"), dtype=np.float64)[rows] - MJD_OF_UNIX_EPOCH
    grid = dump_grid(time, ants[0], ants[1])
    order = np.argsort(grid.index, kind="stable")
    used, places = np.unique(ants, return_inverse=True)
    ants = places.reshape(ants.shape)[:, order]
    names, positions, diameters = _antennas(path, used)
    field_names, directions = _fields(path)
    field = np.asarray(main.getcol("FIELD_ID")).astype(np.int64)[rows][order]
    if field.min() < 0 or field.max() >= len(field_names):
        raise ReplayError(
            f"rows name fields {field.min()} to {field.max()}; {len(field_names)} known"
        )
    return MeasurementSet(
        path=path,
        main=main,
        data_column=data_column,
        names=names,
        positions=positions,
        diameters=diameters,
        freqs=freqs,
        descending=descending,
        products=_products(path, pol),
        field_names=field_names,
        field_directions=directions,
        grid=DumpGrid(grid.int_time, grid.first_centre, grid.index[order]),
        rows=rows[order],
        ant1=ants[0],
        ant2=ants[1],
        field=field,
        time=time[order],
    )


def dump_grid(
    time: NDArray[np.float64], ant1: NDArray[np.int64], ant2: NDArray[np.int64]
) -> DumpGrid:
    """Find the regular dumps behind the times of rows.

    The spacing is what baselines have from row to row (the INTERVAL column is the time that was
    integrated, and often less); offsets within a dump are put down to averaging of incomplete data. Gaps
    become whole numbers of dumps.

    Parameters
    ----------
    time
        Centre of each row, s, shape (n_rows,).
    ant1, ant2
        Antennas of each row.

    Raises
    ------
    ReplayError
        No baseline has two times, or the times span more than `MAX_DUMPS`.
    """
    if not np.all(np.isfinite(time)):
        raise ReplayError("rows have times that are no numbers")
    order = np.lexsort((time, ant2, ant1))
    steps = np.diff(time[order])
    same = (np.diff(ant1[order]) == 0) & (np.diff(ant2[order]) == 0) & (steps > 0)
    if not same.any():
        raise ReplayError(
            "no baseline has two rows of different times: the time between dumps is unknown"
        )
    spacing = float(np.median(steps[same]))
    if (time.max() - time.min()) / spacing > MAX_DUMPS:
        raise ReplayError(f"more than {MAX_DUMPS} dumps of {spacing:g} s")
    index = np.rint((time - time.min()) / spacing).astype(np.int64)
    spacing = _slope(index, time - time.min()) or spacing
    index = np.rint((time - time.min()) / spacing).astype(np.int64)
    index -= index.min()
    return DumpGrid(spacing, float(np.median(time - index * spacing)), index)


def _slope(index: NDArray[np.int64], time: NDArray[np.float64]) -> float:
    """Time from dump to dump over the whole span, by Theil and Sen: incomplete dumps do not bend it."""
    dumps = np.unique(index)
    chosen = np.unique(np.linspace(0, len(dumps) - 1, min(len(dumps), 100)).astype(np.int64))
    centres = np.array([np.median(time[index == dumps[i]]) for i in chosen])
    i, j = np.triu_indices(len(chosen), 1)
    slopes = (centres[j] - centres[i]) / (dumps[chosen[j]] - dumps[chosen[i]])
    return float(np.median(slopes)) if len(slopes) else 0.0


def antenna_name(name: str, row: int, telescope: str) -> str:
    """Name of an antenna in products and descriptions.

    Names that are blank or only a number get a prefix: ``ea07`` for number 7 of the VLA. Blank ones are
    numbered by their row.
    """
    name = name.strip()
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        return name
    number = int(name) if re.fullmatch(r"[0-9]{1,6}", name) else row
    return f"{'ea' if telescope.upper() in VLA_NAMES else 'ant'}{number:02d}"


def _antennas(
    path: Path, used: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.float64], tuple[float, ...]]:
    antennas = table(f"{path}::ANTENNA", ack=False)
    if used.min() < 0 or used.max() >= antennas.nrows() or len(used) > MAX_ANTENNAS:
        raise ReplayError(
            f"rows name antennas {used.min()} to {used.max()}; {antennas.nrows()} known"
        )
    telescope = str(table(f"{path}::OBSERVATION", ack=False).getcell("TELESCOPE_NAME", 0))
    labels = antennas.getcol("NAME")
    names = tuple(antenna_name(str(labels[row]), int(row), telescope) for row in used)
    if len(set(names)) != len(names):
        names = tuple(antenna_name("", int(row), telescope) for row in used)
    positions = np.asarray(antennas.getcol("POSITION"), dtype=np.float64)[used]
    diameters = np.asarray(antennas.getcol("DISH_DIAMETER"), dtype=np.float64)[used]
    if not np.all(np.linalg.norm(positions, axis=1) > 6e6):
        raise ReplayError("antennas have no positions on the Earth (ITRF)")
    return names, positions, tuple(float(diameter) for diameter in diameters)


def _data_description(path: Path, row: int) -> tuple[int, int]:
    description = table(f"{path}::DATA_DESCRIPTION", ack=False)
    return (
        int(description.getcell("SPECTRAL_WINDOW_ID", row)),
        int(description.getcell("POLARIZATION_ID", row)),
    )


def _channels(path: Path, spw: int) -> tuple[NDArray[np.float64], bool]:
    freqs = np.asarray(table(f"{path}::SPECTRAL_WINDOW", ack=False).getcell("CHAN_FREQ", spw))
    steps = np.diff(freqs)
    if len(freqs) < 2 or not np.allclose(steps, steps[0], rtol=1e-3, atol=0) or steps[0] == 0:
        raise ReplayError(f"{path}: channels are not equally spaced, or only one")
    descending = bool(steps[0] < 0)
    return freqs[::-1].copy() if descending else freqs, descending


def _products(path: Path, pol: int) -> tuple[int, ...]:
    types = table(f"{path}::POLARIZATION", ack=False).getcell("CORR_TYPE", pol)
    unknown = [int(kind) for kind in types if int(kind) not in PRODUCT_OF_CORR_TYPE]
    if unknown or len(set(types)) != len(types):
        raise ReplayError(
            f"{path}: correlations {list(map(int, types))} are not of RR RL LR LL, XX XY YX YY"
        )
    return tuple(PRODUCT_OF_CORR_TYPE[int(kind)] for kind in types)


def _fields(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    fields = table(f"{path}::FIELD", ack=False)
    frame = fields.getcolkeyword("PHASE_DIR", "MEASINFO").get("Ref", "J2000")
    if frame not in ("J2000", "ICRS"):
        raise ReplayError(f"{path}: phase centres are in {frame}; expected J2000 or ICRS")
    directions = [fields.getcell("PHASE_DIR", row)[0] for row in range(fields.nrows())]
    names = tuple(str(name) for name in fields.getcol("NAME"))
    return names, np.array(directions, dtype=np.float64).reshape(-1, 2)


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:200]
