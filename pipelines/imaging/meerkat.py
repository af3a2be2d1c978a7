"""Reading data sets of MeerKAT visibility format v4 through katdal, which calibrates on the fly."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.common.dataset import open_dataset
from pipelines.imaging.errors import ImagingError
from pipelines.imaging.parallel_hands import HandPairs, stokes_i
from pipelines.imaging.selection import observe_target
from pipelines.imaging.source import Progress
from pipelines.imaging.visibilities import Tile, VisibilitySpool, tiles

if TYPE_CHECKING:
    from katdal.dataset import DataSet

logger = logging.getLogger(__name__)


class MeerkatSource:
    """One target of a data set; see :class:`pipelines.imaging.source.VisibilitySource`.

    Raises
    ------
    ImagingError
        It cannot be read, or has no such target.
    """

    def __init__(self, path: Path, target: str | None, *, applycal: bool) -> None:
        self._dataset, self.applied = _open_calibrated(path, applycal=applycal)
        self.observation, self._pairs = observe_target(self._dataset, target)
        self.shape = (len(self._pairs.baselines), int(self._dataset.shape[0]))

    def read(self, directory: Path, channels: range, progress: Progress) -> VisibilitySpool:
        """Read some channels."""
        dataset, pairs = self._dataset, self._pairs
        n_dumps, _, n_products = dataset.shape
        spool = VisibilitySpool(
            (len(pairs.baselines), n_dumps, len(channels)),
            self.observation.frequencies[channels.start : channels.stop],
            directory,
            np.asarray(dataset.timestamps, np.float64),
        )
        try:
            # u, v, w of both hands of a baseline are the same.
            for axis, coordinate in enumerate((dataset.u, dataset.v, dataset.w)):
                spool.uvw[:, :, axis] = np.asarray(coordinate)[:, pairs.hh].T
            cut = list(tiles((n_dumps, len(channels), n_products)))
            for number, tile in enumerate(cut, 1):
                _read_tile(dataset, pairs, spool, tile, channels.start)
                progress(number / len(cut))
        except BaseException:
            spool.close()
            raise
        return spool


def _open_calibrated(path: Path, *, applycal: bool) -> tuple[DataSet, tuple[str, ...]]:
    """Open a data set, with calibration if asked for and there is any; say what is applied."""
    try:
        dataset = open_dataset(path, applycal="all" if applycal else "")
    except Exception as error:  # katdal raises whatever its parts raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImagingError(f"cannot open data set {path}: {reason}") from error
    applied = tuple(getattr(dataset, "applycal_products", None) or ())
    if applied:
        logger.info("calibration applied: %s", ", ".join(applied))
    elif applycal:
        logger.warning("the data set has no calibration solutions; visibilities are as received")
    return dataset, applied


def _read_tile(
    dataset: DataSet, pairs: HandPairs, spool: VisibilitySpool, tile: Tile, first_channel: int
) -> None:
    """Read one tile into the spool."""
    from katdal.lazy_indexer import DaskLazyIndexer

    channels = slice(tile.channels.start + first_channel, tile.channels.stop + first_channel)
    keep = (tile.dumps, channels)
    vis, weights, flags = DaskLazyIndexer.get([dataset.vis, dataset.weights, dataset.flags], keep)
    weights = np.where(flags, np.float32(0), weights)
    stokes, weight = stokes_i(
        vis[..., pairs.hh], vis[..., pairs.vv], weights[..., pairs.hh], weights[..., pairs.vv]
    )
    place = (slice(None), tile.dumps, tile.channels)
    spool.vis[place] = stokes.transpose(2, 0, 1)
    spool.weights[place] = weight.transpose(2, 0, 1)
