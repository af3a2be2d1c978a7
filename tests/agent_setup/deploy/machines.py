"""Machines to try roles on: containers where a Docker engine answers, else trees of files.

Both are the smallest system of the same release as this machine, put together from its own package sources;
it takes root to make them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "ca-certificates,python3,systemd"
"""Beside the smallest system: what Ansible needs, and systemd, which does not run, but judges units."""
POLICY = "#!/bin/sh\nexit 101\n"
"""Of ``policy-rc.d``: packages that are installed start nothing."""
ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'


@dataclass(frozen=True)
class Machine:
    """Something that a role can be applied to."""

    name: str
    prefix: tuple[str, ...]
    """Command line that enters it."""

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program there; return what it wrote, errors included."""
        done = subprocess.run(
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}"
        return done.stdout

    def read(self, path: str) -> str:
        """Return a file's text."""
        return self.run("cat", path)


def lacking() -> str | None:
    """Return why there can be no machines here, in words; None if there can."""
    if os.geteuid() != 0:
        return "only root can make machines"
    if shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed (apt-get install mmdebstrap)"
    release = platform.freedesktop_os_release()
    python = {"bookworm": (3, 11), "jammy": (3, 10), "noble": (3, 12), "trixie": (3, 13)}
    if python.get(release.get("VERSION_CODENAME", "")) != sys.version_info[:2]:
        return f"{release.get('PRETTY_NAME')} comes with another Python than {platform.python_version()}"
    return None


def has_engine() -> bool:
    """Whether a Docker engine answers."""
    return (
        shutil.which("docker") is not None
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    )


def base(folder: Path) -> Path:
    """Return an archive of the smallest system, made if it is not in the folder already."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    key = hashlib.sha256(f"{suite} {PACKAGES}".encode()).hexdigest()[:12]
    archive = folder / f"machine-{suite}-{key}.tar"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = archive.with_suffix(f".{os.getpid()}.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
        subprocess.run([*command, suite, str(fresh)], check=True)
        fresh.rename(archive)
    return archive


@contextmanager
def machines(names: Sequence[str], folder: Path) -> Iterator[list[Machine]]:
    """Make machines, and take them away again.

    Parameters
    ----------
    folder
        Where the archive is kept for the next time.
    """
    archive = base(folder)
    run = f"sdp-test-{uuid.uuid4().hex[:8]}"
    with (_containers if has_engine() else _trees)(run, names, archive) as made:
        for machine in made:
            machine.run("sh", "-c", 'printf "%s" "$0" > /usr/sbin/policy-rc.d', POLICY)
            machine.run("chmod", "755", "/usr/sbin/policy-rc.d")
            machine.run("sh", "-c", "echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/fast")
        yield made


@contextmanager
def _containers(run: str, names: Sequence[str], archive: Path) -> Iterator[list[Machine]]:
    subprocess.run(
        ["docker", "import", str(archive), f"{run}:base"], check=True, capture_output=True
    )
    try:
        for name in names:
            # the host's network and package sources: packages come from where the host has them
            options = ["--network=host", "--volume=/etc/apt:/etc/apt:ro", f"--name={run}-{name}"]
            subprocess.run(
                ["docker", "run", "--detach", "--init", *options, f"{run}:base", "sleep", "3600"],
                check=True,
                capture_output=True,
            )
        yield [Machine(name, ("docker", "exec", "-i", f"{run}-{name}")) for name in names]
    finally:
        for name in names:
            subprocess.run(
                ["docker", "rm", "-f", f"{run}-{name}"], check=False, capture_output=True
            )
        subprocess.run(["docker", "rmi", f"{run}:base"], check=False, capture_output=True)


@contextmanager
def _trees(run: str, names: Sequence[str], archive: Path) -> Iterator[list[Machine]]:
    top = archive.parent / run
    try:
        for name in names:
            (top / name).mkdir(parents=True)
            subprocess.run(["tar", "-xf", str(archive), "-C", str(top / name)], check=True)
            shutil.copytree("/etc/apt", top / name / "etc/apt", dirs_exist_ok=True)
            shutil.copy("/etc/resolv.conf", top / name / "etc/resolv.conf")
        yield [
            Machine(name, ("unshare", "--mount", "sh", "-c", ENTER, str(top / name)))
            for name in names
        ]
    finally:
        shutil.rmtree(top, ignore_errors=True)
