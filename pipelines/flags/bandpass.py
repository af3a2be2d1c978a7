"""The bandpass that calibration has found: what spectra are divided by before they are searched.

Only amplitudes are looked at, so of a solution only the amplitude of the bandpass matters: delays and phases
change none, and a gain is one number for a whole spectrum, which its noise is measured in as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import telstate as ts
from pipelines.common.baselines import input_indices
from pipelines.common.errors import StreamError
from pipelines.common.stream_info import VisStream


@dataclass(frozen=True)
class Bandpass:
    """Amplitudes of inputs, and which of them each product has."""

    amplitudes: npt.NDArray[np.float32]
    """More than 0 everywhere, shape (n_chans, n_inputs)."""
    pairs: npt.NDArray[np.int64]
    """Inputs of each product, shape (n_bls, 2)."""


def amplitudes_of(solution: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the amplitudes of a bandpass solution, interpolated where it has none.

    Parameters
    ----------
    solution
        Complex, NaN for none, shape (n_chans, n_inputs). An input without any gets 1.
    """
    amplitudes: npt.NDArray[np.float32] = np.abs(solution).astype(np.float32)
    channels = np.arange(len(amplitudes))
    for column in amplitudes.T:
        good = np.isfinite(column) & (column > 0)
        if not good.any():
            column[:] = 1
        elif not good.all():
            column[~good] = np.interp(channels[~good], channels[good], column[good])
    return amplitudes


class BandpassFollower:
    """Gets the newest bandpass of a block from telescope state.

    Parameters
    ----------
    name
        Calibration stream.
    stream
        The visibilities that it is of.
    """

    def __init__(self, telstate: TelescopeState, name: str, stream: VisStream) -> None:
        self._telstate = telstate
        self._name = name
        self._stream = stream
        self._block = ""
        self._time = -math.inf
        self.newest: Bandpass | None = None
        """None: the block has none yet."""

    async def refresh(self, block: str) -> bool:
        """Look for a newer solution of a block; return whether there was one.

        Raises
        ------
        TelstateError
            Telescope state does not answer.
        StreamError
            The solution is not one of this stream.
        """
        if block != self._block:
            self._block, self._time, self.newest = block, -math.inf, None
        attributes = self._telstate.view(self._name)
        view = self._telstate.view(self._telstate.join(block, self._name))
        parts = []
        for part in range(int(await ts.get(attributes, "product_B_parts", 1))):
            found = await ts.newer(view, f"product_B{part}", self._time)
            if found is None:
                return False
            parts.append(found)
        antennas = await ts.get(attributes, "antlist")
        pols = await ts.get(attributes, "pol_ordering")
        self.newest = self._bandpass([value for value, _ in parts], list(antennas), list(pols))
        self._time = max(time for _, time in parts)
        return True

    def _bandpass(self, parts: list[Any], antennas: list[str], pols: list[str]) -> Bandpass:
        try:
            solution = np.concatenate([np.asarray(part, np.complex64) for part in parts])
            solution = solution.reshape(self._stream.n_chans, len(pols) * len(antennas))
        except (TypeError, ValueError) as exc:
            raise StreamError(f"bandpass of {self._name!r} is none of this stream: {exc}") from exc
        inputs = [antenna + pol for pol in pols for antenna in antennas]
        pairs = input_indices(self._stream.bls_ordering, inputs)
        return Bandpass(amplitudes_of(solution), pairs)
