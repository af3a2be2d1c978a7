"""Children that do not outlive their parent: ``kill -9`` leaves it no time to end them itself."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from typing import Final

SETPRIV: Final = "setpriv"
"""Of util-linux, which every Debian has: it asks the kernel for a signal at the parent's death, and becomes the
command (prctl(2), PR_SET_PDEATHSIG)."""


def with_parent(
    command: Sequence[str], number: signal.Signals = signal.Signals.SIGKILL
) -> list[str]:
    """Return a command that is sent a signal when the process that runs it dies; of the same process id.

    Strictly, when the *thread* dies that started it: start it from one that lives as long as the process does.
    Where there is no ``setpriv``, or no such program, the command is returned as it is.

    Parameters
    ----------
    command
        Program and arguments.
    number
        What it is sent: SIGTERM where it has something to end itself, and needs nobody else for that.
    """
    setpriv = shutil.which(SETPRIV)
    if setpriv is None or shutil.which(command[0]) is None:  # who runs it is told what is not there
        return [*command]
    return [setpriv, "--pdeathsig", number.name.removeprefix("SIG"), "--", *command]
