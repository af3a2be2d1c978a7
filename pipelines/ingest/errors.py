"""Exceptions of ingest, below those that all programs share.

::

    PipelineError
    └── LayoutError    the arguments and the stream's attributes do not fit together
"""

from __future__ import annotations

from pipelines.common.errors import PipelineError


class LayoutError(PipelineError):
    """The arguments and the stream's attributes do not fit together."""
