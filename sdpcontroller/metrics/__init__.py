"""Figures for Prometheus: what the controller did, what there is, and how the event loop keeps up.

What can be read off records when somebody asks is read then; only what happens is counted as it happens. The
list is in ``docs/reference/metrics.md``.
"""

from sdpcontroller.metrics.counted import Metrics
from sdpcontroller.metrics.measured import MeasuredControl
from sdpcontroller.metrics.records import Queues
from sdpcontroller.metrics.server import attach, serve

__all__ = ["MeasuredControl", "Metrics", "Queues", "attach", "serve"]
