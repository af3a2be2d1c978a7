"""From the contents of an image to an image of the local Docker engine."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final

from agent_setup.errors import ImageError
from agent_setup.images.contents import PACKAGES, Contents, folders

ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": PACKAGES,
    "PYTHONUNBUFFERED": "1",
    "LANG": "C.UTF-8",
}
WRITABLE: Final = ("/tmp", "/var/tmp")  # noqa: S108 - of the image


def write(contents: Contents, stream: IO[bytes], *, owner: tuple[int, int]) -> None:
    """Write an image's file system as a tar archive.

    Times are kept to the fraction of a second: numba compares them with those that it compiled from.

    Parameters
    ----------
    owner
        User and group of the packages, whom programs run as; all else is root's.
    """
    names = [*contents.files, *contents.links, *contents.texts]
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for folder in folders([*names, *(f"{folder}/any" for folder in WRITABLE)]):
            _add_folder(archive, folder, owner)
        for name, path in sorted(contents.files.items()):
            entry = archive.gettarinfo(path, arcname=name)
            if not entry.isreg():  # a second name of a file that is there: give it its own copy
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            _own(entry, name, owner)
            with path.open("rb") as file:
                archive.addfile(entry, file)
        for name, target in contents.links.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
        for name, text in contents.texts.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(text.encode()), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))


def _add_folder(archive: tarfile.TarFile, folder: str, owner: tuple[int, int]) -> None:
    entry = tarfile.TarInfo(folder.lstrip("/"))
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder in WRITABLE else 0o755
    _own(entry, folder, owner)
    archive.addfile(entry)


def _own(entry: tarfile.TarInfo, name: str, owner: tuple[int, int]) -> None:
    entry.uid, entry.gid = owner if name.startswith(PACKAGES) else (0, 0)
    entry.uname = entry.gname = ""


def build(
    contents: Contents,
    reference: str,
    *,
    owner: tuple[int, int],
    labels: Mapping[str, str],
    prepare: Sequence[str] = (),
) -> None:
    """Make an image.

    Parameters
    ----------
    prepare
        Command that is run in a container of it; what it writes becomes part of the image.

    Raises
    ------
    ImageError
        If the engine does not take it, or the command fails, with what is said.
    """
    changes = [f"ENV {name}={value}" for name, value in ENVIRONMENT.items()]
    changes += [f'LABEL {name}="{value}"' for name, value in labels.items()]
    changes += [f"USER {owner[0]}:{owner[1]}", "WORKDIR /tmp", 'CMD ["python3"]']
    options = [f"--change={change}" for change in changes]
    before = _docker("images", "--quiet", "--no-trunc", reference)
    image = _docker("import", *options, "-", feed=lambda to: write(contents, to, owner=owner))
    try:
        if prepare:
            _prepare(image, reference, prepare)
        else:
            _docker("tag", image, reference)
    except ImageError:
        _docker("rmi", image)
        raise
    if before not in ("", _docker("images", "--quiet", "--no-trunc", reference)):
        with contextlib.suppress(
            ImageError
        ):  # it has another name, or a container still runs in it
            _docker("rmi", before)


def _prepare(image: str, reference: str, command: Sequence[str]) -> None:
    """Make an image of what is left when a command has run in another."""
    container = _docker("create", image, *command)
    try:
        _docker("start", "--attach", container)
        _docker("commit", '--change=CMD ["python3"]', container, reference)
    finally:
        _docker("rm", "--force", container)


def _docker(*arguments: str, feed: Callable[[IO[bytes]], None] | None = None) -> str:
    """Run the ``docker`` command; return what it says."""
    try:
        with subprocess.Popen(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            if feed is not None and process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # the engine says why
                    feed(process.stdin)
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            said = b"" if process.stdout is None else process.stdout.read()
    except OSError as exc:
        raise ImageError(f"the docker command cannot be run: {exc}") from exc
    text = said.decode("utf-8", "replace").strip()
    if process.returncode != 0:
        raise ImageError(f"docker {arguments[0]}: {' '.join(text.split())[-500:]}")
    return text
