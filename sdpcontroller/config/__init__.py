"""The product configuration: one pydantic model per stream type, versions, units and cross-checks.

>>> config = parse('{"version": "4.5", "outputs": {}}')
>>> config.version
'4.5'
"""

from sdpcontroller.config.document import load, merge
from sdpcontroller.config.geometry import CorrelatorGeometry, VisGeometry
from sdpcontroller.config.inputs import (
    AntennaChannelisedVoltage,
    BaselineCorrelationProducts,
    CamHttp,
    TiedArrayChannelisedVoltage,
)
from sdpcontroller.config.options import Develop, Options, Replay, ServiceOverride, Simulation
from sdpcontroller.config.product import VERSIONS, ProductConfig, parse
from sdpcontroller.config.reference import json_schema
from sdpcontroller.config.sdp import (
    Beamformer,
    BeamformerEngineering,
    Cal,
    CalParameters,
    ContinuumImage,
    Flags,
    SpectralImage,
    SpectralImageParameters,
    Vis,
)
from sdpcontroller.config.simulated import (
    SimAntennaChannelisedVoltage,
    SimBaselineCorrelationProducts,
    SimTiedArrayChannelisedVoltage,
)
from sdpcontroller.config.stream import Stream

__all__ = [
    "VERSIONS",
    "AntennaChannelisedVoltage",
    "BaselineCorrelationProducts",
    "Beamformer",
    "BeamformerEngineering",
    "Cal",
    "CalParameters",
    "CamHttp",
    "ContinuumImage",
    "CorrelatorGeometry",
    "Develop",
    "Flags",
    "Options",
    "ProductConfig",
    "Replay",
    "ServiceOverride",
    "SimAntennaChannelisedVoltage",
    "SimBaselineCorrelationProducts",
    "SimTiedArrayChannelisedVoltage",
    "Simulation",
    "SpectralImage",
    "SpectralImageParameters",
    "Stream",
    "TiedArrayChannelisedVoltage",
    "Vis",
    "VisGeometry",
    "json_schema",
    "load",
    "merge",
    "parse",
]
