"""``sdp-agent-config``: find out what this machine has to give, and let its Mesos agent advertise it.

Exit status: 0, done (or nothing to do); 1, refused, with the reason in one line; 2, ``--check`` found
differences; 3, ``--only-additive`` found that the agent has to be drained first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

from agent_setup import change, forms, publish, settings
from agent_setup.advertise import Advertisement, advertise
from agent_setup.discover import Sources, Survey, survey
from agent_setup.errors import AgentSetupError, DiscoveryError
from agent_setup.forms import Form
from agent_setup.table import explain

PROGRAM = "sdp-agent-config"


class Status(IntEnum):
    """Exit status of the command."""

    DONE = 0
    REFUSED = 1
    DIFFERS = 2
    DRAIN_FIRST = 3


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse's own status for this is 2, which means something else here
        """Say what is wrong with the options, and end."""
        self.exit(Status.REFUSED, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None, sources: Sources | None = None) -> int:
    """Run the command; return its exit status.

    Parameters
    ----------
    sources
        Where the facts come from, instead of this machine.
    """
    options = _parser().parse_args(arguments)
    try:
        told = settings.load(options.config, _overlays(options))
        here = sources or Sources(lstopo_xml=options.lstopo_xml)
        return _run(options, survey(told, here))
    except AgentSetupError as exc:
        sys.stderr.write(f"{PROGRAM}: {' '.join(str(exc).split())}\n")
        return Status.REFUSED


def _run(options: argparse.Namespace, found: Survey) -> Status:
    advertisement = advertise(found, in_legacy_form=options.legacy)
    if options.explain:
        sys.stdout.write(explain(found) + "\n")
        return Status.DONE
    if options.print:
        sys.stdout.write(_document(advertisement))
        return Status.DONE
    form = Form(options.form)
    target: Path = options.output or form.default_path
    files = forms.render(form, advertisement)
    if (
        forms.read(form, files) != advertisement.as_read()
    ):  # a fault of ours, but told before it is written
        raise DiscoveryError(f"{form.value}: the files would be read as another machine")
    return _check(form, target, files) if options.check else _write(options, form, target, files)


def _check(form: Form, target: Path, files: forms.Files) -> Status:
    changes = publish.differences(publish.existing(form, target), files)
    _show(changes)
    return Status.DIFFERS if changes else Status.DONE


def _write(options: argparse.Namespace, form: Form, target: Path, files: forms.Files) -> Status:
    if options.only_additive and (
        reasons := change.not_additive(form, publish.existing(form, target), files)
    ):
        for reason in reasons:
            sys.stderr.write(f"{PROGRAM}: drain the agent first: {reason}\n")
        return Status.DRAIN_FIRST
    _show(publish.publish(form, target, files))
    return Status.DONE


def _show(changes: Sequence[publish.Difference]) -> None:
    for line in (line for entry in changes for line in entry.lines()):
        sys.stdout.write(f"{line}\n")


def _document(advertisement: Advertisement) -> str:
    facts = {
        "attributes": dict(advertisement.attribute_pairs()),
        "resources": advertisement.resources.to_mesos(),
    }
    return json.dumps(facts, indent=2) + "\n"


def _overlays(options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """Yield what the options say as tables of settings, the most special last."""
    networks = _pairs(options.network, "--network")
    yield {"networks": {name: where.split(",") for name, where in networks.items()}}
    yield {"volumes": {n: {"path": path} for n, path in _pairs(options.volume, "--volume").items()}}
    speeds = _pairs(options.speed, "--speed")
    yield {"interfaces": {n: {"speed_mbps": _whole("--speed", v)} for n, v in speeds.items()}}
    if options.reserve_cores is not None:
        yield {"reserved": {"cores": options.reserve_cores}}
    if options.reserve_mem is not None:
        yield {"reserved": {"mem_mib": _whole("--reserve-mem", options.reserve_mem)}}
    for setting in options.set:
        yield settings.parse(setting, f"--set {setting}")


def _pairs(items: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise DiscoveryError(f"{option} {item}: expected NAME=VALUE")
        if name in pairs:
            raise DiscoveryError(f"{option} {item}: {name} is already {pairs[name]}")
        pairs[name] = value
    return pairs


def _whole(option: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise DiscoveryError(f"{option}: {value} is not a whole number")
    return int(value)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Find out what this machine has to give, and write what its Mesos agent advertises. "
        "Nothing is written that the scheduler would not read as the same machine.",
        epilog="Exit status: 0 done, 1 refused (the reason is one line), 2 --check found differences, "
        "3 --only-additive found that the agent has to be drained first.",
    )
    _add_facts(parser)
    _add_output(parser)
    return parser


def _add_facts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what cannot be found out, or shall be otherwise")
    group.add_argument(
        "--config", type=Path, metavar="FILE.toml", help="settings; options go first"
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting of the file, in TOML: 'interfaces.ens3.numa=1', 'priority=2.5', 'gpus=false'",
    )
    group.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="NAME=WHERE[,WHERE]",
        help="logical network, and the interface names or address ranges that reach it",
    )
    group.add_argument(
        "--speed", action="append", default=[], metavar="INTERFACE=MBIT/S", help="over the kernel's"
    )
    group.add_argument(
        "--volume", action="append", default=[], metavar="NAME=PATH", help="directory for tasks"
    )
    group.add_argument("--reserve-cores", metavar="[CPUS]", help="kept for the system: [0-1,8]")
    group.add_argument("--reserve-mem", metavar="MIB", help="kept for the system (default: 1024)")
    group.add_argument("--lstopo-xml", type=Path, metavar="FILE", help="instead of running lstopo")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is done with it")
    group.add_argument(
        "--form",
        choices=[form.value for form in Form],
        default=Form.DIRECTORY.value,
        help="one file per name, for Mesos' packages; JSON for --resources=file://; or a file of "
        "environment variables for systemd (default: %(default)s)",
    )
    defaults = ", ".join(str(form.default_path) for form in Form)
    group.add_argument("--output", type=Path, metavar="PATH", help=f"where (default: {defaults})")
    group.add_argument(
        "--legacy", action="store_true", help="in the form of MeerKAT's katsdpcontroller"
    )
    instead = group.add_mutually_exclusive_group()
    instead.add_argument(
        "--check", action="store_true", help="write nothing; show differences, exit with 2 if any"
    )
    instead.add_argument(
        "--explain", action="store_true", help="write nothing; show a table for people"
    )
    instead.add_argument("--print", action="store_true", help="write nothing; show JSON")
    instead.add_argument(
        "--only-additive",
        action="store_true",
        help="write only what an agent with --reconfiguration_policy=additive keeps its tasks over; "
        "exit with 3, and the reasons, if there is more",
    )


if __name__ == "__main__":
    sys.exit(main())
