"""``python3 -m pipelines.imaging``: see `options` for the command line."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from pipelines.imaging.errors import ImagingError
from pipelines.imaging.options import parse, settings_of

logger = logging.getLogger("pipelines.imaging")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one image; return the exit status."""
    options = parse(arguments)
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s imaging: %(message)s",
        stream=sys.stderr,
    )
    signal.signal(signal.SIGTERM, _end)
    try:
        from pipelines.imaging.imager import make_image
        from pipelines.imaging.publish import publish

        product = make_image(settings_of(options))
    except (ImagingError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"imaging: {text}", file=sys.stderr)  # noqa: T201 - the answer to whoever started it
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    quality = product.quality
    if options.quality_queue is not None:
        publish(quality, options.task, options.quality_queue)
    logger.info(
        "%s: %d sources, peak %.4g Jy/beam, noise %.3g, %s",
        quality.target,
        quality.sources,
        quality.peak,
        quality.rms,
        quality.clean_stop,
    )
    return 0


def _end(signum: int, frame: FrameType | None) -> None:
    """End in order: temporary files go."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
