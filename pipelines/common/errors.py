"""Exceptions that all programs share.

::

    PipelineError
    ├── ProgramError       a program cannot be started with what it was given
    ├── EndpointError      an address or a list of addresses that cannot be used
    ├── StreamError        the description of a stream is missing, malformed or contradictory
    └── TelstateError      telescope state cannot be reached, or lacks what is needed

Messages are one line, for people: what was asked, what was found, what to do.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Root of everything that the programs raise on purpose; the message is for people."""


class ProgramError(PipelineError):
    """A program cannot be started with what it was given."""


class EndpointError(PipelineError):
    """An address or a list of addresses that cannot be used."""


class StreamError(PipelineError):
    """The description of a stream is missing, malformed or contradictory."""


class TelstateError(PipelineError):
    """Telescope state cannot be reached, or lacks what is needed."""
