"""Exceptions of the correlator simulator.

::

    PipelineError
    └── CorrelatorError        the simulator cannot do what was asked
        ├── ModelError         a simulation that makes no sense
        └── ReplayError        a MeasurementSet that cannot be replayed
"""

from __future__ import annotations

from pipelines.common.errors import PipelineError


class CorrelatorError(PipelineError):
    """The simulator cannot do what was asked."""


class ModelError(CorrelatorError):
    """A simulation that makes no sense."""


class ReplayError(CorrelatorError):
    """A MeasurementSet that cannot be replayed."""
