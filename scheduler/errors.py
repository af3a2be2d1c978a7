"""Exceptions of the scheduler.

::

    SchedulerError
    ├── QuantityError          a resource quantity that cannot be read, or would go below zero
    ├── TopologyError          an agent advertises something malformed or contradictory
    ├── RequestError           a task asks for something malformed or contradictory
    ├── GraphError             a graph that cannot be run, whatever the cluster
    ├── NeverFitsError         no agent of the cluster could ever give what a task asks for
    ├── NoFitError             the graph did not fit before its deadline
    ├── LaunchError            a task died or was late while its graph was launched
    ├── RestartError           a task that cannot be started anew by itself
    ├── FrameworkError         the link to Mesos cannot do what was asked
    ├── JournalError           the journal could not be written or read
    ├── ImageError             the name of a container image could not be turned into its digest
    ├── ClusterError           the embedded cluster cannot be run as asked
    └── TaskStateError         a task was asked to do what its state does not allow: a fault of ours
"""

from __future__ import annotations


class SchedulerError(Exception):
    """Root of everything that the scheduler raises on purpose."""


class QuantityError(SchedulerError):
    """A resource quantity that cannot be read, or would go below zero."""


class TopologyError(SchedulerError):
    """An agent advertises something malformed or contradictory."""


class RequestError(SchedulerError, ValueError):
    """A task asks for something malformed or contradictory.

    A ``ValueError`` too: so a document that holds such a request is refused with the path to it.
    """


class GraphError(SchedulerError):
    """A graph that cannot be run, whatever the cluster."""


class NeverFitsError(SchedulerError):
    """No agent of the cluster could ever give what a task asks for."""


class NoFitError(SchedulerError):
    """The graph did not fit before its deadline."""


class LaunchError(SchedulerError):
    """A task died or was late while its graph was launched."""


class RestartError(SchedulerError):
    """A task that cannot be started anew by itself."""


class FrameworkError(SchedulerError):
    """The link to Mesos cannot do what was asked."""


class JournalError(SchedulerError):
    """The journal could not be written or read."""


class TaskStateError(SchedulerError):
    """A task was asked to do what its state does not allow: a fault of ours."""


class ImageError(SchedulerError):
    """The name of a container image could not be turned into its digest."""


class ClusterError(SchedulerError):
    """The embedded cluster cannot be run as asked."""
