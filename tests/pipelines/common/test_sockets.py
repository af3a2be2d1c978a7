"""Sockets that streams are received by."""

from __future__ import annotations

import socket

import pytest

from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import EndpointError
from pipelines.common.sockets import open_socket

LOOPBACK = "127.0.0.1"


def send(text: bytes, group: Endpoint, interface: str) -> None:
    """Send a packet to a group by an interface; nothing leaves the machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        sender.sendto(text, (group.host, group.port))


def test_a_group_is_heard_on_its_own_interface_only(unused_port: int, other_interface: str) -> None:
    group = Endpoint("239.102.31.77", unused_port)
    with (
        open_socket(group, LOOPBACK, 1 << 20) as here,
        open_socket(group, other_interface, 1 << 20) as there,
    ):
        for sock in (here, there):
            sock.settimeout(10.0)
        send(b"for the loopback", group, LOOPBACK)
        send(b"for the other", group, other_interface)
        # Each interface keeps its order, so what comes first tells of what must not have come.
        send(b"last", group, LOOPBACK)
        assert [here.recv(100) for _ in range(2)] == [b"for the loopback", b"last"]
        assert there.recv(100) == b"for the other"
        here.setblocking(False)
        there.setblocking(False)
        for sock in (here, there):
            with pytest.raises(BlockingIOError):
                sock.recv(100)


def test_a_socket_has_the_buffer_that_was_asked_for(unused_port: int) -> None:
    with open_socket(Endpoint(LOOPBACK, unused_port), LOOPBACK, 1 << 16) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 1 << 16


def test_an_address_that_is_not_ours_is_named(unused_port: int) -> None:
    with pytest.raises(EndpointError, match=rf"198\.51\.100\.1:{unused_port} on interface"):
        open_socket(Endpoint("198.51.100.1", unused_port), LOOPBACK, 1 << 16)


def test_an_address_is_nobody_elses(unused_port: int) -> None:
    endpoint = Endpoint(LOOPBACK, unused_port)
    with (
        open_socket(endpoint, LOOPBACK, 1 << 16),
        pytest.raises(EndpointError, match="in use"),
    ):
        open_socket(endpoint, LOOPBACK, 1 << 16)
