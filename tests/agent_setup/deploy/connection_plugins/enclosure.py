"""Ansible's connection to a container or to a tree of files: whatever a prefix of a command line enters.

``ansible_enclosure_prefix`` is ``docker exec -i NAME`` or ``chroot FOLDER``; everything goes through the
standard streams of commands behind it, so nothing else needs to be there.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: enclosure
short_description: run behind a prefix
description: Runs commands behind a prefix that enters a container or a tree.
author: The SDP controller's authors
options:
  prefix:
    description: The command line that enters it.
    required: true
    type: str
    vars:
      - name: ansible_enclosure_prefix
  remote_user:
    description: Not used.
    type: str
    vars:
      - name: ansible_user
"""


class Connection(ConnectionBase):  # type: ignore[misc]  # ansible has no annotations
    """A connection behind a prefix."""

    transport = "enclosure"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Run a command of the shell's."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._run(cmd, in_data or b"")
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Write a file there."""
        super().put_file(in_path, out_path)
        done = self._run(f"cat > {shlex.quote(out_path)}", Path(in_path).read_bytes())
        if done.returncode != 0:
            raise AnsibleConnectionFailure(f"{out_path}: {done.stderr.decode()}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Read a file from there."""
        super().fetch_file(in_path, out_path)
        done = self._run(f"cat {shlex.quote(in_path)}", b"")
        if done.returncode != 0:
            raise AnsibleConnectionFailure(f"{in_path}: {done.stderr.decode()}")
        Path(out_path).write_bytes(done.stdout)

    def close(self) -> None:
        """Nothing stays open."""
        self._connected = False

    def _run(self, command: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
        prefix = shlex.split(self.get_option("prefix"))
        return subprocess.run(
            [*prefix, "/bin/sh", "-c", command], input=data, capture_output=True, check=False
        )
