"""``sdp-agent-config``: what is done with a machine, and what operators are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agent_setup import cli
from agent_setup.discover import Sources
from agent_setup.forms import Form
from scheduler.quantities import Resources
from scheduler.topology import Topology
from tests.agent_setup.machines import Accelerator, Card, Plan, sources

pytestmark = pytest.mark.skipif(not shutil.which("lstopo"), reason="lstopo is not installed")

PLAN = Plan(
    "pack:2 [numa(memory=8GiB)] l3:1 core:4 pu:2",
    cards=(Card("ens3", "10.100.0.1", node=1, verbs=0),),
    accelerators=(Accelerator("GPU-0", 0),),
)


@pytest.fixture
def here(tmp_path: Path) -> Sources:
    return sources(PLAN, tmp_path / "machine")


@pytest.mark.parametrize("form", [form.value for form in Form])
@pytest.mark.parametrize("legacy", [(), ("--legacy",)], ids=["own", "legacy"])
def test_check_write_and_check(
    form: str,
    legacy: tuple[str, ...],
    here: Sources,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "etc"
    command = ["--network", "cbf=10.100.0.0/16", "--form", form, "--output", str(target), *legacy]
    assert cli.main([*command, "--check"], here) == 2
    shown = capsys.readouterr().out
    assert shown.startswith("+ ")
    assert not target.exists(), "a check writes nothing"
    assert cli.main(command, here) == 0
    assert capsys.readouterr().out == shown, "what is done is what was announced"
    assert cli.main([*command, "--check"], here) == 0
    assert cli.main(command, here) == 0
    assert capsys.readouterr().out == ""
    assert cli.main([*command, "--check", "--reserve-cores", "[0]"], here) == 2
    shown = capsys.readouterr().out
    assert all(line[:2] in ("~ ", "+ ", "- ") for line in shown.splitlines())
    assert "15" in shown, "the cores that are left"
    assert "ens3" not in shown, "what stays is not shown"


@pytest.mark.parametrize("form", [form.value for form in Form])
def test_what_costs_an_agent_its_tasks_is_not_written_when_only_additions_are_wanted(
    form: str, here: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "etc"
    command = ["--network", "cbf=10.100.0.0/16", "--form", form, "--output", str(target)]
    assert cli.main([*command, "--only-additive", "--set", "cpus=8"], here) == 0
    assert cli.main([*command, "--only-additive"], here) == 0
    assert "cpus" in capsys.readouterr().out
    assert cli.main([*command, "--only-additive", "--reserve-cores", "[0]"], here) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "drain the agent first: cores was [0-15] and is [1-15]" in shown.err
    assert cli.main([*command, "--check"], here) == 0, "nothing was written"
    assert cli.main([*command, "--reserve-cores", "[0]"], here) == 0, "unless it is told to"


def test_what_is_refused_is_not_written(
    here: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "etc"
    assert cli.main(["--set", 'rack="007"', "--output", str(target)], here) == 1
    assert "Mesos takes this for a number" in capsys.readouterr().err
    assert not target.exists()


def test_options_go_before_the_file(
    here: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""
        priority = 1.5
        rack = "r07"
        subsystems = ["ingest"]
        [networks]
        cbf = ["10.100.0.0/16"]
        [interfaces.ens3]
        speed_mbps = 40000
        multicast_loopback = false
        [volumes.data]
        path = "{tmp_path}"
        numa = 0
        [reserved]
        cores = "[0,8]"
        """
    )
    command = ["--config", str(config), "--speed", "ens3=25000", "--set", "priority=3", "--print"]
    assert cli.main([*command, "--set", "reserved.cores='[1]'"], here) == 0
    document = json.loads(capsys.readouterr().out)
    topology = Topology.parse(document["attributes"], Resources.from_mesos(document["resources"]))
    assert (topology.priority, topology.rack, topology.subsystems) == (3000, "r07", ("ingest",))
    assert topology.nics[0].speed_mbps == 25_000
    assert not topology.nics[0].multicast_loopback
    assert topology.volumes[0].numa == 0
    assert str(topology.cores) == "[0-0,2-15]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--network", "cbf"], "--network cbf: expected NAME=VALUE"),
        (["--network", "a=ens3", "--network", "a=lo"], "a is already ens3"),
        (["--speed", "ens3=fast"], "--speed: fast is not a whole number"),
        (["--reserve-mem", "1.5"], "--reserve-mem: 1.5 is not a whole number"),
        (["--reserve-cores", "0"], "reserved.cores: Value error, '0' is not a range list"),
        (["--volume", "x=/none"], "volume x: /none is not a directory"),
        (["--set", "prority=1"], "settings: prority: Extra inputs are not permitted"),
        (["--set", "priority='high'"], "settings: priority: Input should be a valid number"),
        (["--set", "priority=nan"], "settings: priority: "),
        (["--set", "gpus=1"], "settings: gpus: Input should be a valid boolean"),
        (["--set", "x"], "--set x: not TOML"),
        (["--set", "a=" + "[" * 5000], "not TOML"),
        (["--config", "/none"], "/none: cannot be read"),
        (["--config", "/dev/zero"], "/dev/zero: more than 1 MiB"),
        (["--lstopo-xml", "/none"], "/none: cannot be read"),
    ],
)
def test_bad_options_are_one_line_and_status_1(
    arguments: list[str], said: str, here: Sources, capsys: pytest.CaptureFixture[str]
) -> None:
    used = None if "--lstopo-xml" in arguments else here
    assert cli.main([*arguments, "--explain"], used) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("sdp-agent-config: ")
    assert len(error.splitlines()) == 1


def test_usage_errors_do_not_look_like_differences(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--form", "stone"])
    assert end.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_too_many_attributes_for_an_argument_are_refused(
    here: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [f"{'s' * 200}{n}" for n in range(256)]
    verbs = [f"/dev/infiniband/{name}" for name in many]
    wide = [f"--network={'n' * 200}{n}=ens3" for n in range(255)]
    wide += [
        f"--set=subsystems={json.dumps(many)}",
        f"--set=interfaces.ens3.infiniband={json.dumps(verbs)}",
    ]
    command = [*wide, "--output", str(tmp_path / "etc")]
    assert cli.main([*command, "--form", "environment"], here) == 1
    assert "use the form json" in capsys.readouterr().err
    assert cli.main([*command, "--form", "json"], here) == 0


def test_this_machine_can_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--network", "cbf=lo", "--explain"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("NUMA node")
    assert "lo         127.0.0.1  cbf" in shown
