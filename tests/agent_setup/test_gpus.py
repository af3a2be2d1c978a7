"""GPUs are what NVML tells of, on the nodes that hwloc knows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent_setup import gpus
from agent_setup.errors import DiscoveryError
from agent_setup.machine import pci_address
from tests.agent_setup.machines import Accelerator, FakeNvml, Plan

PLAN = Plan(
    "core:1",
    accelerators=(
        Accelerator("GPU-0", 1),
        Accelerator("GPU-1", 0, name="Tesla V100-SXM2-32GB", mib=32_510),
    ),
)


def find(nvml: FakeNvml | None, **options: list[str]) -> tuple[gpus.Gpu, ...]:
    return gpus.find_gpus({"0000:80:00.0": 1}, load=lambda: nvml, **options)


def test_gpus_are_matched_to_nodes_by_their_pci_address() -> None:
    first, second = find(FakeNvml(PLAN))
    assert (first.name, first.uuid, first.device) == (
        "NVIDIA-A100-SXM4-80GB",
        "GPU-0",
        "/dev/nvidia0",
    )
    assert (first.numa, first.mem_mib, first.compute_capability) == (1, 81_559, (8, 0))
    assert (second.numa, second.mem_mib) == (None, 32_510), "hwloc does not know that slot"


def test_a_version_that_looks_like_a_number_is_kept_whole() -> None:
    assert {gpu.driver for gpu in find(FakeNvml(PLAN))} == {"v560.30"}


@pytest.mark.parametrize(
    "nvml", [None, FakeNvml(PLAN, init_error=9), FakeNvml(PLAN, init_error=12)]
)
def test_without_library_or_driver_there_are_no_gpus(nvml: FakeNvml | None) -> None:
    assert find(nvml) == ()
    with pytest.raises(DiscoveryError, match="GPU-1 is to be left out, but no GPU is found"):
        find(nvml, exclude=["GPU-1"])


def test_the_binding_itself_is_optional(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    # Set, so that what is imported below is taken out again.
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "pynvml")
    assert gpus.installed_nvml() is None
    (tmp_path / "pynvml.py").write_text("here = True\n")
    assert getattr(gpus.installed_nvml(), "here", False)


@pytest.mark.parametrize(
    ("nvml", "said"),
    [
        (FakeNvml(PLAN, init_error=4), "the NVIDIA driver does not answer: NVML 4"),
        (FakeNvml(PLAN, lost=True), "a GPU cannot be described: NVML 15"),
        (
            FakeNvml(Plan("", accelerators=(Accelerator("GPU-7", 0, mig=True),))),
            "GPU GPU-7 is cut into instances",
        ),
    ],
)
def test_gpus_that_cannot_be_described_are_refused(nvml: FakeNvml, said: str) -> None:
    with pytest.raises(DiscoveryError, match=said):
        find(nvml)
    assert nvml.open == 0, "the library is closed again"


def test_a_gpu_can_be_left_out() -> None:
    mixed = Plan("", accelerators=(Accelerator("GPU-0", 0, mig=True), Accelerator("GPU-1", 0)))
    assert [gpu.uuid for gpu in find(FakeNvml(mixed), exclude=["GPU-0"])] == ["GPU-1"]


@pytest.mark.parametrize("text", ["", "0000:3b:00", "3b:00.0", "0000:3b:00.8", "0000:3b:00.0\n"])
def test_other_texts_are_no_pci_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="is not a PCI address"):
        pci_address(text)
