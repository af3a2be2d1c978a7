"""What is discovered is what the scheduler reads, and several agents share it without giving anything twice."""

from __future__ import annotations

import shutil
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_setup.discover import discover
from agent_setup.errors import DiscoveryError
from agent_setup.interfaces import Interface, kernel_interfaces
from agent_setup.machine import Machine, MemoryNode
from agent_setup.share import share_machine
from scheduler.packing import pack
from scheduler.placement import Placement
from scheduler.quantities import Ranges, Resources
from scheduler.requests import NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology

XML = """<topology version="2.0">
 <object type="Machine" cpuset="0xff" nodeset="0x3">
  <object type="Package" cpuset="0x0f" nodeset="0x1">
   <object type="NUMANode" os_index="0" cpuset="0x0f" local_memory="{half}"/>
   {first}
  </object>
  <object type="Package" cpuset="0xf0" nodeset="0x2">
   <object type="NUMANode" os_index="{second_node}" cpuset="0xf0" local_memory="{half}"/>
   {second}
   <object type="OSDev" name="ens3" osdev_type="2"/>
  </object>
 </object></topology>"""


def pus(first: int) -> str:
    return "".join(f'<object type="PU" os_index="{n}"/>' for n in range(first, first + 4))


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    """Two nodes of four cores and 1000 MiB."""
    path = tmp_path / "machine.xml"
    text = XML.format(half=1000 << 20, first=pus(0), second=pus(4), second_node=1)
    path.write_text(text)
    return path


LO = Interface("lo", (IPv4Address("127.0.0.1"),))
ENS3 = Interface("ens3", (IPv4Address("10.100.1.7"), IPv4Address("10.8.0.7")), 40_000, 1)
ETH0 = Interface("eth0", (IPv4Address("192.168.0.2"),))


def interfaces() -> tuple[Interface, ...]:
    return LO, ENS3, ETH0


def test_a_discovered_machine_is_read_back_by_the_scheduler(xml: Path, tmp_path: Path) -> None:
    topology = discover(
        lstopo_xml=xml,
        networks={"cbf": "10.100.0.0/16", "sdp_10g": ["ens3", "lo"]},
        volumes={"data": tmp_path},
        gpus=lambda _nodes, _exclude: [Gpu(name="NVIDIA A100", numa=1, mem_mib=80_000)],
        kernel_interfaces=interfaces,
    )
    assert Topology.parse(topology.to_attributes(), topology.resources()) == topology
    assert [(node.cores, node.mem_mib) for node in topology.numa] == [
        (Ranges.parse("[0-3]"), 1000),
        (Ranges.parse("[4-7]"), 1000),
    ]
    ens3, lo = topology.nics
    assert (ens3.networks, ens3.address, ens3.numa) == (("cbf", "sdp_10g"), "10.100.1.7", 1)
    assert ens3.speed_mbps == 40_000
    assert (lo.networks, lo.speed_mbps, lo.numa) == (("sdp_10g",), 10_000, 0)


def test_what_is_reserved_is_not_advertised(xml: Path) -> None:
    topology = discover(
        lstopo_xml=xml, reserved_cores=Ranges.parse("[0,4-5]"), reserved_mem_mib=501
    )
    assert [str(node.cores) for node in topology.numa] == ["[1-3]", "[6-7]"]
    assert [node.mem_mib for node in topology.numa] == [749, 749], "rounded up, in proportion"
    assert all(not group & Ranges.parse("[0,4-5]") for group in topology.smt)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"networks": {"cbf": "ens4"}}, "network cbf: 'ens4' is neither an interface with an IPv4"),
        ({"networks": {"cbf": "10.9.0.0/16"}}, "no interface has an address in 10.9.0.0/16"),
        ({"networks": {"cbf": "eth0"}}, "eth0 does not tell its speed: give it, in Mbit/s"),
        ({"networks": {"a": "10.100.0.0/16", "b": "10.8.0.0/16"}}, "ens3 would need one address"),
        ({"networks": {"a b": "ens3"}}, "network=a b: expected"),
        (
            {"volumes": {"data": Path("/nonexistent")}},
            "volume data: /nonexistent is not a directory",
        ),
        ({"reserved_cores": Ranges.parse("[8]")}, r"reserved cores \[8-8\] do not exist"),
        ({"reserved_cores": Ranges.parse("[0-7]")}, "no core is left for tasks"),
        ({"speeds": {"ens3": 1000}}, "interface ens3 has settings, but serves no network"),
        ({"speeds": {"ens3": -1}}, "interfaces.ens3.speed_mbps: Input should be greater than 0"),
        ({"reserved_mem_mib": 2001}, "reserved memory 2001 MiB: the machine has 2000 MiB"),
        (
            {"gpus": lambda _nodes, _exclude: [Gpu(name="x", numa=2)]},
            "sdp.gpu.0.numa=2: there are 2 NUMA nodes",
        ),
        ({"lstopo_xml": Path("/nonexistent")}, "/nonexistent: cannot be read"),
    ],
)
def test_contradictions_are_refused_with_the_reason(
    xml: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(DiscoveryError, match=said):
        discover(**{"lstopo_xml": xml, "kernel_interfaces": interfaces, **options})  # type: ignore[arg-type]


def test_hwloc_and_kernel_must_agree_on_the_node_of_an_interface(xml: Path) -> None:
    wrong = Interface("ens3", (IPv4Address("10.0.0.1"),), 1000, 0)
    with pytest.raises(DiscoveryError, match="hwloc puts it on NUMA node 1, the kernel on 0"):
        discover(lstopo_xml=xml, networks={"a": "ens3"}, kernel_interfaces=lambda: [wrong])


def test_numbers_of_nodes_are_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "gap.xml"
    path.write_text(XML.format(half=1 << 30, first=pus(0), second=pus(4), second_node=8))
    with pytest.raises(DiscoveryError, match="a NUMA node 8, but none with number 1"):
        discover(lstopo_xml=path)


def test_nodes_of_memory_alone_at_the_end_are_left_out() -> None:
    cpus = MemoryNode(Ranges.parse("[0-1]"), 1 << 30)
    far = MemoryNode(Ranges(), 1 << 40)
    assert len(Machine(nodes={0: cpus, 1: far}, smt=()).numa()) == 1
    assert len(Machine(nodes={0: far, 1: cpus}, smt=()).numa()) == 2


def test_this_machine_has_a_loopback_interface() -> None:
    assert any(interface.is_loopback for interface in kernel_interfaces())


@pytest.mark.parametrize("installed", [True, False])
def test_this_machine_is_discovered_with_and_without_hwloc(
    installed: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not installed:
        monkeypatch.setenv("PATH", "/nonexistent")
    elif not shutil.which("lstopo"):
        pytest.skip("lstopo is not installed")
    topology = discover(networks={"cbf": "lo", "sdp_10g": "lo"})
    assert topology.cores
    assert topology.nics[0].networks == ("cbf", "sdp_10g")
    assert ("hwloc-nox" in caplog.text) == (not installed)


# ---- several agents on one machine

machines = st.builds(
    lambda cores, mem, gpus: Topology(
        numa=tuple(NumaNode(Ranges(((10 * n, 10 * n + c - 1),)), mem) for n, c in enumerate(cores)),
        gpus=tuple(Gpu(name=f"g{n}", mem_mib=10) for n in range(gpus)),
        nics=(Nic(name="lo", networks=("cbf", "sdp"), address="127.0.0.1", speed_mbps=10_000),),
    ),
    st.lists(st.integers(1, 8), min_size=1, max_size=3),
    st.integers(300, 10_000),
    st.integers(0, 3),
)


@settings(max_examples=50, deadline=None)
@given(machines, st.integers(1, 20), st.none() | st.integers(300, 10**6))
def test_shares_do_not_exceed_the_whole(
    topology: Topology, agents: int, mem_mib: int | None
) -> None:
    shared = share_machine(topology, agents, mem_mib=mem_mib)
    hosts = [agent.hostname for agent in shared]
    assert hosts == [f"127.0.1.{n + 1}" for n in range(agents)]
    total = Resources()
    for agent in shared:
        part = Topology.parse(agent.attributes, agent.resources)
        assert part.nics[0].address == agent.hostname
        assert part.cores == topology.cores
        divisible = {k: agent.resources.scalars.get(k, 0) for k in ("mem", "disk")}
        total += Resources(divisible, {"ports": agent.resources.ranges["ports"]})
        node_mem = [agent.resources.scalars.get(f"numa.{n}.mem", 0) for n in range(len(part.numa))]
        assert sum(node_mem) <= agent.resources.scalars["mem"]
        assert agent.resources.scalars["cpus"] >= 1000 * max(4, len(topology.cores))
    whole = sum(node.mem_mib or 0 for node in topology.numa) if mem_mib is None else mem_mib
    assert total.scalars["mem"] <= 1000 * whole
    names = [
        Topology.parse(agent.attributes, agent.resources).gpus[n].name
        for agent in shared
        for n in range(len(Topology.parse(agent.attributes, agent.resources).gpus))
    ]
    assert sorted(names) == [gpu.name for gpu in topology.gpus], "each GPU belongs to one agent"


@pytest.mark.parametrize("agents", [0, 251])
def test_only_so_many_agents_fit_on_a_machine(agents: int) -> None:
    topology = Topology(numa=(NumaNode(Ranges(((0, 1),)), 1000),))
    with pytest.raises(DiscoveryError, match="expected 1 to 250"):
        share_machine(topology, agents)


def test_agents_need_memory_and_ports() -> None:
    topology = Topology(numa=(NumaNode(Ranges(((0, 1),)), 1000),))
    with pytest.raises(DiscoveryError, match="cannot share 2 MiB"):
        share_machine(topology, 3, mem_mib=2)
    with pytest.raises(DiscoveryError, match="and 2 ports"):
        share_machine(topology, 3, ports=Ranges(((1, 2),)))


def test_a_small_graph_fits_on_two_cores() -> None:
    """What a demonstration with eight antennas asks for, on the smallest machine it shall run on."""
    machine = Topology(
        numa=(NumaNode(Ranges(((0, 1),)), 3500),),
        nics=(
            Nic(
                name="lo",
                networks=("cbf", "sdp_10g"),
                address="127.0.0.1",
                numa=0,
                speed_mbps=10_000,
            ),
        ),
    )
    snapshots = [
        AgentSnapshot(
            agent_id=agent.hostname,
            host=agent.hostname,
            topology=Topology.parse(agent.attributes, agent.resources),
            free=agent.resources,
            address=agent.hostname,
        )
        for agent in share_machine(machine, 3)
    ]
    near = NicRequest.of("cbf", in_mbps=300, affinity=True)
    tasks = {
        f"ingest.{n}": TaskRequest.of(
            cpus=0.5, mem_mib=400, cores=["receive"], ports=["http", "katcp"], nics=[near]
        )
        for n in range(4)
    }
    for name in ("sim", "cal", "writer", "telstate"):
        tasks[name] = TaskRequest.of(cpus=1, mem_mib=300, ports=["http", "katcp"])
    assert isinstance(pack(snapshots, tasks), Placement)
