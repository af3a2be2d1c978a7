"""Data sets of either format, as imaging sees them: an observation, and visibilities by ranges of channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.imaging.errors import ImagingError, NoVisibilitiesError
from pipelines.imaging.selection import Observation
from pipelines.imaging.visibilities import Visibilities, VisibilitySpool

Progress = Callable[[float], None]


class VisibilitySource(Protocol):
    """One target's visibilities in a data set.

    Attributes
    ----------
    observation : Observation
        What was observed; all channels.
    applied : tuple of str
        Calibration that the visibilities have undergone.
    shape : tuple of int
        Baselines and dumps.
    """

    observation: Observation
    applied: tuple[str, ...]
    shape: tuple[int, int]

    def read(self, directory: Path, channels: range, progress: Progress) -> VisibilitySpool:
        """Read some channels into a spool in a directory; they may all be flagged.

        Raises
        ------
        ImagingError
            They cannot be read.
        """


def require_some(spool: Visibilities, name: str) -> None:
    """Insist on visibilities that can be imaged.

    Parameters
    ----------
    name : str
        Of the target, for the message.

    Raises
    ------
    NoVisibilitiesError
        Every sample is flagged, or it is not known where it was taken.
    """
    if spool.weights.any() and np.all(np.isfinite(spool.uvw)):
        return
    raise NoVisibilitiesError(
        f"target {name!r}: none of {spool.vis.size} samples in {spool.shape[1]} dumps is unflagged"
        " in both hands"
    )


def open_source(path: Path, target: str | None, *, applycal: bool) -> VisibilitySource:
    """Open a data set: a MeasurementSet if it is a directory, else MeerKAT visibility format v4.

    Parameters
    ----------
    path : Path
        MeasurementSet, or the dump of the telescope state (``.rdb``).
    target : str, optional
        Name of the target (field); without it, the only one that is no calibrator.
    applycal : bool
        Whether calibration solutions that are in the data set are applied; of a MeasurementSet, whether its
        corrected data are taken where it has any.

    Raises
    ------
    ImagingError
        There is no such data set, it cannot be read, or not the target.
    """
    if not path.exists():
        raise ImagingError(f"no data set {path}")
    # Each format's libraries take a good part of a second to load.
    if path.is_dir():
        from pipelines.imaging.measurement_set import MeasurementSetSource

        return MeasurementSetSource(path, target, applycal=applycal)
    from pipelines.imaging.meerkat import MeerkatSource

    return MeerkatSource(path, target, applycal=applycal)
