"""What can go wrong while imaging; each message is one line for people.

::

    ImagingError (a PipelineError)
    ├── UnknownTargetError    no track of that name in the data set
    ├── NoVisibilitiesError   everything that could be imaged is flagged or has no weight
    ├── MissingExtraError     an optional dependency is not installed
    └── SettingsError         options that contradict themselves or the data
"""

from __future__ import annotations

from pipelines.common.errors import PipelineError


class ImagingError(PipelineError):
    """The image cannot be made; the message says why and what to do."""


class UnknownTargetError(ImagingError):
    """The data set has no track on the target that was asked for."""


class NoVisibilitiesError(ImagingError):
    """No sample of the target is left after flags and weights."""


class MissingExtraError(ImagingError):
    """A library that only an optional extra installs is not there."""


class SettingsError(ImagingError):
    """The options make no image."""
