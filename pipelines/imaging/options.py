"""The command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.common.endpoints import Endpoint
from pipelines.imaging.clean import CleanSettings
from pipelines.imaging.geometry import ARCSEC
from pipelines.imaging.gridder import EPSILON
from pipelines.imaging.settings import ImagingSettings
from pipelines.imaging.weighting import Weighting, WeightScheme

if TYPE_CHECKING:
    from pipelines.imaging.publish import Report

DEFAULTS = CleanSettings()


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python3 -m pipelines.imaging",
        description="Make a CLEANed Stokes I image of one target of a data set, with a source list.",
        epilog="Writes NAME.fits (restored image), NAME-residual.fits, NAME-components.fits (what CLEAN"
        " has found, for `python3 -m pipelines.imaging.spectral --subtract`), NAME-alpha.fits (spectral"
        " indices, with --terms), NAME.png, sources.json and quality.json.",
    )
    add_data_options(result, name="image")
    yes_no = argparse.BooleanOptionalAction
    result.add_argument("--sources", action=yes_no, default=True, help="look for sources [yes]")
    result.add_argument("--picture", action=yes_no, default=True, help="draw the picture [yes]")
    add_queue_options(result, task="imager")
    image = add_image_options(result)
    image.add_argument(
        "--terms",
        metavar="N",
        type=int,
        default=1,
        help="terms of the polynomial that spectra are fitted with; from 2 on there are spectral"
        " indices [%(default)s]",
    )
    add_clean_options(result)
    return result


def add_queue_options(result: argparse.ArgumentParser, task: str) -> None:
    """Add where the figures of what is made are told, and by whom."""
    result.add_argument(
        "--quality-queue",
        metavar="HOST:PORT",
        type=_endpoint,
        help="server of the telescope state beside which the figures are told [nowhere]",
    )
    result.add_argument("--task", default=task, metavar="NAME", help="who tells them [%(default)s]")


def tell(quality: Report, arguments: argparse.Namespace) -> None:
    """Tell the figures where it was asked for."""
    if arguments.quality_queue is not None:
        # Loads what servers need, which an image for nobody else does not.
        from pipelines.imaging.publish import publish

        publish(quality, arguments.task, arguments.quality_queue)


def add_data_options(result: argparse.ArgumentParser, name: str) -> None:
    """Add what says which data, whither, and how loudly."""
    add = result.add_argument
    add(
        "dataset",
        metavar="DATASET",
        type=Path,
        help="data set: the .rdb of MeerKAT visibility format v4, or a MeasurementSet",
    )
    add("--output", metavar="DIR", type=Path, required=True, help="directory for the files")
    add("--target", metavar="NAME", help="target to image [the only one that is no calibrator]")
    add(
        "--applycal",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="apply the calibration solutions that the data set has; of a MeasurementSet, take"
        " CORRECTED_DATA if it has that [yes]",
    )
    add("--name", default=name, help="what file names begin with [%(default)s]")
    add("--threads", metavar="N", type=int, default=_cores(), help="threads [%(default)s]")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])


def add_image_options(result: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add what says which image; return the group."""
    group = result.add_argument_group("image")
    add = group.add_argument
    add("--size", metavar="PIXELS", type=int, help="pixels along a side [1.2 primary beams]")
    add("--pixel", metavar="ARCSEC", type=float, help="side of a pixel [a fifth of the beam]")
    kinds = [kind.value for kind in Weighting]
    add("--weighting", choices=kinds, default=Weighting.BRIGGS.value, help="[%(default)s]")
    add("--robust", metavar="R", type=float, default=0.0, help="for briggs, -2 to 2 [%(default)s]")
    add("--epsilon", type=float, default=EPSILON, help="accuracy of the gridder [%(default)s]")
    return group


def add_clean_options(result: argparse.ArgumentParser) -> None:
    """Add what says how CLEAN goes."""
    add = result.add_argument_group("CLEAN").add_argument
    add(
        "--niter",
        metavar="N",
        type=int,
        default=DEFAULTS.iterations,
        help="components at most; 0: dirty image [%(default)s]",
    )
    add(
        "--sigmas",
        metavar="S",
        type=float,
        default=DEFAULTS.sigmas,
        help="clean what has been found down to so many times the noise [%(default)s]",
    )
    add(
        "--threshold",
        metavar="JY",
        type=float,
        help="clean everywhere down to this, and nothing below [the noise decides]",
    )
    add("--gain", type=float, default=DEFAULTS.gain, help="loop gain [%(default)s]")
    add(
        "--major-cycles",
        metavar="N",
        type=int,
        default=DEFAULTS.major_cycles,
        help="at most [%(default)s]",
    )


def settings_of(arguments: argparse.Namespace) -> ImagingSettings:
    """Check what was said on the command line.

    Raises
    ------
    SettingsError
        Something is out of range.
    """
    return ImagingSettings(
        **data_settings_of(arguments),
        terms=arguments.terms,
        find_sources=arguments.sources,
        picture=arguments.picture,
    )


def data_settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of :class:`pipelines.imaging.settings.DataSettings` as said on the command line.

    Raises
    ------
    SettingsError
        Something is out of range.
    """
    names = ("dataset", "output", "target", "applycal", "size", "name", "threads", "epsilon")
    return {
        **{name: getattr(arguments, name) for name in names},
        "pixel": None if arguments.pixel is None else arguments.pixel * ARCSEC,
        "weights": WeightScheme(Weighting(arguments.weighting), arguments.robust),
        "cleaning": CleanSettings(
            iterations=arguments.niter,
            threshold=arguments.threshold,
            gain=arguments.gain,
            major_cycles=arguments.major_cycles,
            sigmas=arguments.sigmas,
        ),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ends the process with a message if it cannot."""
    return parser().parse_args(arguments)


def _endpoint(text: str) -> Endpoint:
    # Loads what servers need, which an image for nobody else does not.
    from pipelines.common.endpoints import parse_endpoint
    from pipelines.common.program import option

    endpoint: Endpoint = option(parse_endpoint)(text)
    return endpoint


def _cores() -> int:
    """Cores that this process may run on, which in a container are not all that there are."""
    return len(os.sched_getaffinity(0))
