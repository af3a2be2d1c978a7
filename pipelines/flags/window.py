"""A window of dumps: what is kept of them until it is full, and what comes out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.common.l0 import Dump
from pipelines.common.rfi import FlaggerSettings
from pipelines.common.spead import FLAG_DATA_LOST
from pipelines.flags.bandpass import Bandpass
from pipelines.flags.kernels import add_amplitudes, divide_bandpass, flag_window


class Window:
    """Amplitudes and flags of up to `depth` dumps. Its methods block, and belong to one thread at a time."""

    def __init__(self, depth: int, n_chans: int, n_bls: int) -> None:
        self.depth = depth
        self._amplitudes = np.full((depth, n_chans, n_bls), np.nan, np.float32)
        self._flags = np.zeros((depth, n_chans, n_bls), np.uint8)
        self.dumps: list[tuple[int, float]] = []
        """Index, and centre in seconds since `sync_time`, of each dump in it."""

    @property
    def full(self) -> bool:
        """Whether no more dumps go in."""
        return len(self.dumps) == self.depth

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return self._amplitudes.nbytes + self._flags.nbytes

    def clear(self) -> None:
        """Forget the dumps."""
        self.dumps.clear()

    def add(self, dump: Dump) -> None:
        """Take what is needed of a dump; channels that did not come are lost."""
        row = len(self.dumps)
        self._amplitudes[row] = np.nan
        self._flags[row] = FLAG_DATA_LOST
        for part in dump.parts:
            channels = slice(part.channels.start, part.channels.stop)
            self._flags[row, channels] = part.flags
            add_amplitudes(part.vis, part.flags, part.weights, self._amplitudes[row, channels])
        self.dumps.append((dump.index, dump.timestamp))

    def flag(
        self, settings: FlaggerSettings, bandpass: Bandpass | None = None
    ) -> tuple[npt.NDArray[np.uint8], int]:
        """Find interference; only once, since the amplitudes are changed.

        Parameters
        ----------
        bandpass
            What spectra are divided by.

        Returns
        -------
        flags, found
            Of the dumps, (T, C, B), with what was found; and how many samples that is.
        """
        n = len(self.dumps)
        flags = self._flags[:n]
        if bandpass is not None:
            divide_bandpass(self._amplitudes[:n], bandpass.amplitudes, bandpass.pairs)
        found = flag_window(
            self._amplitudes[:n],
            flags,
            settings.half_width,
            settings.n_sigma,
            settings.falloff,
            settings.doublings,
        )
        return flags, int(found)
