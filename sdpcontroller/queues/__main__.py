"""Write the reference of the queues: ``python -m sdpcontroller.queues [FOLDER]``.

FOLDER (default ``docs/reference``) gets ``queues.md`` and ``queues.schema.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sdpcontroller.queues.reference import json_schema, reference_page


def main(folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (folder / "queues.schema.json").write_text(schema, encoding="utf-8")
    (folder / "queues.md").write_text(reference_page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference"))
