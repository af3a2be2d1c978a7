"""What the user asks the spectral imager for, as frozen values that check themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.imaging.errors import SettingsError
from pipelines.imaging.settings import DataSettings


@dataclass(frozen=True)
class SpectralSettings(DataSettings):
    """A range of channels of one target.

    Attributes
    ----------
    channels : range, optional
        Channels of the data set; all, if not given.
    subtract : Path, optional
        Components of the continuum that are subtracted.
    part : bool
        Whether only part of the cube is written, which will be joined with others.
    """

    channels: range | None = None
    subtract: Path | None = None
    part: bool = False


def channel_range(text: str) -> range:
    """Read ``FIRST:END``, as in ``0:64`` for 64 channels from 0 on.

    Raises
    ------
    SettingsError
        It is no range with channels in it.
    """
    first, colon, end = text.partition(":")
    if not (colon and first.isascii() and first.isdigit() and end.isascii() and end.isdigit()):
        raise SettingsError(f"channels {text!r}: must be FIRST:END, as in 0:64")
    if len(text) > 20 or int(first) >= int(end):
        raise SettingsError(f"channels {text!r}: there are none; END is the one after the last")
    return range(int(first), int(end))
