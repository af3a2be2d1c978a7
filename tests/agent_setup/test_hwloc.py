"""Machines as hwloc describes them, in the forms of 1.x and 2.x."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_setup import hwloc
from agent_setup.errors import DiscoveryError
from agent_setup.machine import Machine
from scheduler.quantities import Ranges

needs_lstopo = pytest.mark.skipif(not shutil.which("lstopo"), reason="lstopo is not installed")


def synthetic(description: str, *options: str) -> str:
    """Return the XML of a machine that does not exist."""
    command = ["lstopo", "-i", description, *options, "--of", "xml"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


MACHINES = {
    "two sockets with two L3 caches each": (
        "pack:2 [numa(memory=8GB)] l3:2 core:2 pu:2",
        {0: "[0-7]", 1: "[8-15]"},
        8,
        4,
        True,
    ),
    "sub-NUMA clusters": (
        "pack:2 numa:2(memory=4GB) l3:1 core:3 pu:1",
        {0: "[0-2]", 1: "[3-5]", 2: "[6-8]", 3: "[9-11]"},
        12,
        4,
        False,
    ),
    "one node": ("core:4 pu:2", {0: "[0-7]"}, 4, 0, False),
}


@needs_lstopo
@pytest.mark.parametrize("version", [(), ("--export-xml-flags", "v1")], ids=["2.x", "1.x"])
@pytest.mark.parametrize("name", MACHINES)
def test_nodes_cores_and_caches(name: str, version: tuple[str, ...]) -> None:
    description, nodes, n_cores, n_l3, several_l3 = MACHINES[name]
    machine = hwloc.parse(synthetic(description, *version))
    assert {n: str(node.cpus) for n, node in machine.nodes.items()} == nodes
    assert len(machine.smt) == n_cores
    assert len(machine.l3) == n_l3
    assert machine.several_l3() == several_l3
    assert all(node.memory > 0 for node in machine.nodes.values())


@needs_lstopo
@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 2))
def test_both_versions_tell_of_the_same_machine(
    packages: int, nodes: int, cores: int, threads: int
) -> None:
    description = f"pack:{packages} numa:{nodes}(memory=1GB) core:{cores} pu:{threads}"
    new = hwloc.parse(synthetic(description))
    old = hwloc.parse(synthetic(description, "--export-xml-flags", "v1"))
    assert new == old
    assert len(new.nodes) == packages * nodes
    assert len(new.smt) == packages * nodes * cores
    assert all(len(group) == threads for group in new.smt)


WITH_NIC = """<topology version="2.0">
 <object type="Machine" cpuset="0x0000000f" allowed_cpuset="0x00000007" nodeset="0x00000003">
  <object type="Package" cpuset="0x00000003" nodeset="0x00000001">
   <object type="NUMANode" os_index="0" cpuset="0x00000003" nodeset="0x00000001" local_memory="2097152"/>
   <object type="Core" cpuset="0x00000003"><object type="PU" os_index="0"/><object type="PU" os_index="1"/>
   </object>
  </object>
  <object type="Package" cpuset="0x0000000c" nodeset="0x00000002">
   <object type="NUMANode" os_index="1" cpuset="0x0000000c" nodeset="0x00000002" local_memory="1048576"/>
   <object type="PU" os_index="2"/><object type="PU" os_index="3"/>
   <object type="Bridge"><object type="PCIDev" pci_busid="0000:81:00.0">
    <object type="OSDev" name="ens3f0" osdev_type="2"/><object type="OSDev" name="mlx5_0" osdev_type="3"/>
   </object></object>
  </object>
  <object type="Bridge"><object type="OSDev" name="eno1" osdev_type="2"/></object>
 </object></topology>"""


def test_interfaces_hang_on_the_node_of_the_nearest_object_above() -> None:
    machine = hwloc.parse(WITH_NIC)
    assert machine.nic_nodes == {"ens3f0": 1}, "eno1 hangs on the machine, which has two nodes"


def test_processors_that_are_not_allowed_are_left_out() -> None:
    machine = hwloc.parse(WITH_NIC)
    assert machine.nodes[1].cpus == Ranges.parse("[2]")
    assert machine.smt == (Ranges.parse("[0-1]"), Ranges.parse("[2]"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<topology", "<!-- ", "not XML"),
        ("topology", "answer", "<answer> instead of <topology>"),
        ('type="Machine"', 'type="Toaster"', "no object of type Machine"),
        (
            '"0x00000003" nodeset',
            '"0x0000000g" nodeset',
            "cpuset='0x0000000g' is not a set of hwloc",
        ),
        ('os_index="2"', 'os_index="1"', "two PU objects have the same os_index"),
        ('os_index="2"', 'os_index="-2"', "PU os_index='-2' is not a whole number"),
        ('os_index="2"', 'os_index="999999"', "os_index from 0 to 65535"),
        (
            'NUMANode" os_index="1"',
            'NUMANode" os_index="0"',
            "two NUMANode objects have os_index 0",
        ),
        ('local_memory="1048576"', 'local_memory="many"', "local_memory='many' is not a whole"),
        ("cpuset=", "x=", "cpuset='' is not a set of hwloc"),
    ],
)
def test_malformed_descriptions_are_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(DiscoveryError, match=re.escape(said)):
        hwloc.parse(WITH_NIC.replace(old, new), "file.xml")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Machine", "NUMANode", "PU", "Core", "L3Cache", "OSDev"]),
            st.dictionaries(
                st.sampled_from(["os_index", "cpuset", "nodeset", "local_memory", "name"]),
                st.from_regex(r"[0-9a-fx,\-]{0,12}", fullmatch=True),
            ),
        ),
        max_size=5,
    )
)
def test_any_description_is_a_machine_or_refused(
    objects: list[tuple[str, dict[str, str]]],
) -> None:
    body = "".join(
        f'<object type="{kind}" ' + " ".join(f'{k}="{v}"' for k, v in attributes.items()) + "/>"
        for kind, attributes in objects
    )
    try:
        assert isinstance(hwloc.parse(f"<topology>{body}</topology>"), Machine)
    except DiscoveryError as exc:
        assert str(exc)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0x00000001,0x00000003", "[0-1,32-32]"), ("0x00000001,,0x00000000", "[64-64]")],
)
def test_sets_have_words_of_32_bits_of_which_zeros_may_be_left_out(text: str, cpus: str) -> None:
    pus = "".join(f'<object type="PU" os_index="{n}"/>' for n in (0, 1, 32, 64))
    machine = hwloc.parse(
        f'<topology><object type="Machine">{pus}<object type="NUMANode" os_index="0" '
        f'cpuset="{text}"/></object></topology>'
    )
    assert str(machine.nodes[0].cpus) == cpus


def test_a_machine_without_lstopo_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DiscoveryError, match="apt-get install hwloc-nox"):
        hwloc.run_lstopo()
