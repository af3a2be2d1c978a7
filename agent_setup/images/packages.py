"""Which distributions an installed one needs, and which files are theirs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agent_setup.errors import ImageError


def needed_by(name: str, extras: Iterable[str]) -> dict[str, Distribution]:
    """Return an installed distribution and all that it needs, with these extras, by normalised name.

    Raises
    ------
    ImageError
        If one of them is not installed.
    """
    found: dict[str, Distribution] = {}
    wanted = [(Requirement(f"{name}[{','.join(sorted(extras))}]"), "sdp images")]
    while wanted:
        requirement, asker = wanted.pop()
        key = canonicalize_name(requirement.name)
        distribution = found.get(key) or _installed(requirement.name, asker)
        known = key in found
        found[key] = distribution
        if not known or requirement.extras:
            wanted += (
                (need, requirement.name)
                for need in _requirements(distribution, requirement.extras)
                if need.extras or canonicalize_name(need.name) not in found
            )
    return found


def _installed(name: str, asker: str) -> Distribution:
    try:
        return importlib.metadata.distribution(name)
    except PackageNotFoundError:
        raise ImageError(
            f"{name}, which {asker} needs, is not installed: make the environment with the extra "
            "whose programs the image shall hold"
        ) from None


def _requirements(distribution: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        requirement = Requirement(text)
        environments: list[dict[str, str]] = [{"extra": extra} for extra in (*extras, "")]
        marker = requirement.marker
        if marker is None or any(marker.evaluate(environment) for environment in environments):
            yield requirement


def installed_files(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    """Yield the files of a distribution, by their path below where packages are.

    Scripts and manuals, which lie elsewhere, are left out.
    """
    for path in distribution.files or ():
        source = Path(str(distribution.locate_file(path)))
        if ".." not in path.parts and source.is_file():
            yield str(path), source
