"""Splitting a band among ingests: pure arithmetic of channels, substreams and endpoints."""

from __future__ import annotations

import ipaddress
import itertools
import math
from dataclasses import dataclass

from sdpcontroller.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Band:
    """The part of a correlator's band that one ingest takes."""

    channels: tuple[int, int]
    """[first, last + 1)."""
    endpoints: tuple[int, int]
    """[first, last + 1) of the stream's multicast groups that carry those channels."""

    @property
    def n_chans(self) -> int:
        """Number of channels."""
        return self.channels[1] - self.channels[0]


def split_band(
    *,
    n_chans: int,
    n_chans_per_substream: int,
    n_endpoints: int,
    output_channels: tuple[int, int] | None,
    chan_mbps: float,
    max_mbps: float,
) -> tuple[Band, ...]:
    """Split the channels that are wanted among as few ingests as can take them, two at least.

    Two, where there are two substreams, so that the loss of one program never costs the whole band.

    Parameters
    ----------
    n_chans, n_chans_per_substream, n_endpoints
        Of the correlator stream.
    output_channels
        The channels wanted, [first, last + 1); None means all.
    chan_mbps
        Rate of one channel, Mbit/s.
    max_mbps
        Most that one ingest may receive, Mbit/s.

    Raises
    ------
    ConfigError
        If the channels wanted do not begin and end with a substream.
    """
    first, last = output_channels or (0, n_chans)
    if first % n_chans_per_substream or last % n_chans_per_substream:
        raise ConfigError(
            f"output_channels [{first}, {last}] must begin and end at a multiple of the "
            f"{n_chans_per_substream} channels of a substream"
        )
    substreams = range(first // n_chans_per_substream, last // n_chans_per_substream)
    substream_mbps = chan_mbps * n_chans_per_substream
    most_each = max(1, int(max_mbps // substream_mbps))
    parts = max(math.ceil(len(substreams) / most_each), min(2, len(substreams)))
    n_substreams = n_chans // n_chans_per_substream
    bounds = [substreams.start + i * len(substreams) // parts for i in range(parts + 1)]

    def endpoint(substream: int) -> int:
        return substream * n_endpoints // n_substreams

    return tuple(
        Band(
            (a * n_chans_per_substream, b * n_chans_per_substream),
            (endpoint(a), endpoint(b - 1) + 1),
        )
        for a, b in itertools.pairwise(bounds)
    )


def endpoint_range(first: str, start: int, stop: int, port: int) -> str:
    """Write multicast groups [start, stop) counted from address `first` as ``ADDRESS+N:PORT``."""
    address = ipaddress.IPv4Address(first) + start
    more = stop - start - 1
    return f"{address}+{more}:{port}" if more else f"{address}:{port}"
