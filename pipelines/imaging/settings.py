"""What the user asks for, as frozen values that check themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.imaging.clean import CleanSettings
from pipelines.imaging.errors import SettingsError
from pipelines.imaging.gridder import EPSILON
from pipelines.imaging.spectrum import MAX_TERMS
from pipelines.imaging.weighting import WeightScheme

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
MAX_THREADS = 256


@dataclass(frozen=True)
class ImagingSettings:
    """One image.

    Attributes
    ----------
    dataset : Path
        The data set: a ``.rdb`` file, or a MeasurementSet.
    output : Path
        Directory for all files; made if it is not there.
    target : str, optional
        Name of the target.
    applycal : bool
        Whether calibration solutions that are in the data set are applied.
    size : int, optional
        Pixels along a side.
    pixel : float, optional
        Side of a pixel in radians.
    weights : WeightScheme
        Weighting.
    cleaning : CleanSettings
        Limits of CLEAN.
    name : str
        What the files' names begin with.
    threads : int
        Threads for the gridder.
    epsilon : float
        Accuracy of the gridder.
    terms : int
        Terms of the polynomial by which brightness may go with frequency.
    find_sources, picture : bool
        Whether sources are sought, and a picture is drawn.
    """

    dataset: Path
    output: Path
    target: str | None = None
    applycal: bool = True
    size: int | None = None
    pixel: float | None = None
    weights: WeightScheme = field(default_factory=WeightScheme)
    cleaning: CleanSettings = field(default_factory=CleanSettings)
    name: str = "image"
    threads: int = 1
    epsilon: float = EPSILON
    terms: int = 1
    find_sources: bool = True
    picture: bool = True

    def __post_init__(self) -> None:
        check_common(self.name, self.threads, self.epsilon)
        if not 1 <= self.terms <= MAX_TERMS:
            raise SettingsError(f"{self.terms} spectral terms: must be between 1 and {MAX_TERMS}")


def check_common(name: str, threads: int, epsilon: float) -> None:
    """Check what all programs of this package are told.

    Raises
    ------
    SettingsError
        Something is out of range.
    """
    if not FILE_NAME.fullmatch(name):
        raise SettingsError(
            f"name {name!r}: letters, digits and _.+- only, beginning with a letter or digit"
        )
    if not 1 <= threads <= MAX_THREADS:
        raise SettingsError(f"{threads} threads: must be between 1 and {MAX_THREADS}")
    if not 1e-6 <= epsilon <= 0.1:
        raise SettingsError(f"accuracy {epsilon:g}: must be between 1e-6 and 0.1")
