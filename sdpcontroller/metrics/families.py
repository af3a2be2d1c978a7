"""Families of figures, as Prometheus has them."""

from __future__ import annotations

from collections.abc import Sequence

import prometheus_client as prometheus


class Families:
    """Makes the families of one controller, and remembers by which labels their figures differ."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.labels: dict[str, Sequence[str]] = {}
        """Of each family that has some, by its name."""

    def histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> prometheus.Histogram:
        """Make a family of distributions; `buckets` are their upper bounds, in the unit of the name."""
        self.labels[name] = labels
        return prometheus.Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def counter(self, name: str, text: str, labels: Sequence[str]) -> prometheus.Counter:
        """Make a family of numbers that only grow."""
        self.labels[name] = labels
        return prometheus.Counter(name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> prometheus.Gauge:
        """Make a family of numbers that come and go."""
        if labels:
            self.labels[name] = labels
        return prometheus.Gauge(name, text, labels, registry=self.registry)
