"""What the kernel says of an interface, and of those that it lies on."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent_setup.errors import DiscoveryError
from agent_setup.interfaces import Interface, read_interface
from agent_setup.networks import Locality, Override, match_networks
from tests.agent_setup.machines import Card, Plan, sys_class

ADDRESS = (IPv4Address("10.0.0.1"),)
PLAN = Plan(
    "",
    cards=(
        Card("ens3f0", "10.0.0.1", node=1, speed=40_000, verbs=0, loopback_off=True),
        Card("ens3f1", "10.0.0.2", node=1, verbs=1),
        Card("eno1", "10.0.0.3", node=0),
    ),
)


def test_a_card_tells_everything(tmp_path: Path) -> None:
    found = read_interface(sys_class(PLAN, tmp_path), "ens3f0", ADDRESS)
    assert found == Interface(
        "ens3f0",
        ADDRESS,
        40_000,
        1,
        ("/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs0"),
        multicast_loopback=False,
        driver="mlx5_core",
    )


def test_verbs_may_be_told_by_the_device_itself(tmp_path: Path) -> None:
    top = sys_class(PLAN, tmp_path)
    (top / "net/eno1/device/infiniband_verbs/uverbs7").mkdir(parents=True)
    found = read_interface(top, "eno1", ADDRESS)
    assert found.infiniband == ("/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs7")


@pytest.mark.parametrize(
    ("rate", "kind", "mbps"),
    [("100 Gb/sec (4X EDR)", "32", 100_000), ("2.5 Gb/sec (1X SDR)", "32", 2_500), ("fast", "32", None),
     ("100 Gb/sec (4X EDR)", "1", None)],
)  # fmt: skip
def test_ip_over_infiniband_is_as_fast_as_its_port(
    tmp_path: Path, rate: str, kind: str, mbps: int | None
) -> None:
    top = sys_class(PLAN, tmp_path)
    (top / "net/eno1/speed").write_text("-1\n")
    (top / "net/eno1/type").write_text(f"{kind}\n")
    (top / "net/eno1/dev_port").write_text("1\n")
    for port, text in ((1, "10 Gb/sec (4X SDR)"), (2, rate)):
        folder = top / f"net/eno1/device/infiniband/mlx5_0/ports/{port}"
        folder.mkdir(parents=True)
        (folder / "rate").write_text(f"{text}\n")
    assert read_interface(top, "eno1", ADDRESS).speed_mbps == mbps


def virtual(top: Path, name: str, *lower: str) -> None:
    folder = top / "net" / name
    folder.mkdir()
    for each in lower:
        (folder / f"lower_{each}").symlink_to(top / "net" / each)


def test_a_vlan_on_a_bond_is_where_the_ports_are(tmp_path: Path) -> None:
    top = sys_class(PLAN, tmp_path)
    virtual(top, "bond0", "ens3f0", "ens3f1")
    virtual(top, "bond0.100", "bond0")
    (top / "net/bond0.100/speed").write_text("80000\n")
    found = read_interface(top, "bond0.100", ADDRESS)
    assert (found.speed_mbps, found.numa, found.driver) == (80_000, 1, "mlx5_core")
    assert len(found.infiniband) == 3
    assert not found.multicast_loopback, "one of the two does not return it"
    virtual(top, "bond1", "ens3f0", "eno1")
    assert read_interface(top, "bond1", ADDRESS).numa is None, "the ports are on two nodes"


def test_interfaces_that_lie_on_each_other_end_the_search(tmp_path: Path) -> None:
    top = sys_class(PLAN, tmp_path)
    virtual(top, "a")
    virtual(top, "b", "a")
    (top / "net/a/lower_b").symlink_to(top / "net/b")
    assert read_interface(top, "a", ADDRESS).driver == ""


@pytest.mark.parametrize("speed", ["-1", "0", "4294967295", "fast", "", "9" * 40])
def test_a_link_that_is_down_has_no_speed(tmp_path: Path, speed: str) -> None:
    top = sys_class(PLAN, tmp_path)
    (top / "net/eno1/speed").write_text(f"{speed}\n")
    assert read_interface(top, "eno1", ADDRESS).speed_mbps is None


def test_the_operator_goes_before_kernel_and_hwloc() -> None:
    card = Interface("e0", ADDRESS, 40_000, 0, ("/dev/infiniband/uverbs0",))
    locality = Locality(nodes=2, nic_nodes={"e0": 1})
    told = Override(speed_mbps=10_000, numa=1, multicast_loopback=False, infiniband=())
    (nic,) = match_networks([card], {"cbf": "e0"}, locality, {"e0": told})
    assert (nic.speed_mbps, nic.numa, nic.multicast_loopback) == (10_000, 1, False)
    assert nic.infiniband == ()


def test_an_address_belongs_to_one_interface() -> None:
    twins = [Interface("e0", ADDRESS, 1000), Interface("e1", ADDRESS, 1000)]
    with pytest.raises(DiscoveryError, match=r"10.0.0.1 is the address of e0 and of e1"):
        match_networks(twins, {"cbf": "e0"}, Locality(nodes=1))
