"""Cubes: FITS files with an axis of frequency, written and read a plane at a time.

The axes are right ascension, declination, frequency, Stokes. Every channel has a beam of its own; as CASA does,
``CASAMBM`` in the header says so, and a table ``BEAMS`` has them (columns BMAJ, BMIN in arcsec, BPA in degrees,
CHAN, POL). A second table, ``CHANNELS``, has what is known of each channel's quality.

A cube is made in parts by several tasks, which the last one joins. Parts are cubes, too.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from pipelines.imaging.arrays import Image
from pipelines.imaging.beam import Beam
from pipelines.imaging.errors import ImagingError
from pipelines.imaging.files import replacing
from pipelines.imaging.fits import ImageFacts, image_header
from pipelines.imaging.geometry import ARCSEC, ImageGrid

NUMBERS = ("FREQ", "RMS", "PEAK", "RESIDUAL", "SIDELOBE", "SAMPLES", "NITER", "NMAJOR")


@dataclass(frozen=True)
class CubeFacts:
    """What a cube's header says; see :class:`pipelines.imaging.fits.ImageFacts`.

    Attributes
    ----------
    first_channel, n_channels : int
        Channels of the data set.
    first_frequency, channel_width : float
        Hz.
    """

    grid: ImageGrid
    ra: float
    dec: float
    first_channel: int
    n_channels: int
    first_frequency: float
    channel_width: float
    target: str
    telescope: str
    capture_block: str
    start: float
    end: float
    history: Sequence[str]

    def header(self) -> fits.Header:
        """Header of the primary array."""
        header = image_header(
            ImageFacts(
                grid=self.grid,
                ra=self.ra,
                dec=self.dec,
                beam=Beam(1.0, 1.0, 0.0),
                frequency=self.first_frequency,
                bandwidth=self.channel_width,
                target=self.target,
                telescope=self.telescope,
                capture_block=self.capture_block,
                start=self.start,
                end=self.end,
                history=self.history,
            )
        )
        for name in ("BMAJ", "BMIN", "BPA"):
            del header[name]
        header["CASAMBM"] = (True, "each channel has a beam: extension BEAMS")
        header["CHANNEL0"] = (self.first_channel, "first channel, of the data set")
        return cube_axes(header, self.grid.size, self.n_channels)


def cube_axes(header: fits.Header, size: int, n_channels: int) -> fits.Header:
    """Give a header the dimensions of a cube."""
    for position, (name, value) in enumerate(
        {
            "SIMPLE": True,
            "BITPIX": -32,
            "NAXIS": 4,
            "NAXIS1": size,
            "NAXIS2": size,
            "NAXIS3": n_channels,
            "NAXIS4": 1,
            "EXTEND": True,
        }.items()
    ):
        header.remove(name, ignore_missing=True)
        header.insert(position, (name, value))
    return header


@dataclass(frozen=True)
class ChannelFacts:
    """What is known of one channel.

    Attributes
    ----------
    channel : int
        Its number in the data set.
    frequency : float
        Hz.
    beam : Beam, optional
        Restoring beam, pixels; None: the channel has no data.
    rms, peak, residual_peak : float
        Robust rms of the residual, brightest pixel, largest residual; Jy/beam.
    sidelobe : float
        Highest sidelobe of the point spread function.
    samples, iterations, major_cycles : int
        Stokes I samples in it; CLEAN's steps.
    """

    channel: int
    frequency: float
    beam: Beam | None
    rms: float
    peak: float
    residual_peak: float
    sidelobe: float
    samples: int
    iterations: int
    major_cycles: int

    @classmethod
    def without_data(cls, channel: int, frequency: float) -> ChannelFacts:
        """Facts of a channel that is flagged altogether."""
        nan = math.nan
        return cls(channel, frequency, None, nan, nan, nan, nan, 0, 0, 0)

    def __str__(self) -> str:
        name = f"channel {self.channel} ({self.frequency / 1e6:.3f} MHz)"
        if self.beam is None:
            return f"{name}: no data"
        return (
            f"{name}: peak {self.peak:.4g} Jy/beam, noise {self.rms:.3g},"
            f" {self.iterations} components in {self.major_cycles} major cycles"
        )


class CubeWriter:
    """Writes a cube's planes in order; made by :func:`writing_cube`."""

    def __init__(self, path: Path, header: fits.Header) -> None:
        self._path, self._size = path, int(header["NAXIS1"])
        self._stream = fits.StreamingHDU(path, header)
        self._channels: list[ChannelFacts] = []

    def write(self, image: Image, channel: ChannelFacts) -> None:
        """Write the next plane, float32 (size, size), Jy/beam."""
        self._stream.write(np.asarray(image, np.float32))
        self._channels.append(channel)

    def close(self, pixel: float) -> None:
        """Write the tables; `pixel` is the side of one in radians."""
        self._stream.close()
        for table in (beam_table(self._channels, pixel), channel_table(self._channels)):
            fits.append(self._path, table.data, table.header)

    def discard(self) -> None:
        """Close what could not be written to its end."""
        self._stream.close()


@contextmanager
def writing_cube(path: Path, facts: CubeFacts) -> Iterator[CubeWriter]:
    """Write a cube: it gets its name when the block ends without an error."""
    with writing_planes(path, facts.header(), facts.grid.pixel) as writer:
        yield writer


@contextmanager
def writing_planes(path: Path, header: fits.Header, pixel: float) -> Iterator[CubeWriter]:
    """The same with a header that is there already."""
    with replacing(path) as temporary:
        temporary.unlink(missing_ok=True)
        writer = CubeWriter(temporary, header)
        try:
            yield writer
        except BaseException:
            writer.discard()
            raise
        writer.close(pixel)


def beam_table(channels: Sequence[ChannelFacts], pixel: float) -> fits.BinTableHDU:
    """Make the table of beams; `pixel` is the side of one in radians."""
    beams = [channel.beam for channel in channels]
    scale = pixel / ARCSEC
    columns = {
        "BMAJ": ("1E", "arcsec", [scale * b.major if b else math.nan for b in beams]),
        "BMIN": ("1E", "arcsec", [scale * b.minor if b else math.nan for b in beams]),
        "BPA": ("1E", "deg", [math.degrees(b.angle) if b else math.nan for b in beams]),
        "CHAN": ("1J", "", list(range(len(beams)))),
        "POL": ("1J", "", [0] * len(beams)),
    }
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, kind, unit or None, array=a)
            for name, (kind, unit, a) in columns.items()
        ],
        name="BEAMS",
    )
    table.header["NCHAN"], table.header["NPOL"] = len(beams), 1
    return table


def channel_table(channels: Sequence[ChannelFacts]) -> fits.BinTableHDU:
    """Make the table of what is known of each channel."""
    rows = [
        (c.frequency, c.rms, c.peak, c.residual_peak, c.sidelobe, c.samples, c.iterations,
         c.major_cycles)
        for c in channels
    ]  # fmt: skip
    values = np.array(rows, np.float64).reshape(-1, len(NUMBERS)).T
    columns = [fits.Column("CHANNEL", "1J", array=[c.channel for c in channels])]
    columns += [fits.Column(n, "1D", array=v) for n, v in zip(NUMBERS, values, strict=True)]
    return fits.BinTableHDU.from_columns(columns, name="CHANNELS")


def part_path(directory: Path, name: str, channels: range) -> Path:
    """Where a part of a cube lies until it is joined with the others."""
    return directory / f"{name}-part-{channels.start:05d}-{channels.stop:05d}.fits"


def channels_of_part(path: Path) -> range:
    """Channels of a part, by its name."""
    first, end = path.stem.rsplit("-", 2)[1:]
    return range(int(first), int(end))


DAMAGED = (OSError, KeyError, ValueError, TypeError, AttributeError)
"""What reading a file raises that is no cube."""


class CubeReader:
    """A cube on disk, mapped: planes are read when they are asked for.

    Raises
    ------
    ImagingError
        It is no cube of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with ExitStack() as stack:
            try:
                with warnings.catch_warnings():
                    # A file that is cut off is a warning to astropy; it has no tables, which is told below.
                    warnings.simplefilter("ignore", AstropyUserWarning)
                    self._hdus = stack.enter_context(fits.open(path, memmap=True))
                    self._read()
            except DAMAGED as error:
                raise ImagingError(f"cannot read cube {path}: {error}") from error
            stack.pop_all()

    def _read(self) -> None:
        primary = self._hdus[0]
        self.header: fits.Header = primary.header.copy()
        self.pixel = math.radians(abs(float(self.header["CDELT2"])))
        self.size, self.n_channels = int(self.header["NAXIS1"]), int(self.header["NAXIS3"])
        self.channels = _channels(self._hdus, self.pixel)
        if primary.data.shape != (1, len(self.channels), self.size, self.size):
            raise ValueError("its tables do not fit its planes")

    @property
    def first_channel(self) -> int:
        """Number of the first channel in the data set."""
        return self.channels[0].channel

    def plane(self, index: int) -> Image:
        """One plane, float32 (size, size), Jy/beam."""
        return np.asarray(self._hdus[0].data[0, index], np.float32)

    def close(self) -> None:
        """Close the file."""
        self._hdus.close()


def _channels(hdus: fits.HDUList, pixel: float) -> list[ChannelFacts]:
    beams, table = hdus["BEAMS"].data, hdus["CHANNELS"].data
    scale = ARCSEC / pixel
    found = []
    for beam, row in zip(beams, table, strict=True):
        numbers = {name: float(row[name]) for name in NUMBERS}
        fitted = Beam(
            float(beam["BMAJ"]) * scale, float(beam["BMIN"]) * scale, math.radians(beam["BPA"])
        )
        found.append(
            ChannelFacts(
                channel=int(row["CHANNEL"]),
                frequency=numbers["FREQ"],
                beam=fitted if math.isfinite(fitted.major) else None,
                rms=numbers["RMS"],
                peak=numbers["PEAK"],
                residual_peak=numbers["RESIDUAL"],
                sidelobe=numbers["SIDELOBE"],
                samples=int(numbers["SAMPLES"]),
                iterations=int(numbers["NITER"]),
                major_cycles=int(numbers["NMAJOR"]),
            )
        )
    return found


def join(parts: Sequence[Path], path: Path) -> None:
    """Join parts, in the order of their channels, into one cube; a plane at a time.

    Raises
    ------
    ImagingError
        A part cannot be read, does not fit the others, or channels between them are missing.
    """
    if not parts:
        raise ImagingError("there is no part of a cube to join")
    with ExitStack() as stack:
        readers: list[CubeReader] = []
        for part in parts:
            readers.append(CubeReader(part))
            stack.callback(readers[-1].close)
        readers.sort(key=lambda reader: reader.first_channel)
        _check_fit(readers)
        n_channels = sum(reader.n_channels for reader in readers)
        header = cube_axes(readers[0].header.copy(), readers[0].size, n_channels)
        with writing_planes(path, header, readers[0].pixel) as writer:
            for reader in readers:
                for index, channel in enumerate(reader.channels):
                    writer.write(reader.plane(index), channel)


def _check_fit(readers: Sequence[CubeReader]) -> None:
    first = readers[0]
    same = ("NAXIS1", "CDELT2", "CRVAL1", "CRVAL2", "CDELT3", "OBJECT")
    for before, reader in itertools.pairwise(readers):
        expected = before.first_channel + before.n_channels
        if reader.first_channel != expected:
            raise ImagingError(
                f"{reader.path.name} begins with channel {reader.first_channel}, where"
                f" {before.path.name} goes on with {expected}"
            )
        for name in same:
            if reader.header.get(name) != first.header.get(name):
                raise ImagingError(f"{reader.path.name} differs from {first.path.name} in {name}")
