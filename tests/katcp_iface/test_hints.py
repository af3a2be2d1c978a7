"""Clients are told how long to wait for replies, over a real socket."""

from __future__ import annotations

import asyncio

import aiokatcp
import pytest

from katcp_iface.hints import COMMANDS
from katcp_iface.server import Facade
from sdpcontroller.limits import limits
from sdpcontroller.products.services import Timeouts
from tests.katcp_iface.test_requests import ask, failure

HINTED = [
    ["capture-start", "60.0"],
    ["capture-stop", "60.0"],
    ["product-configure", "440.0"],
]
"""What the control plane of these tests has limits for."""


async def test_a_client_is_told_at_once_that_there_are_hints(server) -> None:
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        assert await reader.readline() == b"#version-connect katcp-protocol 5.1-MIBT\n"
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_client_understands_what_the_server_speaks(client) -> None:
    assert client.protocol_flags == frozenset("MIBT")
    _, informs = await ask(client, "version-list")
    assert [name for name, *_ in informs] == ["katcp-protocol", "katcp-library", "katcp-device"]
    assert informs[1][2] == f"aiokatcp-{aiokatcp.__version__}"


async def test_all_hints(client) -> None:
    assert await ask(client, "request-timeout-hint") == ([str(len(HINTED))], HINTED)


@pytest.mark.parametrize(
    ("request_name", "hint"),
    [("product-configure", "440.0"), ("product-list", "0.0"), ("help", "0.0")],
)
async def test_one_hint(client, request_name, hint) -> None:
    assert await ask(client, "request-timeout-hint", request_name) == (
        ["1"],
        [[request_name, hint]],
    )


async def test_a_request_that_there_is_not_has_no_hint(client) -> None:
    text = await failure(client, "request-timeout-hint", "product-konfigure")
    assert text == "there is no request 'product-konfigure': see ?help"


def test_every_limit_of_the_controller_is_the_hint_of_a_request() -> None:
    assert {*limits(Timeouts())} == {*COMMANDS.values()}
    for name in COMMANDS:
        assert hasattr(Facade, f"request_{name.replace('-', '_')}"), name
