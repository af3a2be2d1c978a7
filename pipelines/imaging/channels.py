"""Images of single channels, one after the other, into part of a cube.

Memory is that of one channel, however many there are: its visibilities, images and the gridder's grids;
`pipelines.catalogue.spectral_imager_bytes` says how much. The channels are read together into a spool on disk,
since a data set's chunks have many of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pipelines.imaging.arrays import Image
from pipelines.imaging.beam import Beam, fit_beam, highest_sidelobe
from pipelines.imaging.clean import CleanResult, clean, robust_rms
from pipelines.imaging.continuum import Continuum
from pipelines.imaging.cube import ChannelFacts, CubeFacts, part_path, writing_cube
from pipelines.imaging.errors import NoVisibilitiesError, SettingsError
from pipelines.imaging.geometry import SPEED_OF_LIGHT, ImageGrid, choose_grid, primary_beam
from pipelines.imaging.gridder import Gridder, ducc_wgridder
from pipelines.imaging.measurement import NODE_TOLERANCE, Measurement, weigh
from pipelines.imaging.nodes import Tracks
from pipelines.imaging.restore import restore
from pipelines.imaging.selection import Observation
from pipelines.imaging.source import VisibilitySource, open_source
from pipelines.imaging.spectral_settings import SpectralSettings
from pipelines.imaging.visibilities import BLOCK_SAMPLES, Visibilities, VisibilitySpool

logger = logging.getLogger(__name__)

BEAM_FIT_SIZE = 256
SPOOL_BYTES = 2**30
"""Disk that the visibilities of the channels read together may take, if more than one channel does."""

BYTES_PER_SPOOLED = 16


def image_channels(settings: SpectralSettings) -> Path:
    """Image a range of channels and write the part of the cube; return where it lies.

    Raises
    ------
    ImagingError
        It cannot be made; the message says why.
    OSError
        Files cannot be read or written.
    """
    ducc_wgridder()  # if it is missing, say so now and not after reading everything
    settings.output.mkdir(parents=True, exist_ok=True)
    source = open_source(settings.dataset, settings.target, applycal=settings.applycal)
    channels = _range_of(settings, source.observation)
    continuum = None
    if settings.subtract is not None:
        continuum = Continuum(settings.subtract, source.observation, settings.threads)
        logger.info("%d components of the continuum are subtracted", len(continuum))
    path = part_path(settings.output, settings.name, channels)
    with ExitStack() as stack:
        imager: ChannelImager | None = None
        for number, spool in _spooled(source, settings, channels):
            if imager is None:
                imager = ChannelImager(spool, source.observation, settings, continuum)
                facts = _facts(source, settings, imager.grid, channels)
                writer = stack.enter_context(writing_cube(path, facts))
            for index in range(spool.frequencies.size):
                image, channel = imager.image(spool, index, number + index)
                writer.write(image, channel)
                done = round(100 * (number + index + 1 - channels.start) / len(channels))
                logger.info("%d %% %s", done, channel)
    return path


def _range_of(settings: SpectralSettings, observation: Observation) -> range:
    n_channels = observation.frequencies.size
    chosen = settings.channels or range(n_channels)
    if chosen.stop > n_channels:
        raise SettingsError(
            f"channels {chosen.start}:{chosen.stop}: the data set has {n_channels}, from 0"
        )
    return chosen


def _spooled(
    source: VisibilitySource, settings: SpectralSettings, channels: range
) -> Iterator[tuple[int, VisibilitySpool]]:
    """Read the channels, as many at a time as may be on disk; with the number of the first."""
    per_channel = source.shape[0] * source.shape[1] * BYTES_PER_SPOOLED
    step = max(SPOOL_BYTES // per_channel, 1)
    for number in range(channels.start, channels.stop, step):
        some = range(number, min(number + step, channels.stop))
        with source.read(settings.output, some, lambda fraction: None) as spool:
            yield number, spool


def _facts(
    source: VisibilitySource, settings: SpectralSettings, grid: ImageGrid, channels: range
) -> CubeFacts:
    observation = source.observation
    half = observation.dump_period / 2
    subtracted = settings.subtract.name if settings.subtract is not None else "none"
    return CubeFacts(
        grid=grid,
        ra=observation.ra,
        dec=observation.dec,
        first_channel=channels.start,
        first_frequency=float(observation.frequencies[channels.start]),
        channel_width=observation.channel_width,
        n_channels=len(channels),
        target=observation.name,
        telescope=observation.telescope,
        capture_block=observation.capture_block,
        start=observation.start - half,
        end=observation.end + half,
        history=(
            f"weighting {settings.weights}, gridder accuracy {settings.epsilon:g}",
            f"calibration applied: {', '.join(source.applied) or 'none'}",
            f"continuum subtracted: {subtracted}",
            f"CLEAN gain {settings.cleaning.gain:g}, in every channel by itself",
            "not corrected for the primary beam",
        ),
    )


class ChannelImager:
    """Makes images of channels on one grid, which follows from the observation and not from the channels.

    Parameters
    ----------
    spool : Visibilities
        Some channels; their coordinates and times are those of all.
    observation : Observation
        All channels of it.
    settings : SpectralSettings
        What is asked for.
    continuum : Continuum, optional
        What is subtracted.
    """

    def __init__(
        self,
        spool: Visibilities,
        observation: Observation,
        settings: SpectralSettings,
        continuum: Continuum | None,
    ) -> None:
        self._settings, self._continuum = settings, continuum
        if not np.all(np.isfinite(spool.uvw)):
            raise NoVisibilitiesError(f"target {observation.name!r}: coordinates are no numbers")
        self._highest = float(observation.frequencies.max())
        longest = float(np.hypot(spool.uvw[..., 0], spool.uvw[..., 1]).max())
        self.grid = choose_grid(
            longest * self._highest / SPEED_OF_LIGHT,
            primary_beam(observation.diameter, float(np.mean(observation.frequencies))),
            size=settings.size,
            pixel=settings.pixel,
        )
        self._gridder = Gridder(self.grid, settings.threads, settings.epsilon)
        self._tracks = Tracks(
            spool.uvw,
            spool.times,
            np.array([self._highest]),
            NODE_TOLERANCE * settings.epsilon,
            BLOCK_SAMPLES,
        )

    def image(self, spool: Visibilities, index: int, number: int) -> tuple[Image, ChannelFacts]:
        """Make the image of one channel.

        Parameters
        ----------
        spool : Visibilities
            Channels.
        index, number : int
            Which of them, and which one of the data set that is.

        Returns
        -------
        float32 (size, size), ChannelFacts
            Jy/beam; not a number where the channel has no data.
        """
        channel = spool.channel(index)
        frequency = float(channel.frequencies[0])
        try:
            if self._continuum is not None:
                self._continuum.subtract(channel, self._highest)
            totals = weigh(channel, self.grid, self._settings.weights)
            measurement = Measurement(channel, self._gridder, totals, tracks=self._tracks)
            beam, sidelobe, result = self._deconvolve(measurement)
        except NoVisibilitiesError:
            nothing = np.full((self.grid.size, self.grid.size), np.nan, np.float32)
            return nothing, ChannelFacts.without_data(number, frequency)
        residual = result.residual[0]
        image = restore(result.model[0], residual, beam)
        return image, ChannelFacts(
            channel=number,
            frequency=frequency,
            beam=beam,
            rms=robust_rms(residual),
            peak=float(image.max()),
            residual_peak=float(np.abs(residual).max()),
            sidelobe=sidelobe,
            samples=totals.samples,
            iterations=result.iterations,
            major_cycles=result.major_cycles,
        )

    def _deconvolve(self, measurement: Measurement) -> tuple[Beam, float, CleanResult]:
        settings = self._settings.cleaning
        size = 2 * self.grid.size if settings.iterations else min(self.grid.size, BEAM_FIT_SIZE)
        psf = measurement.point_spread_function(size)
        beam = fit_beam(psf[0])
        sidelobe = highest_sidelobe(psf[0], beam)
        dirty = measurement.dirty_image()
        result = clean(dirty, psf, beam, sidelobe, measurement.residual_of, settings)
        return beam, sidelobe, result
