"""``sdp cluster``: which agents, and what its options mean."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from scheduler.quantities import Ranges, Resources
from sdpcontroller.cli import cluster
from sdpcontroller.errors import ControllerError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cluster.add_parser(parser.add_subparsers())
    return parser.parse_args(["cluster", *arguments])


def test_agents_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    path.write_text(
        '[{"hostname": "127.0.1.1", "resources": {"cpus": 8, "mem": 0.5, "cores": "[0-7]"},'
        ' "attributes": {"rack": "r1"}}]'
    )
    (spec,) = cluster._agents(parse("--spec", str(path)))
    assert spec.resources == Resources({"cpus": 8000, "mem": 500}, {"cores": Ranges.parse("[0-7]")})
    assert spec.attributes == {"rack": "r1"}


def test_agents_may_have_reservations(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    path.write_text(
        '[{"hostname": "a", "default_role": "sdp", "resources": {"cpus": 8},'
        ' "reserved": {"batch": {"cpus": 4}, "sdp": {"mem": 1}}}]'
    )
    (spec,) = cluster.read_specs(path)
    assert spec.pool.parts == {
        "sdp": Resources({"cpus": 8000, "mem": 1000}),
        "batch": Resources({"cpus": 4000}),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '[{"hostname": "a", "resources": {}}]',
        '[{"hostname": "a", "resources": {"p": "[1-2]"}, "reserved": {"*": {"p": "[2-3]"}}}]',
        '[{"hostname": "a"}]',
        '[{"hostname": "a", "resources": {"cores": "many"}}]',
        '[{"hostname": "a", "resources": {"cpus": -1}}]',
        '[{"hostname": "a", "resources": {}, "color": "red"}]',
    ],
)
def test_descriptions_that_are_wrong_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agents.json"
    path.write_text(text)
    with pytest.raises(ControllerError, match=r"cannot read the agents in|has no resources"):
        cluster.read_specs(path)


def test_simulated_agents_are_whole_copies_of_the_machine(tmp_path: Path) -> None:
    options = parse("--executor", "simulated", "--agents", "40", "--data", str(tmp_path))
    specs = cluster._agents(options)
    assert len({spec.hostname for spec in specs}) == 40
    assert len({spec.resources.scalars["cpus"] for spec in specs}) == 1


def test_help_says_what_a_killed_cluster_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    assert "--recover=cleanup kills them" in capsys.readouterr().out
