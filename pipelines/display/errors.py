"""Errors of the signal display."""

from __future__ import annotations

from pipelines.common.errors import PipelineError


class DisplayError(PipelineError):
    """The display cannot show what is asked of it."""
