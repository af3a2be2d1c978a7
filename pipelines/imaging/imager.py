"""From a data set to files: the one place where all steps are put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.common.dataset import open_dataset
from pipelines.imaging.beam import Beam, fit_beam, highest_sidelobe
from pipelines.imaging.clean import CleanResult, clean
from pipelines.imaging.errors import ImagingError
from pipelines.imaging.files import write_json
from pipelines.imaging.fits import ImageFacts, image_header, write_fits
from pipelines.imaging.geometry import ARCSEC, ImageGrid, celestial_wcs, choose_grid, primary_beam
from pipelines.imaging.gridder import Gridder, ducc_wgridder
from pipelines.imaging.measurement import Measurement, longest_baseline, weigh
from pipelines.imaging.minor_cycle import Image
from pipelines.imaging.quality import Quality, assess
from pipelines.imaging.restore import restore
from pipelines.imaging.selection import Observation, observe_target
from pipelines.imaging.settings import ImagingSettings
from pipelines.imaging.sources import Source, find_sources
from pipelines.imaging.visibilities import VisibilitySpool, read_visibilities

if TYPE_CHECKING:
    from katdal.dataset import DataSet

logger = logging.getLogger(__name__)

BEAM_FIT_SIZE = 512
"""Pixels of the point spread function when it is only needed to fit the beam."""


@dataclass(frozen=True)
class Product:
    """One image and what is known about it.

    Attributes
    ----------
    image : float32 (size, size)
        Restored (or dirty) image, Jy/beam.
    result : CleanResult
        Components and residual.
    facts : ImageFacts
        For headers.
    quality : Quality
        The report.
    sources : tuple of Source
        What was found, brightest first.
    """

    image: Image
    result: CleanResult
    facts: ImageFacts
    quality: Quality
    sources: tuple[Source, ...]


class Progress:
    """Log lines with the share of the work that is done, no more than one per per cent."""

    def __init__(self) -> None:
        self._last = -1

    def stage(self, text: str, begin: float, end: float) -> Callable[[float], None]:
        """Return what to call with the fraction of this stage; it runs from `begin` to `end` of all."""

        def report(fraction: float) -> None:
            percent = round(100 * (begin + (end - begin) * min(max(fraction, 0.0), 1.0)))
            if percent > self._last:
                self._last = percent
                logger.info("%d %% %s", percent, text)

        report(0.0)
        return report


def make_image(settings: ImagingSettings) -> Product:
    """Read, image, clean, find sources, and write all files.

    Raises
    ------
    ImagingError
        The image cannot be made; the message says why.
    OSError
        Files cannot be read or written.
    """
    ducc_wgridder()  # if it is missing, say so now and not after reading everything
    settings.output.mkdir(parents=True, exist_ok=True)
    progress = Progress()
    report = progress.stage("open the data set", 0.0, 0.05)
    dataset, applied = open_calibrated(settings)
    observation = observe_target(dataset, settings.target)
    report(1.0)
    report = progress.stage(f"read visibilities of {observation.name}", 0.05, 0.35)
    with read_visibilities(dataset, observation, settings.output, report) as spool:
        product = image_visibilities(spool, observation, applied, settings, progress)
    report = progress.stage("write files", 0.92, 1.0)
    write_product(product, settings)
    report(1.0)
    return product


def open_calibrated(settings: ImagingSettings) -> tuple[DataSet, list[str]]:
    """Open the data set, with calibration on the fly if asked for and there is any.

    Returns
    -------
    DataSet, list of str
        The data set and the calibration products that are applied.

    Raises
    ------
    ImagingError
        There is no such data set, or it cannot be read.
    """
    if not settings.dataset.is_file():
        raise ImagingError(f"no data set {settings.dataset}")
    try:
        dataset = open_dataset(settings.dataset, applycal="all" if settings.applycal else "")
    except Exception as error:  # katdal raises whatever its parts raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImagingError(f"cannot open data set {settings.dataset}: {reason}") from error
    applied = list(getattr(dataset, "applycal_products", None) or ())
    if applied:
        logger.info("calibration applied: %s", ", ".join(applied))
    elif settings.applycal:
        logger.warning("the data set has no calibration solutions; visibilities are as received")
    return dataset, applied


def image_visibilities(
    spool: VisibilitySpool,
    observation: Observation,
    applied: Sequence[str],
    settings: ImagingSettings,
    progress: Progress,
) -> Product:
    """Make the image of Stokes I visibilities."""
    progress.stage("weigh visibilities", 0.35, 0.4)
    frequencies = observation.frequencies
    grid = _grid_for(spool, observation, settings)
    totals = weigh(spool, grid, settings.weights)
    measurement = Measurement(spool, Gridder(grid, settings.threads, settings.epsilon), totals)
    progress.stage("make the dirty image", 0.4, 0.5)
    dirty = measurement.dirty_image()
    progress.stage("fit the beam", 0.5, 0.6)
    psf = _point_spread_function(measurement, settings)
    beam = fit_beam(psf)
    sidelobe = highest_sidelobe(psf, beam)
    result = clean(
        dirty,
        psf,
        beam,
        sidelobe,
        measurement.residual_of,
        settings.cleaning,
        progress.stage("clean", 0.6, 0.9),
    )
    progress.stage("find sources", 0.9, 0.92)
    image = restore(result.model, result.residual, beam)
    wcs = celestial_wcs(grid, observation.ra, observation.dec)
    sources = find_sources(image, result.residual, beam, wcs)
    frequency = float(np.dot(totals.channels, frequencies))
    quality = assess(
        target=observation.name,
        capture_block_id=observation.capture_block,
        image=image,
        result=result,
        beam=beam,
        sidelobe=sidelobe,
        grid=grid,
        frequency=frequency,
        n_vis=totals.samples,
        flagged_fraction=1.0 - totals.unflagged / spool.vis.size,
        sources=sources,
        cpu_seconds=time.process_time(),
    )
    facts = _facts(observation, applied, settings, grid, beam, frequency, quality)
    return Product(image, result, facts, quality, sources)


def _grid_for(
    spool: VisibilitySpool, observation: Observation, settings: ImagingSettings
) -> ImageGrid:
    beam = primary_beam(observation.diameter, float(np.mean(observation.frequencies)))
    grid = choose_grid(longest_baseline(spool), beam, size=settings.size, pixel=settings.pixel)
    logger.info(
        "image of %d x %d pixels of %.3g arcsec; the primary beam is %.3g pixels wide",
        grid.size,
        grid.size,
        grid.pixel / ARCSEC,
        beam / grid.pixel,
    )
    if grid.field < 0.99 * beam:
        logger.warning("the field is smaller than the primary beam; sources outside stay uncleaned")
    return grid


def _point_spread_function(measurement: Measurement, settings: ImagingSettings) -> Image:
    size = measurement.gridder.grid.size
    if settings.cleaning.iterations == 0:
        return measurement.point_spread_function(min(size, BEAM_FIT_SIZE))
    return measurement.point_spread_function(2 * size)


def _facts(
    observation: Observation,
    applied: Sequence[str],
    settings: ImagingSettings,
    grid: ImageGrid,
    beam: Beam,
    frequency: float,
    quality: Quality,
) -> ImageFacts:
    frequencies = observation.frequencies
    channel = float(np.ptp(frequencies)) / max(frequencies.size - 1, 1)
    half = observation.dump_period / 2
    return ImageFacts(
        grid=grid,
        ra=observation.ra,
        dec=observation.dec,
        beam=beam,
        frequency=frequency,
        bandwidth=channel * frequencies.size,
        target=observation.name,
        telescope=observation.telescope,
        capture_block=observation.capture_block,
        start=observation.start - half,
        end=observation.end + half,
        history=(
            f"weighting {settings.weights}, gridder accuracy {settings.epsilon:g}",
            f"calibration applied: {', '.join(applied) or 'none'}",
            f"CLEAN gain {settings.cleaning.gain:g}, {quality.clean_iterations} iterations,"
            f" {quality.major_cycles} major cycles",
            f"CLEAN ended: {quality.clean_stop}",
            "not corrected for the primary beam",
        ),
    )


def write_product(product: Product, settings: ImagingSettings) -> None:
    """Write images, picture, source list and report; the report last, as the sign that all is there."""
    # Importing matplotlib takes a second that an error before this point need not wait for.
    from pipelines.imaging.picture import write_picture

    header = image_header(product.facts)
    place, name = settings.output, settings.name
    write_fits(place / f"{name}.fits", product.image, header)
    write_fits(place / f"{name}-residual.fits", product.result.residual, header)
    write_picture(
        place / f"{name}.png", product.image, product.facts, product.quality, product.sources
    )
    write_json(place / "sources.json", [source.document() for source in product.sources])
    write_json(place / "quality.json", product.quality.document())
