"""Of whatever machine: what is discovered, advertised and written is what the scheduler reads."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_setup import forms, hwloc, publish
from agent_setup.advertise import advertise
from agent_setup.discover import survey
from agent_setup.errors import DiscoveryError
from agent_setup.forms import Form
from agent_setup.settings import Settings, load
from scheduler.quantities import Ranges
from tests.agent_setup.machines import Accelerator, Card, Plan, sources, xml

pytestmark = pytest.mark.skipif(not shutil.which("lstopo"), reason="lstopo is not installed")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Sockets with or without sub-NUMA clusters, several L3 caches, SMT; cards and GPUs anywhere."""
    sockets = draw(st.sampled_from([1, 2, 4, 8]))
    clusters = draw(st.sampled_from([1, 2, 4])) if sockets <= 4 else 1
    caches, cores = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    threads = draw(st.sampled_from([1, 2]))
    numa = f"numa:{clusters}(memory={draw(st.sampled_from(['1GB', '64GB']))})"
    description = f"pack:{sockets} {numa} l3:{caches} core:{cores} pu:{threads}"
    nodes = sockets * clusters
    where = st.integers(0, nodes - 1)
    cards = tuple(
        Card(
            name=f"ens{n}f0",
            address=f"10.{draw(st.sampled_from([100, 8]))}.0.{n + 1}",
            node=draw(where),
            speed=draw(st.sampled_from([1000, 100_000])),
            verbs=n if draw(st.booleans()) else None,
            loopback_off=draw(st.booleans()),
        )
        for n in range(draw(st.integers(0, 3)))
    )
    accelerators = tuple(
        Accelerator(f"GPU-{n:08x}", draw(where)) for n in range(draw(st.integers(0, 4)))
    )
    version = ("--export-xml-flags", "v1") if draw(st.booleans()) else ()
    return Plan(description, cards, accelerators, version)


def settings_of(plan: Plan, reserve: int = 0) -> Settings:
    ranges = {"cbf": "10.100.0.0/16", "sdp_10g": "10.8.0.0/16"}
    used = {
        name: where
        for name, where in ranges.items()
        if any(card.address.startswith(where.partition(".0.0")[0]) for card in plan.cards)
    }
    return load(None, [{"networks": used, "reserved": {"mem_mib": reserve}, "disk_mib": 1000}])


@settings(max_examples=40, deadline=None)
@given(plans(), st.sampled_from(Form), st.booleans(), st.integers(0, 1024))
def test_the_scheduler_reads_the_machine_that_was_written(
    plan: Plan, form: Form, in_legacy_form: bool, reserve: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = survey(settings_of(plan, reserve), sources(plan, Path(folder) / "machine"))
        written = forms.render(form, advertise(found, in_legacy_form=in_legacy_form))
        target = Path(folder) / "etc"
        assert publish.publish(form, target, written)
        there = publish.existing(form, target)
        assert publish.publish(form, target, written) == [], "a second run changes nothing"
    agent = forms.read(form, there)
    assert agent.free == found.host + found.topology.resources()
    if not in_legacy_form:
        assert agent.topology == found.topology
    assert agent.topology.numa == found.topology.numa
    assert [nic.numa for nic in agent.topology.nics] == [card.node for card in plan.cards]
    assert [gpu.numa for gpu in agent.topology.gpus] == [a.node for a in plan.accelerators]
    assert agent.legacy == in_legacy_form


@settings(max_examples=15, deadline=None)
@given(plans())
def test_what_the_cards_are_is_found(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = survey(settings_of(plan), sources(plan, Path(folder)))
    for nic, card in zip(found.topology.nics, plan.cards, strict=True):
        verbs = ("/dev/infiniband/rdma_cm", f"/dev/infiniband/uverbs{card.verbs}")
        assert nic.infiniband == (verbs if card.verbs is not None else ())
        assert nic.multicast_loopback is not card.loopback_off
        assert nic.speed_mbps == card.speed
        assert found.drivers[card.name] == "mlx5_core"
    for gpu, accelerator in zip(found.topology.gpus, plan.accelerators, strict=True):
        assert (gpu.uuid, gpu.mem_mib) == (accelerator.uuid, accelerator.mib)


@pytest.mark.parametrize("version", [(), ("--export-xml-flags", "v1")], ids=["2.x", "1.x"])
def test_memory_may_be_unequal(version: tuple[str, ...], tmp_path: Path) -> None:
    plan = Plan("pack:2 [numa(memory=8GB)] core:2 pu:1", version=version)
    here = sources(plan, tmp_path)
    assert here.lstopo_xml is not None
    text = here.lstopo_xml.read_text()
    first = text.index("local_memory=")
    size = text[first + 14 : text.index('"', first + 14)]
    here.lstopo_xml.write_text(text.replace(f'"{size}"', f'"{3 << 30}"', 1))
    found = survey(load(None, [{"reserved": {"mem_mib": 0}}]), here)
    assert sorted(node.mem_mib or 0 for node in found.topology.numa)[0] == 3072
    assert found.host.scalars["mem"] == 1000 * sum(n.mem_mib or 0 for n in found.topology.numa)
    assert advertise(found).as_read().topology == found.topology


OLD = """<topology>
 <object type="Machine" os_index="0" cpuset="0x0000000f" complete_cpuset="0x0000000f"
         online_cpuset="0x0000000f" allowed_cpuset="0x0000000f" local_memory="4294967296">
  <page_type size="4096" count="1048576"/>
  <object type="Socket" os_index="0" cpuset="0x0000000f">
   <object type="Cache" cpuset="0x0000000f" cache_size="8388608" depth="3" cache_type="0">
    <object type="Core" os_index="0" cpuset="0x00000005">
     <object type="PU" os_index="0" cpuset="0x00000001"/>
     <object type="PU" os_index="2" cpuset="0x00000004"/>
    </object>
    <object type="Core" os_index="1" cpuset="0x0000000a">
     <object type="PU" os_index="1" cpuset="0x00000002"/>
     <object type="PU" os_index="3" cpuset="0x00000008"/>
    </object>
   </object>
  </object>
  <object type="Bridge" os_index="0" bridge_type="0-1" depth="0" bridge_pci="0000:[00-05]">
   <object type="PCIDev" os_index="4096" name="card" pci_busid="0000:01:00.0" pci_type="0200 [15b3:1003]">
    <object type="OSDev" name="eth0" osdev_type="2"/>
   </object>
  </object>
 </object>
</topology>"""


def test_a_machine_of_hwloc_1_without_numa_has_one_node(tmp_path: Path) -> None:
    plan = Plan("core:1 pu:1", cards=(Card("eth0", "10.100.0.1", node=0),))
    here = sources(plan, tmp_path)
    assert here.lstopo_xml is not None
    here.lstopo_xml.write_text(OLD)
    found = survey(settings_of(plan), here)
    assert [(str(n.cores), n.mem_mib) for n in found.topology.numa] == [("[0-3]", 4096)]
    assert [str(core) for core in found.topology.smt] == ["[0-0,2-2]", "[1-1,3-3]"]
    assert found.topology.nics[0].numa == 0
    assert advertise(found).as_read().topology == found.topology


def test_memory_beside_the_same_processors_is_a_node_of_its_own(tmp_path: Path) -> None:
    plan = Plan("pack:2 [numa(memory=8GB)] [numa(memory=16GB)] core:2 pu:1")
    found = survey(load(None, [{"reserved": {"mem_mib": 0}}]), sources(plan, tmp_path))
    cores = [node.cores for node in found.topology.numa]
    assert Ranges.of(pair for c in cores for pair in c.intervals) == Ranges(((0, 3),))
    assert advertise(found).as_read().topology == found.topology


def test_what_is_installed_but_on_no_node_is_memory_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual machine whose memory was plugged in while it ran: the nodes know less than the kernel."""
    plan = Plan("numa:2(memory=1GiB) core:2 pu:1")
    monkeypatch.setattr(hwloc, "run_lstopo", lambda: xml(plan))
    live = replace(sources(plan, tmp_path), lstopo_xml=None, installed_memory=lambda: 8 << 30)
    found = survey(load(None, [{"reserved": {"mem_mib": 1024}}]), live)
    assert found.host.scalars["mem"] == 7168_000, "what exists, less what is reserved"
    assert [node.mem_mib for node in found.topology.numa] == [896, 896], "each keeps its part free"
    assert any("mem is the former, numa.N.mem the latter" in note for note in found.notes)
    even = replace(live, installed_memory=lambda: 2 << 30)
    assert survey(load(None), even).notes == ()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"rack": "007"}, "sdp.rack=007: Mesos takes this for a number and changes it"),
        ({"island": "1e3"}, "sdp.island=1e3: Mesos takes this for a number"),
        ({"rack": ""}, "sdp.rack=: expected 1 to 255"),
        ({"subsystems": ["nan"]}, "sdp.subsystem.0=nan: Mesos takes this for a number"),
        ({"mem_mib": 10**6}, "mem_mib = 1000000: there are 1024 MiB besides what is reserved"),
        ({"reserved": {"mem_mib": 10**6}}, "reserved memory 1000000 MiB: the machine has 2048 MiB"),
        ({"interfaces": {"lo": {"numa": 5}}}, "interface lo has settings, but serves no network"),
        (
            {"volumes": {"v": {"path": "/", "numa": 2}}},
            "sdp.volume.0.numa=2: there are 2 NUMA nodes",
        ),
        ({"volumes": {"v": {"path": "/", "disk_mib": 10**11}}}, "its file system has"),
        ({"exclude_gpus": ["GPU-1"]}, "GPU GPU-1 is to be left out, but there is none such"),
    ],
)
def test_contradictions_are_refused(told: dict[str, object], said: str, tmp_path: Path) -> None:
    here = sources(Plan("numa:2(memory=1GiB) core:2 pu:1"), tmp_path)
    with pytest.raises(DiscoveryError) as refusal:
        advertise(survey(load(None, [told]), here))
    assert said in str(refusal.value)
