"""``python3 -m pipelines.warm_up``: compile what all programs compile, once for a machine or an image.

What numba makes is kept beside the modules. Without this, the first start of a program on a fresh installation
takes tens of seconds instead of one, out of the deadline of whoever launches it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Final

import katpoint
import numpy as np


def correlator() -> None:
    """The simulator: a dump of a small model."""
    from pipelines.correlator.meerkat import antenna_description
    from pipelines.correlator.model import Model, ModelConfig

    source = katpoint.Target("s, radec, 0:00:00, -30:00:00, (800 2000 0)")
    model = Model(
        ModelConfig(
            name="warm_up",
            antennas=tuple(katpoint.Antenna(antenna_description(f"m{i:03}")) for i in (0, 1)),
            n_chans=4,
            n_chans_per_substream=4,
            bandwidth=856e6,
            centre_frequency=1284e6,
            adc_sample_rate=1712e6,
            int_time=1.0,
            start_time=1.6e9,
            sources=(source,),
        )
    )
    model.fill(0, source, np.zeros((4, model.stream.n_bls, 2), np.int32))


def ingest() -> None:
    """Ingest: a dump through flagging and averaging; its place callback is compiled by importing it."""
    from pipelines.ingest.compute import Averager
    from pipelines.ingest.layout import InputLayout, OutputLayout

    source = InputLayout(
        n_chans=8,
        n_chans_per_substream=4,
        n_bls=4,
        channels=range(8),
        ticks_per_dump=1000,
        scale_factor_timestamp=1e4,
        scale=1.0,
    )
    layout = OutputLayout(source=source, output_channels=range(8), ratio=1, continuum_factor=1)
    averager = Averager(layout, excise=True)
    averager.warm_up()
    averager.close()
    importlib.import_module("pipelines.ingest.place")


def receivers() -> None:
    """Receivers of L0: their place callback is compiled by importing it."""
    importlib.import_module("pipelines.common.l0.place")


def calibration() -> None:
    """Calibration: a small scan."""
    from pipelines.calibration.warm_up import warm_up

    warm_up()


def flags() -> None:
    """Flagger: a small window."""
    from pipelines.flags.warm_up import warm_up

    warm_up()


def display() -> None:
    """Signal display: a small dump."""
    from pipelines.display.warm_up import warm_up

    warm_up()


def imaging() -> None:
    """Imager: weights and a minor cycle of a small image."""
    from pipelines.imaging.warm_up import warm_up

    warm_up()


PROGRAMS: Final[tuple[Callable[[], None], ...]] = (
    correlator,
    ingest,
    receivers,
    calibration,
    flags,
    display,
    imaging,
)


def main() -> int:
    """Compile everything, a line for each program that took a while."""
    for program in PROGRAMS:
        if program is imaging and importlib.util.find_spec("ducc0") is None:
            continue  # the optional extra is not installed
        begin = time.monotonic()
        program()
        taken = time.monotonic() - begin
        if taken > 1:
            sys.stdout.write(f"{program.__name__}: {taken:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
