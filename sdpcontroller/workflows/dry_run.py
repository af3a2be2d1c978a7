"""A product's graph for a dry run, which must not take anything."""

from __future__ import annotations

from typing import Final

from scheduler.graph import PhysicalGraph, instantiate
from sdpcontroller import config
from sdpcontroller.workflows import realtime
from sdpcontroller.workflows.containers import in_containers

_ADDRESS: Final = "239.0.0.1"
"""Stands for multicast addresses, of which a dry run takes none."""


def planned_graph(text: str, image: str | None) -> PhysicalGraph:
    """Return the graph that a configuration would become.

    Parameters
    ----------
    text
        The document, as JSON.
    image
        Container image of the programs; None: they run as processes.

    Raises
    ------
    ConfigError
        If the document is none.
    """
    document = config.parse(text)
    groups = dict.fromkeys(realtime.multicast_needs(document), _ADDRESS)
    logical = realtime.build(document, "plan", groups).graph
    return instantiate(in_containers(logical, document.config, image), "plan")
