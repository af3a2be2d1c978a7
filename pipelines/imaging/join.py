"""``python3 -m pipelines.imaging.join``: parts become a cube, with a picture and a report; the parts go."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.imaging.command import run
from pipelines.imaging.cube import CubeReader, channels_of_part, join
from pipelines.imaging.cube_quality import CubeQuality, assess_cube, peak_map, spectrum_at
from pipelines.imaging.errors import ImagingError
from pipelines.imaging.files import write_json
from pipelines.imaging.options import add_queue_options, tell
from pipelines.imaging.spectral_settings import channel_range

logger = logging.getLogger("pipelines.imaging")


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python3 -m pipelines.imaging.join",
        description="Join the parts of a cube that lie in a directory into NAME.fits, with NAME.png"
        " and quality.json, and remove them.",
    )
    result.add_argument("output", metavar="DIR", type=Path, help="directory with the parts")
    result.add_argument("--name", default="cube", help="what file names begin with [%(default)s]")
    result.add_argument(
        "--channels",
        metavar="FIRST:END",
        help="channels that the cube must have; with it, to join again what is joined is no error",
    )
    add_queue_options(result, task="cube")
    result.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"]
    )
    return result


def find_parts(directory: Path, name: str, channels: range | None) -> list[Path]:
    """Parts of a cube, of certain channels or of whichever there are.

    Raises
    ------
    ImagingError
        There are none, or some are missing.
    """
    parts = sorted(directory.glob(f"{name}-part-*-*.fits"))
    if not parts:
        raise ImagingError(f"no {name}-part-FIRST-END.fits in {directory}")
    if channels is not None:
        missing = set(channels).difference(*(channels_of_part(part) for part in parts))
        if missing:
            raise ImagingError(
                f"{directory}: {len(missing)} of channels {channels.start}:{channels.stop} are in no"
                f" part, {min(missing)} the first of them"
            )
    return parts


def is_joined(directory: Path, name: str, channels: range | None) -> bool:
    """Whether the cube is whole already: who was interrupted while the parts went is started again."""
    path = directory / f"{name}.fits"
    if channels is None or not (directory / "quality.json").exists() or not path.exists():
        return False
    cube = CubeReader(path)
    numbers = [channel.channel for channel in cube.channels]
    cube.close()
    return numbers == list(channels)


def make_cube(parts: Sequence[Path], directory: Path, name: str) -> CubeQuality:
    """Join parts and look at the cube; the report is written last, and then the parts are removed.

    Returns the report.

    Raises
    ------
    ImagingError
        They do not make a cube.
    """
    path = directory / f"{name}.fits"
    join(parts, path)
    cube = CubeReader(path)
    try:
        brightest = peak_map(cube)
        spectrum = spectrum_at(cube, brightest)
        quality = assess_cube(cube, brightest, cpu_seconds=time.process_time())
        # Importing matplotlib takes a second that an error before this point need not wait for.
        from pipelines.imaging.cube_picture import write_cube_picture

        write_cube_picture(directory / f"{name}.png", cube, brightest, spectrum, quality)
    finally:
        cube.close()
    write_json(directory / "quality.json", quality.document())
    for part in parts:
        part.unlink()
    logger.info("%s: %s", path.name, quality)
    return quality


def main(arguments: Sequence[str] | None = None) -> int:
    """Join; return the exit status."""
    options = parser().parse_args(arguments)

    def work() -> None:
        """Join the parts that there are, unless an earlier run has done so: then only remove them."""
        directory, name = options.output, options.name
        channels = None if options.channels is None else channel_range(options.channels)
        if is_joined(directory, name, channels):
            logger.info("%s.fits is there already", name)
            for part in directory.glob(f"{name}-part-*-*.fits"):
                part.unlink()
            return
        tell(make_cube(find_parts(directory, name, channels), directory, name), options)

    return run(work, options.log_level)


if __name__ == "__main__":
    sys.exit(main())
