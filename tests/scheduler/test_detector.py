"""Who leads, by what ZooKeeper says: it may be away, have no masters, change its mind, or tell nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import detector, pymesos_driver
from scheduler.detector import address_of, first
from scheduler.errors import FrameworkError
from scheduler.framework import Disconnected, Framework, FrameworkSettings, Subscribed
from tests.conftest import PATIENCE
from tests.scheduler.wire import Link, Master, leading
from tests.scheduler.zookeeper import ZooKeeper


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymesos_driver, "BACK_OFF_FIRST", 0.05)
    monkeypatch.setattr(pymesos_driver, "BACK_OFF_MAX", 0.4)
    monkeypatch.setattr(detector, "LOOK_AGAIN", 0.5)
    monkeypatch.setattr(detector, "MAX_PAUSE", 0.2)


@pytest.fixture
async def zookeeper() -> AsyncIterator[ZooKeeper]:
    zookeeper = ZooKeeper()
    await zookeeper.start()
    yield zookeeper
    await zookeeper.stop()


def info(master: Master) -> bytes:
    """What a master registers, as far as it matters."""
    host, _, port = master.address.partition(":")
    address = {"hostname": "m", "ip": host, "port": int(port)}
    return json.dumps({"address": address, "ip": 16777343, "port": int(port), "id": "x"}).encode()


@contextlib.asynccontextmanager
async def linked(address: str) -> AsyncIterator[Link]:
    framework = Framework(FrameworkSettings(master=address, name="test", user="root"))
    await framework.start()
    try:
        yield Link(framework)
    finally:
        async with asyncio.timeout(PATIENCE):
            await framework.stop(teardown=False)


async def why_not(link: Link, words: str) -> None:
    """Wait until that is why there is no master."""
    while words not in (await link.next(Disconnected)).reason:
        pass


async def test_the_leader_is_the_first_of_those_that_registered(zookeeper: ZooKeeper) -> None:
    async with leading() as one, leading() as other:
        zookeeper.nodes = {
            "json.info_0000000012": info(other),
            "log_replicas": b"",
            "json.info_0000000007": info(one),
            "info_0000000001": b"\x0a",
        }
        async with linked(zookeeper.address) as link:
            await link.up()
            assert one.subscriptions
            zookeeper.change({"json.info_0000000012": info(other)})
            await link.next(Disconnected)
            await link.up()
            assert other.subscriptions


async def test_a_controller_begins_while_zookeeper_is_away(unused_port: int) -> None:
    """And says why it has no master; it goes on by itself."""
    zookeeper = ZooKeeper(port=unused_port)
    async with linked(zookeeper.address) as link, leading() as master:
        await why_not(link, f"ZooKeeper at 127.0.0.1:{unused_port}/mesos does not answer")
        zookeeper.nodes = {"json.info_0": info(master)}
        await zookeeper.start()
        await link.up()
        await zookeeper.stop()


async def test_masters_that_register_later_are_found(zookeeper: ZooKeeper) -> None:
    """Also where none ever has: the folder is not there."""
    async with linked(zookeeper.address) as link, leading() as master:
        await why_not(link, "no Mesos master has registered")
        zookeeper.change({})
        await why_not(link, "no Mesos master has registered")
        zookeeper.change({"json.info_0": info(master)})
        await link.up()


async def test_the_link_outlives_zookeeper_and_the_registration(zookeeper: ZooKeeper) -> None:
    async with leading() as master:
        zookeeper.nodes = {"json.info_0": info(master)}
        async with linked(zookeeper.address) as link:
            await link.up()
            zookeeper.change({})
            await asyncio.sleep(0.7)  # longer than it takes to look again
            await zookeeper.stop()
            master.cut()
            await link.next(Subscribed)
            await zookeeper.start()
            assert len(master.subscriptions) == 2


async def test_a_registration_that_is_none_is_told_and_waited_out(zookeeper: ZooKeeper) -> None:
    async with leading() as master:
        zookeeper.nodes = {"json.info_0": b"{}"}
        async with linked(zookeeper.address) as link:
            await why_not(link, "names no address")
            zookeeper.change({"json.info_0": info(master)})
            await link.up()


@given(st.binary(max_size=50) | st.from_type(dict).map(lambda d: json.dumps(str(d)).encode()))
def test_any_registration_names_an_address_or_none(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        address_of(text)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(st.sampled_from(["address", "ip", "port"]), inner),
    )
)
def test_any_document_names_an_address_or_none(document: object) -> None:
    with contextlib.suppress(ValueError):
        host, _, port = address_of(json.dumps(document).encode()).rpartition(":")
        assert host and 0 < int(port) < 65536


@pytest.mark.parametrize("master", ["http://m:5050", "zkk://m:2181/mesos"])
async def test_a_master_of_another_kind_is_refused(master: str) -> None:
    with pytest.raises(FrameworkError, match="HOST:PORT or zk"):
        Framework(FrameworkSettings(master=master, name="test", user="root"))


def test_of_nobody_nobody_leads() -> None:
    assert first([]) == first(["log_replicas", "info_1"]) == ""
