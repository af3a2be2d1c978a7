"""From a data set to files: the one place where all steps are put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.imaging.arrays import Image
from pipelines.imaging.beam import Beam, fit_beam, highest_sidelobe
from pipelines.imaging.clean import CleanResult, clean
from pipelines.imaging.components import components_of, write_components
from pipelines.imaging.files import write_json
from pipelines.imaging.fits import ImageFacts, image_header, index_header, write_fits
from pipelines.imaging.geometry import ARCSEC, ImageGrid, celestial_wcs, choose_grid, primary_beam
from pipelines.imaging.gridder import Gridder, ducc_wgridder
from pipelines.imaging.measurement import Measurement, longest_baseline, weigh
from pipelines.imaging.quality import Quality, assess
from pipelines.imaging.restore import restore
from pipelines.imaging.selection import Observation
from pipelines.imaging.settings import ImagingSettings
from pipelines.imaging.source import VisibilitySource, open_source, require_some
from pipelines.imaging.sources import Source, find_sources, with_indices
from pipelines.imaging.spectrum import Basis, power_laws
from pipelines.imaging.visibilities import VisibilitySpool

logger = logging.getLogger(__name__)

BEAM_FIT_SIZE = 256
"""Pixels of the point spread function when it is only needed to fit the beam."""

INDEX_SIGMAS = 10.0
"""Brightness over the noise from which on a pixel has a spectral index."""


@dataclass(frozen=True)
class Product:
    """One image and what is known about it.

    Attributes
    ----------
    images : float32 (terms, size, size)
        Restored (or dirty) images of the spectral terms, Jy/beam; the first is the mean over the band.
    result : CleanResult
        Components and residual.
    basis : Basis
        What the terms are.
    facts : ImageFacts
        For headers.
    quality : Quality
        The report.
    sources : tuple of Source
        What was found, brightest first.
    """

    images: Image
    result: CleanResult
    basis: Basis
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
    source = open_source(settings.dataset, settings.target, applycal=settings.applycal)
    report(1.0)
    report = progress.stage(f"read visibilities of {source.observation.name}", 0.05, 0.35)
    channels = range(source.observation.frequencies.size)
    with source.read(settings.output, channels, report) as spool:
        require_some(spool, source.observation.name)
        product = image_visibilities(spool, source, settings, progress)
    report = progress.stage("write files", 0.92, 1.0)
    write_product(product, settings)
    report(1.0)
    return product


def image_visibilities(
    spool: VisibilitySpool,
    source: VisibilitySource,
    settings: ImagingSettings,
    progress: Progress,
) -> Product:
    """Make the image of Stokes I visibilities."""
    progress.stage("weigh visibilities", 0.35, 0.4)
    observation = source.observation
    grid = grid_for(spool, observation, settings.size, settings.pixel)
    totals = weigh(spool, grid, settings.weights)
    gridder = Gridder(grid, settings.threads, settings.epsilon)
    measurement = Measurement(spool, gridder, totals, settings.terms)
    logger.info("%.3g samples are gridded as one", measurement.compression)
    beam, sidelobe, result = _deconvolve(measurement, settings, progress)
    progress.stage("find sources", 0.9, 0.92)
    images = np.stack(
        [restore(m, r, beam) for m, r in zip(result.model, result.residual, strict=True)]
    )
    sources = _sources(images, result, beam, measurement.basis, observation, grid, settings)
    quality = assess(
        target=observation.name,
        capture_block_id=observation.capture_block,
        image=images[0],
        result=result,
        beam=beam,
        sidelobe=sidelobe,
        grid=grid,
        frequency=measurement.basis.reference,
        n_vis=totals.samples,
        flagged_fraction=1.0 - totals.unflagged / spool.vis.size,
        sources=sources,
        cpu_seconds=time.process_time(),
    )
    facts = _facts(source, settings, grid, beam, quality)
    return Product(images, result, measurement.basis, facts, quality, sources)


def _deconvolve(
    measurement: Measurement, settings: ImagingSettings, progress: Progress
) -> tuple[Beam, float, CleanResult]:
    """Beam, its highest sidelobe, and what CLEAN makes of the dirty image."""
    progress.stage("make the dirty image", 0.4, 0.5)
    dirty = measurement.dirty_image()
    progress.stage("fit the beam", 0.5, 0.6)
    psf = _point_spread_function(measurement, settings)
    beam = fit_beam(psf[0])
    sidelobe = highest_sidelobe(psf[0], beam)
    report = progress.stage("clean", 0.6, 0.9)
    residual_of = measurement.residual_of
    return beam, sidelobe, clean(dirty, psf, beam, sidelobe, residual_of, settings.cleaning, report)


def _sources(
    images: Image,
    result: CleanResult,
    beam: Beam,
    basis: Basis,
    observation: Observation,
    grid: ImageGrid,
    settings: ImagingSettings,
) -> tuple[Source, ...]:
    """Find sources, with spectral indices where spectra were fitted."""
    if not settings.find_sources:
        return ()
    wcs = celestial_wcs(grid, observation.ra, observation.dec)
    found = find_sources(images[0], result.residual[0], beam, wcs)
    if basis.terms < 2:
        return found
    return with_indices(found, images, result.residual, power_laws(basis))


def grid_for(
    spool: VisibilitySpool, observation: Observation, size: int | None, pixel: float | None
) -> ImageGrid:
    """Choose what the user did not, and say what it is; see :func:`choose_grid`."""
    beam = primary_beam(observation.diameter, float(np.mean(observation.frequencies)))
    grid = choose_grid(longest_baseline(spool), beam, size=size, pixel=pixel)
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
    source: VisibilitySource,
    settings: ImagingSettings,
    grid: ImageGrid,
    beam: Beam,
    quality: Quality,
) -> ImageFacts:
    observation = source.observation
    half = observation.dump_period / 2
    return ImageFacts(
        grid=grid,
        ra=observation.ra,
        dec=observation.dec,
        beam=beam,
        frequency=quality.frequency,
        bandwidth=observation.channel_width * observation.frequencies.size,
        target=observation.name,
        telescope=observation.telescope,
        capture_block=observation.capture_block,
        start=observation.start - half,
        end=observation.end + half,
        history=(
            f"weighting {settings.weights}, gridder accuracy {settings.epsilon:g}",
            f"calibration applied: {', '.join(source.applied) or 'none'}",
            f"CLEAN gain {settings.cleaning.gain:g}, {quality.clean_iterations} iterations,"
            f" {quality.major_cycles} major cycles",
            f"CLEAN ended: {quality.clean_stop}; spectral terms {settings.terms}",
            "not corrected for the primary beam",
        ),
    )


def write_product(product: Product, settings: ImagingSettings) -> None:
    """Write images, picture, source list and report; the report last, as the sign that all is there."""
    header = image_header(product.facts)
    place, name = settings.output, settings.name
    write_fits(place / f"{name}.fits", product.images[0], header)
    write_fits(place / f"{name}-residual.fits", product.result.residual[0], header)
    parts = components_of(product.result.model, product.basis)
    write_components(place / f"{name}-components.fits", parts, product.facts)
    if product.basis.terms > 1:
        write_fits(place / f"{name}-alpha.fits", index_map(product), index_header(product.facts))
    if settings.picture:
        # Importing matplotlib takes a second that an error before this point need not wait for.
        from pipelines.imaging.picture import write_picture

        write_picture(
            place / f"{name}.png",
            product.images[0],
            product.facts,
            product.quality,
            product.sources,
        )
    write_json(place / "sources.json", [source.document() for source in product.sources])
    write_json(place / "quality.json", product.quality.document())


def index_map(product: Product) -> Image:
    """Spectral index where the image stands out of the noise; NaN elsewhere."""
    bright = product.images[0] > INDEX_SIGMAS * product.quality.rms
    index = np.full(bright.shape, np.nan, np.float32)
    ratios = product.images[1][bright] / product.images[0][bright]
    index[bright] = power_laws(product.basis).index(ratios)
    return index
