"""The command line as a whole."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from sdpcontroller.cli.main import MODULES, main, make_parser


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


def test_each_module_has_the_commands_that_it_is_loaded_for() -> None:
    """Or a command would load everything, or nothing would be found."""
    everything = commands(make_parser())
    assert sorted(everything) == sorted(name for names in MODULES.values() for name in names)
    for names in MODULES.values():
        for name in names:
            assert sorted(commands(make_parser(name))) == sorted(names)


def test_every_command_of_the_design_is_there_with_help() -> None:
    found = commands(make_parser())
    wanted = (
        *("master", "cluster", "demo", "configure", "capture", "deconfigure", "status", "plan"),
        *("explain", "tasks", "logs", "agents", "drain", "resources", "events"),
    )
    for name in wanted:
        assert found[name].description and len(found[name].format_help()) > 100, name
    assert sorted(commands(found["capture"])) == ["start", "stop"]


@pytest.mark.parametrize("command", ["master", "cluster", "demo"])
def test_help_tells_of_defaults_where_there_are_some(command: str) -> None:
    text = commands(make_parser())[command].format_help()
    assert "(default: " in text
    assert "None)" not in text and "False)" not in text


def test_what_is_no_command_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])
    assert "'configure', 'deconfigure'" in capsys.readouterr().err


def test_a_controller_loads_nothing_of_demonstrations_and_clusters() -> None:
    program = (
        "import sys; from sdpcontroller.cli.main import main; main(['master', '--list-crash-points']);"
        "print([m for m in sys.modules if m.startswith(('scheduler.embedded', 'sdpcontroller.cli.demo'))])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
