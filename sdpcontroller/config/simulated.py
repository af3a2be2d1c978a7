"""Streams of the simulated correlator."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar, Literal

import katpoint
from pydantic import AfterValidator, Field

from sdpcontroller.config.fields import Count, Name, Positive, Text
from sdpcontroller.config.sky import parse_antenna
from sdpcontroller.config.stream import Sources, Stream

Band = Literal["l", "s", "u", "x"]
"""Receiver bands that katdal knows."""


def _check_antenna(description: str) -> str:
    parse_antenna(description)
    return description


AntennaDescription = Annotated[Text, AfterValidator(_check_antenna)]


class SimAntennaChannelisedVoltage(Stream):
    """The antennas and the band of a simulated correlator."""

    type: Literal["sim.cbf.antenna_channelised_voltage"] = Field(description="Type of the stream.")
    antennas: tuple[AntennaDescription, ...] = Field(
        min_length=1,
        max_length=256,
        description="katpoint descriptions: name, latitude, longitude, altitude [m], diameter [m], "
        "east north up [m] …",
    )
    n_chans: Count = Field(le=2**20, description="Channels over the whole band [count].")
    bandwidth: Positive = Field(description="Width of the band [Hz].")
    adc_sample_rate: Positive = Field(description="Samples per second of one digitiser [Hz].")
    centre_frequency: Positive = Field(description="Sky frequency of the band's centre [Hz].")
    band: Band = Field(description="Receiver band.")

    @cached_property
    def katpoint_antennas(self) -> tuple[katpoint.Antenna, ...]:
        """The antennas, parsed, in the document's order."""
        return tuple(parse_antenna(description) for description in self.antennas)

    @property
    def antenna_names(self) -> tuple[str, ...]:
        """Names of the antennas, in the document's order."""
        return tuple(antenna.name for antenna in self.katpoint_antennas)


_VOLTAGE: Sources = ((frozenset({"sim.cbf.antenna_channelised_voltage"}),),)


class SimBaselineCorrelationProducts(Stream):
    """Correlation products that a simulator sends in a correlator's place."""

    SOURCES: ClassVar[Sources] = _VOLTAGE
    type: Literal["sim.cbf.baseline_correlation_products"] = Field(
        description="Type of the stream."
    )
    src_streams: tuple[Name, ...] = Field(
        min_length=1, max_length=1, description="The simulated antennas and their band."
    )
    int_time: Positive = Field(description="Length of one accumulation [s].")
    n_endpoints: Count = Field(
        le=4096, description="Multicast groups that the stream is spread over [count]."
    )
    n_chans_per_substream: Count | None = Field(
        None, description="Channels in one heap [count]. Default: one substream per endpoint."
    )


class SimTiedArrayChannelisedVoltage(Stream):
    """A beam of one polarisation that a simulator sends in a correlator's place."""

    SOURCES: ClassVar[Sources] = _VOLTAGE
    type: Literal["sim.cbf.tied_array_channelised_voltage"] = Field(
        description="Type of the stream."
    )
    src_streams: tuple[Name, ...] = Field(
        min_length=1, max_length=1, description="The simulated antennas and their band."
    )
    n_endpoints: Count = Field(
        le=4096, description="Multicast groups that the stream is spread over [count]."
    )
    n_chans_per_substream: Count | None = Field(
        None, description="Channels in one heap [count]. Default: one substream per endpoint."
    )
    spectra_per_heap: Count | None = Field(
        None, description="Spectra in one heap [count]; kept, not used here."
    )
