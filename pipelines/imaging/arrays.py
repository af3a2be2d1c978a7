"""Names for the kinds of arrays that images are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
"""``[row, column]`` (see `geometry`), or ``[term, row, column]``."""

Mask = npt.NDArray[np.bool_]
