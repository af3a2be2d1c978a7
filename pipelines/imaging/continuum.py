"""Taking the continuum away: the visibilities of an image's components, subtracted from each channel.

Spectral lines are a thousandth of the continuum on which they stand, whose sidelobes in every channel are as
bright. The continuum image's components, predicted at each channel's frequency with their spectra, are taken
from the visibilities; what CLEAN then finds are lines.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pipelines.imaging.components import read_components
from pipelines.imaging.errors import ImagingError
from pipelines.imaging.gridder import MIN_EPSILON, Gridder
from pipelines.imaging.nodes import Tracks
from pipelines.imaging.selection import Observation
from pipelines.imaging.visibilities import BLOCK_SAMPLES, Visibilities

SAME_PLACE = 1e-8
"""Radians (2 mas) by which the centres of the components' grid and of the observation may differ."""


class Continuum:
    """Components, and how they are predicted for one observation.

    Parameters
    ----------
    path : Path
        Components of a continuum image; see :mod:`pipelines.imaging.components`.
    observation : Observation
        Of the same target.
    threads : int
        Threads for the gridder.

    Raises
    ------
    ImagingError
        The file cannot be read, or belongs to another place on the sky.
    """

    def __init__(self, path: Path, observation: Observation, threads: int) -> None:
        self._components, grid, centre = read_components(path)
        apart = math.hypot(
            (centre[0] - observation.ra) * math.cos(observation.dec), centre[1] - observation.dec
        )
        if apart > SAME_PLACE:
            raise ImagingError(
                f"components {path} are of another place, {math.degrees(apart):.3g} degrees away"
            )
        self._gridder = Gridder(grid, threads, MIN_EPSILON)
        self._tracks: Tracks | None = None

    def __len__(self) -> int:
        """Components."""
        return len(self._components.rows)

    def subtract(self, channel: Visibilities, highest_frequency: float) -> None:
        """Take the continuum away from the visibilities of one channel, in place.

        Parameters
        ----------
        channel : Visibilities
            Of a single channel. Coordinates and times are the same for all channels of one observation.
        highest_frequency : float
            Of the channels that will come, Hz.
        """
        if self._tracks is None:
            highest = np.array([highest_frequency])
            self._tracks = Tracks(channel.uvw, channel.times, highest, MIN_EPSILON, BLOCK_SAMPLES)
        model = self._components.image(self._gridder.grid, float(channel.frequencies[0]))
        for nodes in self._tracks.nodes(self._gridder.grid):
            predicted = self._gridder.to_visibilities(nodes.uvw, channel.frequencies, model)
            for piece, values in nodes.spread(predicted):
                channel.vis[piece.baselines, piece.dumps] -= values
        channel.vis[channel.weights == 0] = 0
