"""Write the reference of the figures: ``python -m sdpcontroller.metrics [FOLDER]``.

FOLDER (default ``docs/reference``) gets ``metrics.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sdpcontroller.metrics.reference import reference_page


def main(folder: Path) -> None:
    """Write the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.md").write_text(reference_page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference"))
