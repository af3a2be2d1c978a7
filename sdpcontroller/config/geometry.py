"""Numbers that follow from a document: the shapes of streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sdpcontroller.config.sdp import Vis
from sdpcontroller.config.simulated import (
    SimAntennaChannelisedVoltage,
    SimBaselineCorrelationProducts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelatorGeometry:
    """Shape of a simulated correlation stream."""

    name: str
    """Name of the stream."""
    n_antennas: int
    n_chans: int
    n_chans_per_substream: int
    n_endpoints: int
    int_time: float
    """Accumulation as asked for [s]; the simulator rounds it to whole spectra."""
    bandwidth: float
    """[Hz]"""
    centre_frequency: float
    """[Hz]"""
    adc_sample_rate: float
    """[Hz]"""
    band: str

    @classmethod
    def of(
        cls,
        name: str,
        stream: SimBaselineCorrelationProducts,
        voltage: SimAntennaChannelisedVoltage,
    ) -> Self:
        """Derive from the models of the stream and of its source."""
        per_substream = stream.n_chans_per_substream or voltage.n_chans // stream.n_endpoints
        return cls(
            name=name,
            n_antennas=len(voltage.antennas),
            n_chans=voltage.n_chans,
            n_chans_per_substream=per_substream,
            n_endpoints=stream.n_endpoints,
            int_time=stream.int_time,
            bandwidth=voltage.bandwidth,
            centre_frequency=voltage.centre_frequency,
            adc_sample_rate=voltage.adc_sample_rate,
            band=voltage.band,
        )

    @property
    def n_bls(self) -> int:
        """Products in a heap: four per pair of antennas, autocorrelations included."""
        return 2 * self.n_antennas * (self.n_antennas + 1)

    @property
    def n_substreams(self) -> int:
        """Heaps per dump."""
        return self.n_chans // self.n_chans_per_substream


@dataclass(frozen=True, slots=True, kw_only=True)
class VisGeometry:
    """Shape of a visibility stream made from a simulated correlation stream."""

    name: str
    """Name of the stream."""
    channels: tuple[int, int]
    """Correlator channels [first, last + 1) that are kept."""
    continuum_factor: int
    n_chans: int
    """Output channels."""
    dumps: int
    """Correlator dumps in one output dump, at least 1."""
    int_time: float
    """`dumps` times the correlator's accumulation [s]."""
    n_bls: int
    bandwidth: float
    """Of the channels that are kept [Hz]."""

    @classmethod
    def of(cls, name: str, stream: Vis, correlator: CorrelatorGeometry) -> Self:
        """Derive from the model of the stream and the shape of its source."""
        first, end = stream.output_channels or (0, correlator.n_chans)
        dumps = max(1, round(stream.output_int_time / correlator.int_time))
        return cls(
            name=name,
            channels=(first, end),
            continuum_factor=stream.continuum_factor,
            n_chans=(end - first) // stream.continuum_factor,
            dumps=dumps,
            int_time=dumps * correlator.int_time,
            n_bls=correlator.n_bls,
            bandwidth=correlator.bandwidth * (end - first) / correlator.n_chans,
        )
