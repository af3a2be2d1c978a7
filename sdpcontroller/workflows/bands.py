"""Splitting a band among ingests, and who uses which groups: arithmetic of channels, substreams, endpoints."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scheduler.requests import TaskRequest
from sdpcontroller.errors import ConfigError

MIN_OUTPUT_CHANS: Final = 2
"""Of one ingest: SPEAD would not tell an array of one channel from an immediate item."""


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
    continuum_factor: int,
    chan_mbps: float,
    max_mbps: float,
) -> tuple[Band, ...]:
    """Split the channels that are wanted among as few ingests as can take them, two at least.

    Two, where there is enough to share, so that the loss of one program never costs the whole band. Each takes
    whole substreams and whole averages, and all take equally many channels.

    Parameters
    ----------
    n_chans, n_chans_per_substream, n_endpoints
        Of the correlator stream.
    output_channels
        The channels wanted, [first, last + 1); None means all.
    continuum_factor
        Channels that are averaged into one, counted from the first that is wanted.
    chan_mbps
        Rate of one channel, Mbit/s.
    max_mbps
        Most that one ingest may receive, Mbit/s.

    Raises
    ------
    ConfigError
        If the channels wanted do not begin and end with a substream, or are no whole number of averages,
        or make fewer than :data:`MIN_OUTPUT_CHANS` output channels.
    """
    first, last = output_channels or (0, n_chans)
    _check_wanted(first, last, n_chans_per_substream, continuum_factor)
    piece = math.lcm(n_chans_per_substream, continuum_factor)  # what cannot be split
    most_each = max(1, int(max_mbps // (chan_mbps * piece)))
    parts = _parts((last - first) // piece, piece, continuum_factor, most_each)
    n_substreams = n_chans // n_chans_per_substream

    def endpoint(channel: int) -> int:
        return channel // n_chans_per_substream * n_endpoints // n_substreams

    bounds = range(first, last + 1, (last - first) // parts)
    return tuple(
        Band((a, b), (endpoint(a), endpoint(b - 1) + 1)) for a, b in itertools.pairwise(bounds)
    )


def _check_wanted(first: int, last: int, per_substream: int, factor: int) -> None:
    """Refuse channels that are no whole number of substreams, or of averages."""
    if first % per_substream or last % per_substream:
        raise ConfigError(
            f"output_channels [{first}, {last}] must begin and end at a multiple of the "
            f"{per_substream} channels of a substream"
        )
    if (last - first) % factor:
        raise ConfigError(
            f"continuum_factor {factor} must divide the {last - first} channels that are kept"
        )


def _parts(pieces: int, piece: int, factor: int, most_each: int) -> int:
    """Return among how many ingests pieces of so many channels are split, of which one can take some."""
    least_each = math.ceil(MIN_OUTPUT_CHANS * factor / piece)
    if pieces < least_each:
        raise ConfigError(
            f"continuum_factor {factor} leaves one output channel, ingest makes at least "
            f"{MIN_OUTPUT_CHANS}"
        )
    needed = max(math.ceil(pieces / most_each), 2)
    # Receivers of L0 count on parts of equal size.
    possible = [n for n in range(1, pieces // least_each + 1) if pieces % n == 0]
    return next((n for n in possible if n >= needed), possible[-1])


def endpoint_range(first: str, start: int, stop: int, port: int) -> str:
    """Write multicast groups [start, stop) counted from address `first` as ``ADDRESS+N:PORT``."""
    address = ipaddress.IPv4Address(first) + start
    more = stop - start - 1
    return f"{address}+{more}:{port}" if more else f"{address}:{port}"


def group_addresses(endpoints: str) -> tuple[str, ...]:
    """Return the multicast groups of what :func:`endpoint_range` wrote, one by one."""
    first, _, more = endpoints.partition(":")[0].partition("+")
    address = ipaddress.IPv4Address(first)
    return tuple(str(address + n) for n in range(int(more or 0) + 1))


def naming_groups(
    request: TaskRequest, sends: Mapping[str, str], receives: Mapping[str, str]
) -> TaskRequest:
    """Name the multicast groups on the interfaces that they go through.

    A receiver is not placed then where the multicast of a sender by ibverbs, of this product or of another,
    does not reach it. No program here sends by ibverbs itself.
    """
    nics = tuple(
        dataclasses.replace(
            nic,
            sends=group_addresses(sends[nic.network]) if nic.network in sends else (),
            receives=group_addresses(receives[nic.network]) if nic.network in receives else (),
        )
        for nic in request.nics
    )
    return dataclasses.replace(request, nics=nics)
