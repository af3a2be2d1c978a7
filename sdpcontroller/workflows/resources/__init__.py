"""How much each program asks for: declared formulas over the streams, kept apart from graph-building.

Bandwidth is in Mbit/s and memory in MiB, as agents advertise them. ``sdp resources CONFIG`` prints what a
configuration asks for, and with ``--why`` every formula with its inputs, its reason and its source.
"""

from sdpcontroller.workflows.resources.formula import Asked, Quantity
from sdpcontroller.workflows.resources.imagers import cube_joiner, imager, spectral_imager
from sdpcontroller.workflows.resources.programs import (
    calibration,
    correlator,
    display,
    flag_writer,
    flags,
    ingest,
    metadata,
    quality,
    telstate,
    writer,
)
from sdpcontroller.workflows.resources.sizes import (
    CBF_NETWORK,
    DATA_VOLUME,
    INGEST_MAX_RATE,
    SDP_NETWORK,
    StreamSize,
)

__all__ = [
    "CBF_NETWORK",
    "DATA_VOLUME",
    "INGEST_MAX_RATE",
    "SDP_NETWORK",
    "Asked",
    "Quantity",
    "StreamSize",
    "calibration",
    "correlator",
    "cube_joiner",
    "display",
    "flag_writer",
    "flags",
    "imager",
    "ingest",
    "metadata",
    "quality",
    "spectral_imager",
    "telstate",
    "writer",
]
