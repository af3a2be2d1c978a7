"""Exceptions of ingest.

::

    IngestError
    ├── LayoutError    the arguments and the stream's attributes do not fit together
    └── CaptureError   a capture request that cannot be done now; nothing has changed
"""

from __future__ import annotations


class IngestError(Exception):
    """Root of everything that ingest raises on purpose; the message is for people."""


class LayoutError(IngestError):
    """The arguments and the stream's attributes do not fit together."""


class CaptureError(IngestError):
    """A capture request that cannot be done now."""
