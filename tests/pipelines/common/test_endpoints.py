"""Addresses as options have them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.common.endpoints import MAX_ENDPOINTS, Endpoint, parse_endpoint, parse_endpoints
from pipelines.common.errors import EndpointError


@given(
    first=st.integers(
        int(ipaddress.IPv4Address("239.0.0.0")), int(ipaddress.IPv4Address("239.9.0.0"))
    ),
    extra=st.integers(0, MAX_ENDPOINTS - 1),
    port=st.integers(1, 65535),
)
def test_a_range_is_as_many_consecutive_addresses(first: int, extra: int, port: int) -> None:
    endpoints = parse_endpoints(f"{ipaddress.IPv4Address(first)}+{extra}:{port}")
    assert [int(ipaddress.IPv4Address(e.host)) - first for e in endpoints] == list(range(extra + 1))
    assert {e.port for e in endpoints} == {port}
    assert all(e.is_multicast for e in endpoints)


def test_lists_urls_and_default_ports() -> None:
    assert parse_endpoints("spead://239.1.1.1,10.0.0.1:9") == (
        Endpoint("239.1.1.1", 7148),
        Endpoint("10.0.0.1", 9),
    )
    assert not Endpoint("10.0.0.1", 9).is_multicast
    assert not Endpoint("some.host", 9).is_multicast


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":7148",
        "239.1.1.1+:7148",
        "239.1.1.1+-1:7148",
        "239.1.1.1+1.5:7148",
        "239.1.1.1+٣:7148",
        f"239.1.1.1+{MAX_ENDPOINTS}:7148",
        "239.1.1.1+999999999999:7148",
        "239.1.1.1+600:1,239.2.1.1+600:1",
        "239.1.1.1:7148,239.1.1.1:7148",
        "239.1.1.1:0",
        "239.1.1.1:65536",
        "239.1.1.1:port",
        "239.1.1.256:7148",
        "host:7148",
        "255.255.255.255+1:7148",
        "239.255.255.255+1:7148",
        "239.1.1.1\n:7148",
    ],
)
def test_hostile_lists_are_refused(text: str) -> None:
    with pytest.raises(EndpointError):
        parse_endpoints(text)


@given(st.text(max_size=40))
def test_anything_else_is_an_endpoint_error_or_an_endpoint(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except EndpointError:
        return
    assert endpoint.host
    assert 1 <= endpoint.port <= 65535
