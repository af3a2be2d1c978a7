"""Opening a data set that the writer made, with its times as the writer wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import katdal
from katdal.dataset import DataSet


def open_dataset(rdb: Path | str, *, applycal: str = "", **kwargs: Any) -> DataSet:
    """Open a data set of MeerKAT visibility format v4 with katdal, undoing its repair of old MeerKAT data.

    MeerKAT's correlator stamped its dumps one correlator dump late until early 2019 (its ticket SR-1625), and
    katdal shifts whatever it takes for data of that age back (`visdatav4.py`). Replayed and simulated
    observations of older dates have right times; where katdal has recorded a shift in ``time_offset``, the data
    set is opened again with the opposite one.

    Parameters
    ----------
    rdb
        The dump of the telescope state, ``DATA/<cbid>/<cbid>_<stream>.rdb``.
    applycal
        Calibration products that katdal divides the visibilities by: ``"l1"`` for those of K, B and G that the
        calibration stream has, ``"l1.G"`` for one that must be there, empty for none.
    kwargs
        Further arguments of :func:`katdal.open`, such as `preselect`.

    Returns
    -------
    DataSet
        Timestamps (Unix s) are the centres of the dumps.

    Raises
    ------
    katdal.datasources.DataSourceNotFound
        If there is no such file, or it is not a dump of a telescope state.
    """
    offset = float(kwargs.pop("time_offset", 0.0))
    data: DataSet = katdal.open(str(rdb), time_offset=offset, applycal=applycal, **kwargs)
    shift = data.time_offset - offset
    if shift != 0.0:
        data = katdal.open(str(rdb), time_offset=offset - shift, applycal=applycal, **kwargs)
    return data
