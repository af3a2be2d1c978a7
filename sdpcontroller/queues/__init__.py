"""The queues that an observatory declares: where the graphs of its work wait for their place.

:func:`read` reads the document, :class:`Assigned` says in which queue what waits, :class:`Agreement` sees to it
that the controllers of a pair have the same.
"""

from sdpcontroller.queues.agreement import QUEUES, Agreement, digest
from sdpcontroller.queues.assigned import Assigned, QueueInUse
from sdpcontroller.queues.model import BUILT_IN, QueuesConfig, Work
from sdpcontroller.queues.reading import parse, read

__all__ = (
    "BUILT_IN",
    "QUEUES",
    "Agreement",
    "Assigned",
    "QueueInUse",
    "QueuesConfig",
    "Work",
    "digest",
    "parse",
    "read",
)
