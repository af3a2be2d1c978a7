"""The program that sets what a boot forgets, on a machine made of files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "agent_setup/ansible/roles/realtime_tuning/files/sdp-realtime"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two CPUs, two NUMA nodes, a card with two interrupts."""
    files = {
        **{f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_governor": "powersave" for n in (0, 1)},
        **{
            f"sys/devices/system/node/node{n}/hugepages/hugepages-2048kB/nr_hugepages": "0"
            for n in (0, 1)
        },
        "sys/class/net/ens1/mtu": "1500",
        "sys/class/net/ens1/device/msi_irqs/41": "",
        "sys/class/net/ens1/device/msi_irqs/42": "",
        "proc/irq/41/smp_affinity_list": "0-1",
        "proc/irq/42/smp_affinity_list": "0-1",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return tmp_path


def run(machine: Path, settings: str) -> subprocess.CompletedProcess[str]:
    file = machine / "settings"
    file.write_text(settings)
    environment = {**os.environ, "SDP_REALTIME_ROOT": str(machine)}
    return subprocess.run(
        ["sh", str(PROGRAM), str(file)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def values(machine: Path, pattern: str) -> set[str]:
    return {path.read_text().strip() for path in machine.glob(pattern)}


def test_what_is_named_is_set_everywhere_and_a_second_time_too(machine: Path) -> None:
    settings = (
        "# by hand\n\ngovernor performance\nhugepages 64\nmtu ens1 9000\nirq_cpus ens1 0,16\n"
    )
    for _ in range(2):
        done = run(machine, settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert values(machine, "sys/devices/system/cpu/*/cpufreq/*") == {"performance"}
        assert values(machine, "sys/devices/system/node/*/hugepages/*/*") == {"64"}
        assert values(machine, "sys/class/net/ens1/mtu") == {"9000"}
        assert values(machine, "proc/irq/*/smp_affinity_list") == {"0,16"}


def test_what_is_not_named_stays(machine: Path) -> None:
    assert run(machine, "mtu ens1 9000\n").returncode == 0
    assert values(machine, "sys/devices/system/cpu/*/cpufreq/*") == {"powersave"}
    assert values(machine, "proc/irq/*/smp_affinity_list") == {"0-1"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mtu ens9 9000", "there is no /sys/class/net/ens9/mtu"),
        ("irq_cpus ens9 0", "ens9 has no interrupts of its own"),
        ("turbo off", "unknown setting turbo"),
    ],
)
def test_what_cannot_be_set_is_told_and_the_rest_is_set(
    line: str, said: str, machine: Path
) -> None:
    done = run(machine, f"{line}\ngovernor performance\n")
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert values(machine, "sys/devices/system/cpu/*/cpufreq/*") == {"performance"}
