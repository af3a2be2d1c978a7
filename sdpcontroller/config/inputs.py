"""Streams that come from outside: a correlator's data, and CAM's sensors."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from sdpcontroller.config.fields import Name, Text
from sdpcontroller.config.stream import Sources, Stream

_SPEAD_URL = re.compile(r"spead://(\d+\.\d+\.\d+\.\d+)(?:\+(\d{1,4}))?:(\d{1,5})/?")


def spead_endpoints(url: str) -> tuple[tuple[str, int], ...]:
    """Return the endpoints (address, port) that a ``spead://ADDRESS+N:PORT`` names: N + 1 addresses.

    Raises
    ------
    ValueError
        If `url` has another form, or runs out of the address space.
    """
    match = _SPEAD_URL.fullmatch(url)
    if match is None:
        raise ValueError("must have the form spead://ADDRESS+N:PORT with an IPv4 address")
    address, extra, port = match.groups()
    if not 0 < int(port) < 65536:
        raise ValueError("must have a port from 1 to 65535")
    first = ipaddress.IPv4Address(address)
    return tuple((str(first + i), int(port)) for i in range(int(extra or 0) + 1))


def _check_spead_url(url: str) -> str:
    spead_endpoints(url)
    return url


def _check_http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must have the form http://HOST[:PORT]/… or https://…")
    return url


SpeadUrl = Annotated[Text, AfterValidator(_check_spead_url)]
HttpUrl = Annotated[Text, AfterValidator(_check_http_url)]


class CbfStream(Stream):
    """A stream that a correlator/beamformer sends by SPEAD."""

    url: SpeadUrl = Field(description="Where the data comes in: `spead://ADDRESS+N:PORT`.")
    instrument_dev_name: Name = Field(
        description="Name of the instrument at the correlator, part of its sensors' names at CAM; kept, "
        "not used here."
    )

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Addresses and ports that the data comes in on."""
        return spead_endpoints(self.url)


class AntennaChannelisedVoltage(CbfStream):
    """Channelised voltages of a correlator's F-engines."""

    type: Literal["cbf.antenna_channelised_voltage"] = Field(description="Type of the stream.")
    antennas: tuple[Name, ...] = Field(
        min_length=1,
        max_length=256,
        description="Names of the antennas, in the correlator's order.",
    )


class BaselineCorrelationProducts(CbfStream):
    """Correlation products of a correlator's X-engines."""

    SOURCES: ClassVar[Sources] = ((frozenset({"cbf.antenna_channelised_voltage"}),),)
    type: Literal["cbf.baseline_correlation_products"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=1, max_length=1, description="The channelised voltages that are correlated."
    )


class TiedArrayChannelisedVoltage(CbfStream):
    """A beam of one polarisation, formed by a correlator's B-engines."""

    SOURCES: ClassVar[Sources] = ((frozenset({"cbf.antenna_channelised_voltage"}),),)
    type: Literal["cbf.tied_array_channelised_voltage"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=1, max_length=1, description="The channelised voltages that are summed."
    )


class CamHttp(Stream):
    """The control and monitoring system, as a source of sensor values."""

    type: Literal["cam.http"] = Field(description="Type of the stream.")
    url: HttpUrl = Field(description="Base address of CAM's portal.")


Input = Annotated[
    AntennaChannelisedVoltage | BaselineCorrelationProducts | TiedArrayChannelisedVoltage | CamHttp,
    Field(discriminator="type"),
]
