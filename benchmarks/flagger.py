"""What ingest's flagger finds, beside AOFlagger: ``python -m benchmarks.flagger``.

Spectrograms of baselines, 64 dumps × 1024 channels of thermal noise under a bandpass, get interference: lines
of one, two or four channels that are on in some dumps, with strengths in units of the noise of a sample.
Ingest's flagger sees one dump at a time, as in the program. AOFlagger, the yardstick, sees the whole of a
spectrogram, with the generic strategy of its package. Printed are the part of the interference that is flagged,
the part of everything else that is flagged, and the CPU time of a sample.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipelines.common.rfi import FlaggerSettings
from pipelines.common.rfi_lanes import flag_products

N_DUMPS: Final = 64
N_CHANS: Final = 1024
STRENGTHS: Final = (0, 5, 8, 10, 15, 30)
WIDTHS: Final = (1, 2, 4)

Flagger = Callable[[NDArray[np.complex64]], NDArray[np.bool_]]
"""Visibilities of shape (dump, channel, baseline) to where interference is."""


def ingest(vis: NDArray[np.complex64]) -> NDArray[np.bool_]:
    """Flag dump by dump."""
    settings = FlaggerSettings()
    flags = np.zeros(vis.shape, np.uint8)
    for dump, flag in zip(vis, flags, strict=True):
        flag_products(
            dump, flag, 0, vis.shape[2], settings.half_width, settings.n_sigma, settings.falloff,
            settings.doublings, 0.0,
        )  # fmt: skip
    return flags != 0


class AOFlagger:
    """AOFlagger with its generic strategy."""

    def __init__(self) -> None:
        import aoflagger

        # What it makes refers to it without keeping it alive.
        self._library: Any = aoflagger.AOFlagger()
        path = self._library.find_strategy_file(aoflagger.TelescopeId.Generic)
        self._strategy = self._library.load_strategy_file(path)
        self._images = self._library.make_image_set(N_DUMPS, N_CHANS, 2)

    def __call__(self, vis: NDArray[np.complex64]) -> NDArray[np.bool_]:
        """Flag baseline by baseline."""
        found = np.empty(vis.shape, np.bool_)
        for baseline in range(vis.shape[2]):
            for part, image in enumerate((vis[..., baseline].real, vis[..., baseline].imag)):
                self._images.set_image_buffer(part, np.ascontiguousarray(image.T, np.float64))
            found[..., baseline] = self._strategy.run(self._images).get_buffer().T
        return found


def spectrograms(
    rng: np.random.Generator, n_baselines: int, width: int, strength: float
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """Return visibilities with sigma 1 (both parts together) and where interference was added."""
    shape = (N_DUMPS, N_CHANS, n_baselines)
    vis = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    vis += 3.0  # a source in the middle of the field
    where = np.zeros(shape, np.bool_)
    for baseline in range(n_baselines):
        for first in rng.integers(8, N_CHANS - 8, 10):
            on = rng.random(N_DUMPS) < 0.3
            where[on, first : first + width, baseline] = True
    phases = np.exp(2j * np.pi * rng.random(np.count_nonzero(where)))
    vis[where] += strength * phases
    passband = 1 - 0.3 * np.linspace(-1, 1, N_CHANS) ** 4
    return (vis * passband[:, np.newaxis]).astype(np.complex64), where & (strength > 0)


def main() -> None:
    """Print what both find."""
    parser = argparse.ArgumentParser(prog="benchmarks.flagger", description=__doc__)
    parser.add_argument("--baselines", type=int, default=32, help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    args = parser.parse_args()
    flaggers: dict[str, Flagger] = {"ingest": ingest}
    try:
        flaggers["AOFlagger"] = AOFlagger()
    except ImportError:
        print("AOFlagger is left out: the package aoflagger is not installed")
    ingest(spectrograms(np.random.default_rng(0), 1, 1, 0)[0])  # compiled before it is timed
    print("width  strength  flagger    found  false flags  ns/sample")
    for width in WIDTHS:
        for strength in STRENGTHS:
            rng = np.random.default_rng([args.seed, width, strength])
            vis, where = spectrograms(rng, args.baselines, width, strength)
            for name, flagger in flaggers.items():
                start = time.process_time()
                found = flagger(vis)
                cost = (time.process_time() - start) / vis.size * 1e9
                part = f"{found[where].mean():5.3f}" if where.any() else "    -"
                print(
                    f"{width:5d}  {strength:8g}  {name:9s}  {part}  {found[~where].mean():11.1e}  {cost:9.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
