"""What of a data set is imaged: the tracks on one target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.common.telescope import telescope_of
from pipelines.imaging.errors import ImagingError, NoVisibilitiesError, UnknownTargetError
from pipelines.imaging.parallel_hands import HandPairs, pair_hands

if TYPE_CHECKING:
    import katpoint
    from katdal.dataset import DataSet

CALIBRATOR_TAG = "cal"
"""How the tags of calibrators end: ``bpcal``, ``gaincal``, ``fluxcal``, ``delaycal``, ``polcal``."""


@dataclass(frozen=True)
class Observation:
    """The tracks on one target, and what there is to know about them.

    Attributes
    ----------
    name : str
        The target's.
    ra, dec : float
        Phase centre, ICRS, radians.
    frequencies : float64 (channels,)
        Centres of the channels, Hz.
    start, end : float
        Unix seconds of the centres of the first and last dump.
    dump_period : float
        Seconds.
    diameter : float
        Largest dish's, metres.
    capture_block, telescope : str
        Where it comes from.
    """

    name: str
    ra: float
    dec: float
    frequencies: npt.NDArray[np.float64]
    start: float
    end: float
    dump_period: float
    diameter: float
    capture_block: str
    telescope: str

    @property
    def channel_width(self) -> float:
        """Hz."""
        return float(np.ptp(self.frequencies)) / max(self.frequencies.size - 1, 1)


def choose_target(tracked: Sequence[tuple[str, Sequence[str]]], wanted: str | None) -> str:
    """Decide which target is imaged.

    Parameters
    ----------
    tracked : sequence of (str, sequence of str)
        Name and tags of the targets that are tracked.
    wanted : str, optional
        What the user said. Without it the only target is taken, or the only one that is no calibrator.

    Raises
    ------
    UnknownTargetError
        No such target, or more than one to choose from; the message lists them.
    """
    names = list(dict.fromkeys(name for name, _ in tracked))
    if not names:
        raise UnknownTargetError("the data set has no track on any target")
    listing = ", ".join(repr(name) for name in names)
    if wanted is not None:
        if wanted not in names:
            raise UnknownTargetError(
                f"no track on target {wanted!r}; there are tracks on {listing}"
            )
        return wanted
    science = [name for name, tags in tracked if not any(t.endswith(CALIBRATOR_TAG) for t in tags)]
    candidates = list(dict.fromkeys(science)) or names
    if len(candidates) > 1:
        raise UnknownTargetError(f"which target? Choose with --target among {listing}")
    return candidates[0]


def observe_target(dataset: DataSet, wanted: str | None) -> tuple[Observation, HandPairs]:
    """Select the tracks of one target in the data set; describe them, and say which products are whose.

    The data set's own selection is left at these dumps and parallel hands, all channels.

    Raises
    ------
    UnknownTargetError
        There is no such target.
    NoVisibilitiesError
        There is nothing that makes Stokes I.
    """
    dataset.select(reset="TFB", scans="track")
    indices = Counter(int(i) for i in dataset.target_indices)
    tracked = [
        (dataset.catalogue.targets[i].name, dataset.catalogue.targets[i].tags) for i in indices
    ]
    name = choose_target(tracked, wanted)
    chosen = [i for i in indices if dataset.catalogue.targets[i].name == name]
    dataset.select(scans="track", targets=[dataset.catalogue.targets[i] for i in chosen[:1]])
    if not dataset.shape[0]:
        raise NoVisibilitiesError(f"no dump on target {name!r}")
    target = dataset.catalogue.targets[chosen[0]]
    pairs = pair_hands([(str(a), str(b)) for a, b in dataset.corr_products])
    hands = np.concatenate([pairs.hh, pairs.vv])
    dataset.select(corrprods=hands.tolist(), scans="track", targets=[target])
    n_baselines = len(pairs.baselines)
    observation = Observation(
        name=str(target.name),
        **_phase_centre(target),
        frequencies=np.asarray(dataset.channel_freqs, np.float64),
        start=float(dataset.timestamps[0]),
        end=float(dataset.timestamps[-1]),
        dump_period=float(dataset.dump_period),
        diameter=_largest_dish(dataset),
        capture_block=_capture_block(dataset),
        telescope=telescope_of([antenna.name for antenna in dataset.ants]),
    )
    return observation, _reordered(pairs, hands, n_baselines)


def _reordered(pairs: HandPairs, hands: npt.NDArray[np.intp], n_baselines: int) -> HandPairs:
    """Positions after katdal's selection, which keeps the data set's order of products."""
    position = np.argsort(np.argsort(hands))
    return HandPairs(pairs.baselines, position[:n_baselines], position[n_baselines:])


def _phase_centre(target: katpoint.Target) -> dict[str, float]:
    if target.body_type != "radec":
        raise ImagingError(
            f"target {target.name!r} is of body type {target.body_type!r}; only fixed places"
            " on the sky (radec) can be imaged"
        )
    ra, dec = target.astrometric_radec()
    return {"ra": float(ra), "dec": float(dec)}


def _largest_dish(dataset: DataSet) -> float:
    diameters = [float(ant.diameter) for ant in dataset.ants]
    largest = max(diameters, default=0.0)
    if not 0 < largest < 1000:
        raise ImagingError(f"the data set's antennas have a diameter of {largest:g} m")
    return largest


def _capture_block(dataset: DataSet) -> str:
    source = getattr(dataset, "source", None)
    return str(getattr(source, "capture_block_id", "") or "")
