"""``python3 -m pipelines.imaging``: see `options` for the command line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from pipelines.imaging.command import run
from pipelines.imaging.options import parse, settings_of, tell

logger = logging.getLogger("pipelines.imaging")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one image; return the exit status."""
    options = parse(arguments)

    def make() -> None:
        """Make it, tell how good it is, and log what came of it."""
        from pipelines.imaging.imager import make_image

        quality = make_image(settings_of(options)).quality
        tell(quality, options)
        logger.info(
            "%s: %d sources, peak %.4g Jy/beam, noise %.3g, %s",
            quality.target,
            quality.sources,
            quality.peak,
            quality.rms,
            quality.clean_stop,
        )

    return run(make, options.log_level)


if __name__ == "__main__":
    sys.exit(main())
