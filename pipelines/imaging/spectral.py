"""``python3 -m pipelines.imaging.spectral``: a cube of images of channels, or part of one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.imaging.command import run
from pipelines.imaging.options import (
    add_clean_options,
    add_data_options,
    add_image_options,
    add_queue_options,
    data_settings_of,
    tell,
)
from pipelines.imaging.spectral_settings import SpectralSettings, channel_range


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python3 -m pipelines.imaging.spectral",
        description="Make CLEANed Stokes I images of single channels of one target, as a cube. Memory is"
        " that of one channel, however many there are.",
        epilog="Writes NAME.fits (cube, with tables BEAMS and CHANNELS), NAME.png (brightest value along"
        " each line of sight, and the spectrum at the peak) and quality.json. With --part, only"
        " NAME-part-FIRST-END.fits: several tasks make parts, and `python3 -m pipelines.imaging.join` a"
        " cube of them.",
    )
    add_data_options(result, name="cube")
    group = result.add_argument_group("channels")
    group.add_argument(
        "--channels",
        metavar="FIRST:END",
        help="channels of the data set, from 0, without END [all]",
    )
    group.add_argument(
        "--subtract",
        metavar="FITS",
        type=Path,
        help="subtract the continuum: the NAME-components.fits of an image of the same target",
    )
    group.add_argument("--part", action="store_true", help="write a part, do not make a cube")
    add_queue_options(result, task="spectral")
    add_image_options(result)
    add_clean_options(result)
    return result


def settings_of(arguments: argparse.Namespace) -> SpectralSettings:
    """Check what was said on the command line.

    Raises
    ------
    SettingsError
        Something is out of range.
    """
    return SpectralSettings(
        **data_settings_of(arguments),
        channels=None if arguments.channels is None else channel_range(arguments.channels),
        subtract=arguments.subtract,
        part=arguments.part,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one cube or part of one; return the exit status."""
    options = parser().parse_args(arguments)

    def make() -> None:
        """Image the channels; of a cube that is made in one part, join and tell as well."""
        # Each takes a second to load, which a mistake on the command line need not wait for.
        from pipelines.imaging.channels import image_channels
        from pipelines.imaging.join import make_cube

        settings = settings_of(options)
        part = image_channels(settings)
        if not settings.part:
            tell(make_cube([part], settings.output, settings.name), options)

    return run(make, options.log_level)


if __name__ == "__main__":
    sys.exit(main())
