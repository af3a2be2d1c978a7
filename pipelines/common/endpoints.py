"""Addresses as they stand in options: ``239.192.0.1+3:7148`` is four groups on one port."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from pipelines.common.errors import EndpointError

SPEAD_PORT: Final = 7148
"""Default UDP port of a SPEAD stream (katgpucbf's)."""

MAX_ENDPOINTS: Final = 1024
"""Bound on the endpoints of one stream."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port."""

    host: str
    port: int

    @property
    def is_multicast(self) -> bool:
        """Whether the host is an IPv4 multicast group."""
        try:
            return ipaddress.IPv4Address(self.host).is_multicast
        except ipaddress.AddressValueError:
            return False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """Read ``HOST:PORT``, or ``HOST`` where there is a default port.

    Raises
    ------
    EndpointError
        Empty host, or a port that is missing, no number, or outside 1–65535.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        host, port = text.strip(), "" if default_port is None else str(default_port)
    if not host or any(c.isspace() or c in ":/@" for c in host):
        raise EndpointError(f"{text!r} is no address: expected HOST:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise EndpointError(f"{text!r} needs a port from 1 to 65535: expected HOST:PORT")
    return Endpoint(host, int(port))


def parse_endpoints(text: str, default_port: int = SPEAD_PORT) -> tuple[Endpoint, ...]:
    """Read the endpoints of a stream.

    Parameters
    ----------
    text
        A comma list of ``A.B.C.D[+N][:PORT]``; ``+N`` adds the N following addresses. ``spead://`` in
        front is accepted, since stream URLs have it.
    default_port
        Where no port is given.

    Raises
    ------
    EndpointError
        Anything malformed, doubled, or more than `MAX_ENDPOINTS`.
    """
    endpoints: list[Endpoint] = []
    for part in text.removeprefix("spead://").split(","):
        endpoints.extend(_address_range(part, default_port, MAX_ENDPOINTS - len(endpoints)))
    if len(set(endpoints)) != len(endpoints):
        raise EndpointError(f"{text!r} names an endpoint twice")
    return tuple(endpoints)


def _address_range(text: str, default_port: int, room: int) -> list[Endpoint]:
    """Expand one ``A.B.C.D[+N][:PORT]`` to at most `room` endpoints."""
    first = parse_endpoint(text, default_port)
    host, plus, extra = first.host.partition("+")
    if plus and not (extra.isascii() and extra.isdigit() and len(extra) <= 6):
        raise EndpointError(f"{text!r}: what follows '+' must be a number of further addresses")
    n = 1 + int(extra or 0)
    if n > room:
        raise EndpointError(f"{text!r}: more than {MAX_ENDPOINTS} endpoints in one stream")
    try:
        address = ipaddress.IPv4Address(host)
        last = address + (n - 1)
    except ValueError as exc:
        raise EndpointError(f"{text!r} is no IPv4 address or range of them") from exc
    if address.is_multicast != last.is_multicast:
        raise EndpointError(f"{text!r} runs over the end of the multicast addresses")
    return [Endpoint(str(address + i), first.port) for i in range(n)]
