"""Sockets that streams are received by."""

from __future__ import annotations

import socket
from typing import Final

from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import EndpointError

_IP_MULTICAST_ALL: Final = 49
_SO_RCVBUFFORCE: Final = 33
"""Linux's numbers of options (`ip(7)`, `socket(7)`), which the module `socket` does not have."""


def open_socket(endpoint: Endpoint, interface: str, buffer_size: int) -> socket.socket:
    """Return a UDP socket that receives at `endpoint`: a multicast group, or an address of this machine.

    Parameters
    ----------
    interface
        Address of the interface that a group is heard on, and on no other.
    buffer_size
        Bytes asked of the kernel for what waits. Whoever may administrate the network gets them; all others
        what ``net.core.rmem_max`` allows.

    Raises
    ------
    EndpointError
        The address cannot be bound, or the group not be joined on that interface.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    try:
        sock.setblocking(False)
        if endpoint.is_multicast:  # of two at one address of ours, one would hear nothing
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _grow_buffer(sock, buffer_size)
        sock.bind((endpoint.host, endpoint.port))
        if endpoint.is_multicast:
            # Otherwise the kernel delivers what any socket of this machine has joined on any other interface.
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            request = socket.inet_aton(endpoint.host) + socket.inet_aton(interface)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    except OSError as exc:
        sock.close()
        raise EndpointError(f"cannot receive {endpoint} on interface {interface}: {exc}") from exc
    return sock


def _grow_buffer(sock: socket.socket, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
