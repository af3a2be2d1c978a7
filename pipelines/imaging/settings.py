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
class DataSettings:
    """What all imagers are told.

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

    def __post_init__(self) -> None:
        if not FILE_NAME.fullmatch(self.name):
            raise SettingsError(
                f"name {self.name!r}: letters, digits and _.+- only, beginning with a letter or digit"
            )
        if not 1 <= self.threads <= MAX_THREADS:
            raise SettingsError(f"{self.threads} threads: must be between 1 and {MAX_THREADS}")
        if not 1e-6 <= self.epsilon <= 0.1:
            raise SettingsError(f"accuracy {self.epsilon:g}: must be between 1e-6 and 0.1")


@dataclass(frozen=True)
class ImagingSettings(DataSettings):
    """One image.

    Attributes
    ----------
    terms : int
        Terms of the polynomial by which brightness may go with frequency.
    find_sources, picture : bool
        Whether sources are sought, and a picture is drawn.
    """

    terms: int = 1
    find_sources: bool = True
    picture: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.terms <= MAX_TERMS:
            raise SettingsError(f"{self.terms} spectral terms: must be between 1 and {MAX_TERMS}")
