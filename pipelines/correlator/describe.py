"""Print what a product configuration has to say of a MeasurementSet, as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

from pipelines.common.errors import PipelineError
from pipelines.common.program import make_bare_parser, report_failure
from pipelines.correlator.replay import describe_replay


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = make_bare_parser("pipelines.correlator.describe", "Describe a MeasurementSet as JSON")
    parser.add_argument("file", help="the MeasurementSet")
    try:
        description = describe_replay(parser.parse_args(argv).file)
    except PipelineError as exc:
        return report_failure(exc)
    values = dataclasses.asdict(description) | {"duration": description.duration}
    sys.stdout.write(json.dumps(values, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
