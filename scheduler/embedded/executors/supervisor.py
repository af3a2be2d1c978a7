"""The parent of one task: starts it, passes signals on, and writes down how it ended.

Run as a program of its own, by path and without site packages: it must start fast, need little and outlive the
cluster, so that a cluster that is started again still learns how its tasks have ended::

    supervisor.py STATUS

STATUS is the file that gets the wait status when the task has ended. Standard input is a JSON document:

* ``program``, ``argv``, ``environment``: what to execute, in the working folder of this process;
* ``stdout``, ``stderr``: numbers of open files;
* ``report``: likewise; it gets ``{"pid": …}`` or ``{"error": …}`` when the task has been started;
* optionally ``cpus``, ``nodes``: numbers of CPUs and NUMA nodes to be bound to;
* optionally ``cgroups``: files to write the process' number into;
* optionally ``user``: ``uid``, ``gid``, ``groups``.

SIGTERM goes on to the task's process group; SIGUSR1 becomes SIGKILL there. The task is reaped only after the
last signal has been passed on, so that none ever meets a stranger.
"""

import json
import os
import signal
import sys
from typing import Any

_OURS = {signal.SIGTERM, signal.SIGUSR1}
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
_MPOL_BIND = 2
_MAX_NODES = 1024


def main() -> None:
    """Supervise one task."""
    status = sys.argv[1]
    document = json.load(sys.stdin)
    files = {document["report"], document["stdout"], document["stderr"]}
    for number in files:
        os.set_inheritable(number, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    failure, failure_out = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(document, failure_out)
    os.close(failure_out)
    signal.signal(signal.SIGTERM, lambda *_: _pass_on(pid, signal.SIGTERM))
    signal.signal(signal.SIGUSR1, lambda *_: _pass_on(pid, signal.SIGKILL))
    with os.fdopen(failure) as pipe:  # closed by a successful exec
        error = pipe.read()
    os.write(document["report"], json.dumps({"error": error} if error else {"pid": pid}).encode())
    for number in {0, 1, 2} | files:
        os.close(number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    _, ended = os.waitpid(pid, 0)
    # pathlib takes longer to import than all else.
    with open(f"{status}.new", "w") as file:  # noqa: PTH123
        file.write(str(ended))
    os.replace(f"{status}.new", status)  # noqa: PTH105


def _pass_on(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except OSError:  # all of it has ended
        return


def _become(document: dict[str, Any], failure: int) -> None:
    """Turn this process into the task; never returns."""
    try:
        os.setsid()
        for path in document.get("cgroups", ()):
            with open(path, "w") as file:  # noqa: PTH123
                file.write(str(os.getpid()))
        if document.get("cpus"):
            os.sched_setaffinity(0, document["cpus"])
        if document.get("nodes"):
            _bind_memory(document["nodes"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(document["stdout"], 1)
        os.dup2(document["stderr"], 2)
        if user := document.get("user"):
            os.setgroups(user["groups"])
            os.setgid(user["gid"])
            os.setuid(user["uid"])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execve(document["program"], document["argv"], document["environment"])  # noqa: S606
    except Exception as exc:  # whatever it is, the cluster is told
        os.write(failure, str(exc).encode() or b"?")
    os._exit(1)


def _bind_memory(nodes: list[int]) -> None:
    """Take the task's memory from some NUMA nodes only; where the kernel refuses, from anywhere."""
    import ctypes  # takes longer to import than all else, and few tasks need it

    number = _SET_MEMPOLICY.get(os.uname().machine)
    if number is None:
        return
    word = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask = (ctypes.c_ulong * (_MAX_NODES // word))()
    for node in nodes:
        if node < _MAX_NODES:
            mask[node // word] |= 1 << (node % word)
    ctypes.CDLL(None).syscall(number, _MPOL_BIND, ctypes.byref(mask), _MAX_NODES)


if __name__ == "__main__":
    main()
