"""Options that say where names of container images are looked up."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.errors import ImageError
from sdpcontroller.errors import ControllerError

if TYPE_CHECKING:
    from scheduler.images import ImageResolver


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("container images")
    group.add_argument(
        "--images",
        choices=("none", "registry", "engine"),
        default="none",
        help="where tags are turned into digests: by their registry, or by the Docker engine here",
    )
    group.add_argument(
        "--registry-credentials",
        type=Path,
        metavar="FILE",
        help="credentials for registries, in the form of ~/.docker/config.json",
    )
    group.add_argument(
        "--registry-ca", metavar="FILE", help="certificates that registries are trusted by (PEM)"
    )
    group.add_argument(
        "--registry-plain",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a registry that is asked without TLS; may be given several times",
    )


@asynccontextmanager
async def open_images(options: argparse.Namespace) -> AsyncIterator[ImageResolver | None]:
    """Open what the options ask for; None where nothing is looked up.

    Raises
    ------
    ControllerError
        If credentials or certificates cannot be read.
    """
    # Not above: only who looks images up need load what does.
    from scheduler.images import (
        CachedImages,
        EngineImages,
        RegistryImages,
        read_credentials,
    )

    if options.images == "none":
        yield None
    elif options.images == "engine":
        yield CachedImages(EngineImages())
    else:
        try:
            path = options.registry_credentials
            credentials = read_credentials(path) if path is not None else {}
            registry = RegistryImages(
                credentials=credentials, ca_file=options.registry_ca, plain=options.registry_plain
            )
            await registry.__aenter__()
        except (ImageError, OSError) as exc:
            raise ControllerError(f"images cannot be looked up: {exc}") from exc
        try:
            yield CachedImages(registry)
        finally:
            await registry.__aexit__(None, None, None)
