"""``sdp agents``, ``drain``, ``undrain``, ``resume-repair``: machines out of service, put back, lost."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final

from sdpcontroller.cli.cam import Cam
from sdpcontroller.cli.controller import add_command, listing, say
from sdpcontroller.errors import ControllerError
from sdpcontroller.some import some

_PERIOD: Final = 1.0
_SHOWN: Final = 5
"""Tasks that a message names."""


class WaitedInVainError(ControllerError):
    """What was waited for did not come in time."""


def add_parsers(commands: Any) -> None:
    """Add the subcommands."""
    parser = add_command(
        commands,
        "agents",
        listing("agent-list", "host", ("host", "state", "free", "reason")),
        summary="list the agents",
        description="List the agents: state, what is free, and why one takes no tasks.",
    )
    parser.add_argument("host", nargs="?", help="only the agents on this host")
    parser = add_command(
        commands,
        "drain",
        _drain,
        summary="let a host get no new tasks",
        description="Let the agents on a host get no new tasks; those that run there go on.",
    )
    parser.add_argument("host", help="host of the agents, as 'sdp agents' shows it")
    parser.add_argument("--reason", default="", metavar="TEXT", help="shown by 'sdp agents'")
    _add_wait(parser, "until no task is left there")
    parser = add_command(
        commands,
        "undrain",
        _undrain,
        summary="let a host get tasks again",
        description="Let the agents on a host get new tasks again.",
    )
    parser.add_argument("host", help="host of the agents")
    _add_wait(parser, "until the host is up")
    add_command(
        commands,
        "resume-repair",
        _resume_repair,
        summary="let products start tasks again by themselves",
        description="Let products start tasks again by themselves, after many agents were lost at once and "
        "an alarm has said that they do not.",
    )


def _add_wait(parser: argparse.ArgumentParser, until: str) -> None:
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help=f"wait {until}, at most so long; exit status 1 if it does not come [%(default)s]",
    )


async def _drain(cam: Cam, options: argparse.Namespace) -> int:
    left = [task for (task,) in await cam.informs("agent-drain", options.host, options.reason)]
    try:
        async with asyncio.timeout(options.wait or None):
            while left and options.wait:
                await asyncio.sleep(_PERIOD)
                left = await _tasks_on(cam, options.host)
    except TimeoutError:
        raise WaitedInVainError(
            f"{options.host} is drained, but after {options.wait:g} s there are still {_named(left)}; "
            "they end with their products"
        ) from None
    text = f"{options.host} gets no new tasks; " + (
        f"there are still {_named(left)}" if left else "none is left there"
    )
    say(options, text, {"host": options.host, "tasks": left})
    return 0


async def _undrain(cam: Cam, options: argparse.Namespace) -> int:
    await cam.request("agent-undrain", options.host)
    state = ""
    try:
        async with asyncio.timeout(options.wait or None):
            while options.wait and state != "up":
                state = await _state_of(cam, options.host)
                await asyncio.sleep(_PERIOD if state != "up" else 0)
    except TimeoutError:
        raise WaitedInVainError(
            f"{options.host} may get tasks again, but after {options.wait:g} s it is not up: "
            f"{state or 'the controller does not see it'}"
        ) from None
    say(options, f"{options.host} gets tasks again", {"host": options.host, "state": state})
    return 0


async def _resume_repair(cam: Cam, options: argparse.Namespace) -> int:
    (reason,) = await cam.request("repair-resume")
    text = f"repair goes on; it had paused: {reason}" if reason else "repair did not pause"
    say(options, text, {"reason": reason})
    return 0


async def _tasks_on(cam: Cam, host: str) -> list[str]:
    rows = await cam.informs("task-list")
    return [name for name, state, where, _ in rows if where == host and state.split()[0] != "dead"]


async def _state_of(cam: Cam, host: str) -> str:
    """Return the state of the agents on a host, the worst if there are several, with the reason."""
    found = [
        (state, why) for name, state, _, why in await cam.informs("agent-list") if name == host
    ]
    bad = next(((state, why) for state, why in found if state != "up"), None)
    if bad is not None:
        return f"{bad[0]}: {bad[1]}" if bad[1] else bad[0]
    return "up" if found else ""


def _named(tasks: list[str]) -> str:
    return f"{len(tasks)} tasks: {some(tasks, _SHOWN)}"
