"""What the page draws: pictures of the history as JSON, arrays as base64 of little-endian float32."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.display.errors import DisplayError
from pipelines.display.history import History


def floats(values: npt.NDArray[Any]) -> str:
    """Return an array as base64 of float32; NaN stays NaN."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")


def describe(history: History, stream: str) -> dict[str, Any]:
    """Return what does not change while the program runs: the axes."""
    return {
        "stream": stream,
        "products": ["-".join(pair) for pair in history.axes.ordering],
        "inputs": [name for name, _ in history.axes.inputs],
        "freqs_mhz": floats(history.bin_freqs / 1e6),
        "depth": history.depth,
    }


def product_number(history: History, name: str) -> int:
    """Return the position of a product named ``m000h-m001h``.

    Raises
    ------
    DisplayError
        The stream has no such product.
    """
    first, _, second = name.partition("-")
    for number, pair in enumerate(history.axes.ordering):
        if pair == (first, second):
            return number
    raise DisplayError(f"the stream has no product {name!r:.60}; products are named m000h-m001h")


def frame(history: History, product: int, since: int) -> dict[str, Any]:
    """Return what is new since a dump, seen in one product.

    Parameters
    ----------
    product
        Its position on the baseline axis.
    since
        Dumps that the page has seen already (its last frame's `dumps`); 0 for everything.

    Returns
    -------
    dict
        `dumps` (the next `since`), `start` (the first of the capture block: what is older is to be forgotten),
        `times` (Unix s, a list). Of the product: `phase` (degrees) and `amplitude` over time, `spectrum` and
        `spectrum_phase` of the newest dump, `waterfall` (a row of bins per time), and the part `flagged`. Of
        all products: `occupancy` (0–1, a row of bins per time) and the `powers` of the inputs.
    """
    if since > history.dumps:
        since = 0  # the program was restarted since
    rows = history.rows(since)
    band = history.band[rows, product]
    spectrum = history.spectrum[:, product]
    return {
        "dumps": history.dumps,
        "start": history.start,
        "times": history.times[rows].tolist(),
        "phase": floats(np.degrees(np.angle(band))),
        "amplitude": floats(np.abs(band)),
        "spectrum": floats(np.abs(spectrum)),
        "spectrum_phase": floats(np.degrees(np.angle(spectrum))),
        "waterfall": floats(history.waterfall(product)[rows]),
        "occupancy": floats(history.occupancy[rows]),
        "flagged": float(history.flagged[product]),
        "powers": floats(history.powers()),
    }
