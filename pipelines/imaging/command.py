"""What all programs of this package do around their work."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

from pipelines.imaging.errors import ImagingError


def run(work: Callable[[], None], log_level: str) -> int:
    """Do the work with logs on standard error; return the exit status.

    What goes wrong is told in one line; SIGTERM ends in order, so that temporary files go.
    """
    logging.basicConfig(
        level=log_level.upper(),
        format="%(asctime)s %(levelname)s imaging: %(message)s",
        stream=sys.stderr,
    )
    signal.signal(signal.SIGTERM, _end)
    try:
        work()
    except (ImagingError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"imaging: {text}", file=sys.stderr)  # noqa: T201 - the answer to whoever started it
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _end(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)
