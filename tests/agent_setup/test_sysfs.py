"""Machines as Linux describes them, where there is no hwloc."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent_setup import hwloc, sysfs
from agent_setup.errors import DiscoveryError
from scheduler.quantities import Ranges


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def two_nodes(folder: Path) -> Path:
    files = {"cpu/online": "0-3"}
    for cpu in range(4):
        files[f"cpu/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu % 2},{cpu % 2 + 2}"
        files[f"cpu/cpu{cpu}/cache/index3/shared_cpu_list"] = "0-3"
    for node in range(2):
        files[f"node/node{node}/cpulist"] = f"{node},{node + 2}"
        files[f"node/node{node}/meminfo"] = f"Node {node} MemTotal:       {4096 * (node + 1)} kB"
    return tree(folder, files)


def test_nodes_siblings_and_caches(tmp_path: Path) -> None:
    machine = sysfs.read(two_nodes(tmp_path), allowed=Ranges.parse("[0-3]"))
    assert [str(node.cpus) for node in machine.nodes.values()] == ["[0-0,2-2]", "[1-1,3-3]"]
    assert [node.mem_mib for node in machine.numa()] == [4, 8]
    assert [str(group) for group in machine.smt] == ["[0-0,2-2]", "[1-1,3-3]"]
    assert [str(group) for group in machine.l3] == ["[0-3]"]


def test_processors_that_are_not_allowed_are_left_out(tmp_path: Path) -> None:
    machine = sysfs.read(two_nodes(tmp_path), allowed=Ranges.parse("[1-3]"))
    assert [str(group) for group in machine.smt] == ["[1-1,3-3]", "[2-2]"]


def test_a_kernel_without_numa_has_one_node(tmp_path: Path) -> None:
    machine = sysfs.read(tree(tmp_path, {"cpu/online": "0-1"}), allowed=Ranges.parse("[0-1]"))
    (node,) = machine.numa()
    assert str(node.cores) == "[0-1]"
    assert (node.mem_mib or 0) > 0


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("cpu/online", "all", "cpu/online: not a list of CPUs"),
        ("node/node1/cpulist", "3-1", "node1/cpulist: not a list of CPUs"),
        ("node/node1/meminfo", "plenty", "node1/meminfo: has no line MemTotal"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, file: str, text: str, said: str) -> None:
    tree(two_nodes(tmp_path), {file: text})
    with pytest.raises(DiscoveryError, match=said):
        sysfs.read(tmp_path)


@pytest.mark.skipif(not shutil.which("lstopo"), reason="lstopo is not installed")
def test_this_machine_is_the_same_to_hwloc() -> None:
    here = Ranges.of_values(os.sched_getaffinity(0))
    kernel, library = sysfs.read(), hwloc.parse(hwloc.run_lstopo())
    assert {n: node.cpus for n, node in kernel.nodes.items()} == {
        n: node.cpus & here for n, node in library.nodes.items()
    }
    assert set(kernel.smt) == {group & here for group in library.smt if group & here}
