"""The second sink: a MeasurementSet (version 2) that CASA and wsclean read.

Format: https://casa.nrao.edu/Memos/229.html. The main table grows dump by dump while the data come; what is
known only at the end (fields, scans, coordinates, the subtables) is filled in then, and only after that does
the directory get its name. Visibilities and coordinates have the signs that they have everywhere in this
system, which are the ones that wsclean and CASA expect (``docs/reference/streams.md``).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import casacore.tables
import numpy as np
import numpy.typing as npt

from pipelines.common.baselines import BlsOrdering, antenna_names, pol_product_indices, split_input
from pipelines.common.l0 import Dump, L0Layout
from pipelines.common.stream_info import VisStream
from pipelines.writer.store import StoreError

MJD_OF_UNIX_EPOCH: Final = 40587 * 86400.0
"""Seconds of modified Julian date at the Unix epoch."""
N_CORR: Final = 4
_TILE_BYTES: Final = 1 << 20
_COLUMNS: Final = {"DATA": "complex", "FLAG": "boolean", "WEIGHT_SPECTRUM": "float"}

_tables: Any = casacore.tables
"""It has no annotations."""


def measurement_set_path(root: Path, cbid: str, stream: str) -> Path:
    """Where the MeasurementSet of a block goes."""
    return root / cbid / f"{cbid}_{stream}.ms"


class Correlations:
    """How the baseline axis of L0 becomes rows of antenna pairs with four correlations.

    Parameters
    ----------
    ordering
        Products; a pair may lack some of its four.
    """

    def __init__(self, ordering: BlsOrdering) -> None:
        self.antennas = antenna_names(ordering)
        number = {name: i for i, name in enumerate(self.antennas)}
        pols = pol_product_indices(ordering)
        ants = [(number[split_input(a)[0]], number[split_input(b)[0]]) for a, b in ordering]
        rows = {pair: i for i, pair in enumerate(dict.fromkeys(ants))}
        self.pairs = np.array(list(rows), np.int32).reshape(-1, 2)
        """Antennas of each row, shape (n_rows, 2)."""
        self.product = np.full((len(rows), N_CORR), -1, np.int64)
        """Position on the baseline axis of each row's hh, hv, vh, vv; -1 where there is none."""
        for i, pair in enumerate(ants):
            self.product[rows[pair], pols[i]] = i

    def spread(self, values: npt.NDArray[Any], absent: Any) -> npt.NDArray[Any]:
        """Turn (chan, bls) into (row, chan, corr), with `absent` where there is no product."""
        picked = values[:, self.product.ravel()]
        picked[:, self.product.ravel() < 0] = absent
        by_row = picked.reshape(len(values), *self.product.shape)
        return np.ascontiguousarray(by_row.transpose(1, 0, 2))


class MeasurementSetSink:
    """Writes the dumps of one block. The methods block, and belong to one thread at a time.

    Parameters
    ----------
    path
        Of the MeasurementSet. Until :meth:`finish` it has another name; what an earlier run of the program left
        under that one is continued.
    stream, layout
        The L0 stream.

    Raises
    ------
    StoreError
        There is one already, or it cannot be created.
    """

    def __init__(self, path: Path, stream: VisStream, layout: L0Layout) -> None:
        self.path = path
        self.stream = stream
        self.correlations = Correlations(stream.bls_ordering)
        self._layout = layout
        self._writing = path.with_name(path.name + ".writing")
        if path.exists():
            raise StoreError(f"{path} is there already")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._main = self._open()
        except (OSError, RuntimeError) as exc:
            raise StoreError(f"{path} cannot be written: {_line(exc)}") from exc

    def _open(self) -> Any:
        if self._writing.exists():
            return _tables.table(str(self._writing), readonly=False, ack=False)
        description = _tables.required_ms_desc("MAIN")
        shape = np.array([self._layout.n_chans, N_CORR], np.int32)
        for name, kind in _COLUMNS.items():
            description.update(
                _tables.maketabdesc(
                    _tables.makearrcoldesc(
                        name,
                        {"complex": 0j, "boolean": True, "float": 0.0}[kind],
                        shape=shape,
                        options=4,
                        valuetype=kind,
                        datamanagertype="TiledColumnStMan",
                        datamanagergroup=f"{name}_tiled",
                    )
                )
            )
        return _tables.default_ms(str(self._writing), description, self._tiles(description))

    def _tiles(self, description: Any) -> Any:
        """Tiles of about a megabyte, each of many rows: imagers read rows, displays few of them."""
        n_chans = self._layout.n_chans
        rows = max(1, min(len(self.correlations.pairs), _TILE_BYTES // (n_chans * N_CORR * 8)))
        tile = np.array([N_CORR, n_chans, rows], np.int32)
        groups = {f"{name}_tiled": {"DEFAULTTILESHAPE": tile} for name in _COLUMNS}
        return _tables.makedminfo(description, groups)

    def write(self, dump: Dump) -> int:
        """Append a dump and return the bytes of its visibilities, flags and weights.

        Raises
        ------
        StoreError
            It could not be written; nothing more can be, and :meth:`discard` is what remains.
        """
        n_bls, n_chans = self._layout.n_bls, self._layout.n_chans
        vis = np.zeros((n_chans, n_bls), np.complex64)
        flags = np.ones((n_chans, n_bls), np.bool_)
        weights = np.zeros((n_chans, n_bls), np.float32)
        for part in dump.parts:
            channels = slice(part.channels.start, part.channels.stop)
            vis[channels], flags[channels] = part.vis, part.flags != 0
            weights[channels] = part.weights * part.weights_channel[:, np.newaxis]
        spread = self.correlations.spread
        columns = {
            "DATA": spread(vis, 0),
            "FLAG": spread(flags, True),
            "WEIGHT_SPECTRUM": spread(weights, 0),
        }
        time = self.stream.sync_time + dump.timestamp + MJD_OF_UNIX_EPOCH
        try:
            self._append(columns | self._scalars(columns["WEIGHT_SPECTRUM"], time))
        except RuntimeError as exc:
            raise StoreError(f"{self.path}: dump {dump.index} not written: {_line(exc)}") from exc
        return sum(columns[name].nbytes for name in _COLUMNS)

    def _scalars(self, weights: npt.NDArray[np.float32], time: float) -> dict[str, Any]:
        pairs, n = self.correlations.pairs, len(self.correlations.pairs)
        weight = weights.mean(axis=1)
        with np.errstate(divide="ignore"):
            sigma = np.where(weight > 0, 1 / np.sqrt(weight), 0).astype(np.float32)
        return {
            "WEIGHT": weight,
            "SIGMA": sigma,
            "ANTENNA1": pairs[:, 0],
            "ANTENNA2": pairs[:, 1],
            "TIME": np.full(n, time),
            "TIME_CENTROID": np.full(n, time),
            "INTERVAL": np.full(n, self.stream.int_time),
            "EXPOSURE": np.full(n, self.stream.int_time),
            "FLAG_ROW": np.zeros(n, np.bool_),
        }

    def _append(self, columns: dict[str, Any]) -> None:
        start, n = self._main.nrows(), len(self.correlations.pairs)
        self._main.addrows(n)
        for name, values in columns.items():
            self._main.putcol(name, values, start, n)
        # Constant columns: zero is what they shall be.
        for name in ("FEED1", "FEED2", "DATA_DESC_ID", "PROCESSOR_ID", "OBSERVATION_ID"):
            self._main.putcol(name, np.zeros(n, np.int32), start, n)

    def times(self) -> npt.NDArray[np.float64]:
        """Unix times of the centres of the dumps written, s."""
        step = len(self.correlations.pairs)
        mjd = self._main.getcol("TIME", 0, -1, step) if self._main.nrows() else np.zeros(0)
        return np.asarray(mjd, np.float64) - MJD_OF_UNIX_EPOCH

    def put_per_dump(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        """Fill columns whose value is one for all rows of a dump, arrays of shape (n_dumps,)."""
        for name, values in columns.items():
            self._main.putcol(name, np.repeat(values, len(self.correlations.pairs)))

    def put_rows(self, name: str, dump: int, values: npt.NDArray[Any]) -> None:
        """Fill a column for the rows of one dump."""
        n = len(self.correlations.pairs)
        self._main.putcol(name, values, dump * n, n)

    def flag(self, dumps: Sequence[int]) -> None:
        """Flag all rows of some dumps: they belong to no field."""
        n, shape = len(self.correlations.pairs), (self._layout.n_chans, N_CORR)
        for dump in dumps:
            self.put_rows("FLAG_ROW", dump, np.ones(n, np.bool_))
            self.put_rows("FLAG", dump, np.ones((n, *shape), np.bool_))

    def subtable(self, name: str) -> Any:
        """Open a subtable for writing; a context manager."""
        return _tables.table(f"{self._writing}::{name}", readonly=False, ack=False)

    def finish(self) -> None:
        """Flush everything and give the MeasurementSet its name.

        Raises
        ------
        StoreError
            It could not be written whole.
        """
        try:
            self._main.flush(recursive=True)
            self._main.close()
            self._writing.rename(self.path)
        except (OSError, RuntimeError) as exc:
            raise StoreError(f"{self.path} not written: {_line(exc)}") from exc

    def discard(self) -> None:
        """Take away what has been written."""
        self._main.close()
        shutil.rmtree(self._writing, ignore_errors=True)


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
