"""Compile before the first window comes."""

from __future__ import annotations

import numpy as np

from pipelines.common.l0 import Dump, DumpPart
from pipelines.common.rfi import MIN_CHANNELS, FlaggerSettings
from pipelines.flags.bandpass import Bandpass
from pipelines.flags.window import Window


def warm_up() -> None:
    """Flag a small window; blocks."""
    n = MIN_CHANNELS
    part = DumpPart(
        range(n),
        np.ones((n, 1), np.complex64),
        np.zeros((n, 1), np.uint8),
        np.ones((n, 1), np.uint8),
        np.ones(n, np.float32),
    )
    window = Window(4, n, 1)
    while not window.full:
        window.add(Dump(len(window.dumps), 0.0, (part,)))
    bandpass = Bandpass(np.ones((n, 1), np.float32), np.zeros((1, 2), np.int64))
    window.flag(FlaggerSettings(), bandpass)
