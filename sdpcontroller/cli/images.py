"""``sdp images``: container images of the project's programs, made from what is installed here."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import time
from typing import Any, Final

from agent_setup.errors import AgentSetupError
from agent_setup.images import build, contents
from sdpcontroller.cli.service import Defaults, fail
from sdpcontroller.errors import ControllerError

TAG: Final = "local"


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "images",
        help="make container images without a registry",
        description="Make container images of the project's programs from what is installed here: the "
        "interpreter, the packages and the libraries behind them. Needs a Docker engine, no registry.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = actions.add_parser("build", help="make images", formatter_class=Defaults)
    make.add_argument(
        "images", nargs="*", metavar="IMAGE", help="which; all of them if none is named"
    )
    make.add_argument("--tag", default=TAG, help="tag of the images")
    make.add_argument(
        "--registry",
        default="",
        metavar="HOST[:PORT]",
        help="put before the names, for docker push",
    )
    make.add_argument(
        "--user",
        default=f"{os.getuid()}:{os.getgid()}",
        metavar="UID:GID",
        help="whom programs run as; what they write to volumes belongs to them",
    )
    make.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    try:
        owner = _owner(options.user)
        for name in options.images or contents.RECIPES:
            started = time.monotonic()
            reference = make_image(name, options.tag, registry=options.registry, owner=owner)
            sys.stdout.write(f"{reference} made in {time.monotonic() - started:.0f} s\n")
    except (AgentSetupError, OSError) as exc:
        return fail(exc)
    return 0


def make_image(name: str, tag: str = TAG, *, registry: str = "", owner: tuple[int, int]) -> str:
    """Make an image and return its reference.

    Raises
    ------
    AgentSetupError
        If it cannot be made, with the reason.
    """
    recipe = contents.RECIPES.get(name)
    if recipe is None:
        known = ", ".join(contents.RECIPES)
        raise AgentSetupError(f"there is no image {name!r}; there are: {known}")
    reference = f"{registry}/{name}:{tag}" if registry else f"{name}:{tag}"
    version = importlib.metadata.version(contents.PROJECT)
    labels = {"org.opencontainers.image.version": version, "org.opencontainers.image.title": name}
    build.build(
        contents.collect(recipe), reference, owner=owner, labels=labels, prepare=recipe.prepare
    )
    return reference


def make_programs_image() -> str:
    """Make the image of the programs that graphs consist of, for whoever runs this; return its reference.

    Raises
    ------
    ControllerError
        If it cannot be made, with the reason.
    """
    try:
        return make_image("sdp-pipelines", owner=(os.getuid(), os.getgid()))
    except (AgentSetupError, OSError) as exc:
        raise ControllerError(f"the image of the programs cannot be made: {exc}") from exc


def _owner(text: str) -> tuple[int, int]:
    user, colon, group = text.partition(":")
    if not (user.isascii() and user.isdigit() and colon and group.isascii() and group.isdigit()):
        raise AgentSetupError(f"--user {text}: expected UID:GID, two numbers")
    return int(user), int(group)
