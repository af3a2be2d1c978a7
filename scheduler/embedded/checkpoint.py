"""What is written down so that a cluster that was killed goes on where it was.

Below ``WORK/meta``: ``agents.json`` has the ids of the agents; ``runs/CONTAINER/`` has a task (``run.json``)
and what has been reported of it and acknowledged since (``log``, one JSON document in each line). Files appear
whole or not at all, and a line that was cut short in the middle of a crash is as if it had not been written.
They are not forced to the disk: they are to outlive this process, not the machine, with which the tasks end as
well.

Only frameworks that ask for it (``checkpoint: true``) are written down, as with Mesos.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from scheduler.embedded.model import AgentInfo, FrameworkInfo, TaskInfo, TaskState
from scheduler.embedded.pool import Pool
from scheduler.embedded.runs import Group, Run
from scheduler.embedded.updates import StatusUpdate
from scheduler.errors import QuantityError
from scheduler.quantities import Resources

logger = logging.getLogger(__name__)

_META: Final = Path("meta")


@dataclass(slots=True)
class SavedRun:
    """A run as it has been written down."""

    agent_id: str
    run: Run
    updates: list[StatusUpdate] = field(default_factory=list)
    """All that have been reported, in their order."""
    acknowledged: int = 0
    """How many of them are."""

    def read(self, entry: Mapping[str, Any]) -> None:
        """Take one line of the log."""
        run = self.run
        if "update" in entry:
            status = entry["update"]
            state = TaskState(status["state"])
            update = StatusUpdate(run.framework.id, run.task.id, status["uuid"], state, status)
            self.updates.append(update)
        elif "acknowledged" in entry:
            self.acknowledged += 1
        else:
            run.killed, run.kill_reason = True, entry["killed"]
            run.out_of_time = entry["out_of_time"]


class Checkpoint:
    """The notes of one cluster.

    Parameters
    ----------
    work_dir
        The cluster's work folder.
    """

    def __init__(self, work_dir: Path) -> None:
        self._agents = work_dir / _META / "agents.json"
        self._runs = work_dir / _META / "runs"

    # Agents

    def agent_ids(self) -> dict[str, str]:
        """Return the ids of agents by host name."""
        try:
            document = json.loads(self._agents.read_text())
            return {str(name): str(agent_id) for name, agent_id in document.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def save_agents(self, agents: Iterable[AgentInfo]) -> None:
        """Note the agents that there are."""
        self._agents.parent.mkdir(parents=True, exist_ok=True)
        _write(self._agents, {info.spec.hostname: info.id for info in agents})

    # Runs

    def launched(self, run: Run) -> None:
        """Note a task before it is started."""
        if not run.framework.checkpoint:
            return
        folder = self._runs / run.container_id
        # A task's environment is in it, and secrets in that.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(folder / "run.json", _document(run))

    def reported(self, run: Run, update: StatusUpdate) -> None:
        """Note an update before it is sent."""
        self._append(run, {"update": update.status})

    def acknowledged(self, run: Run) -> None:
        """Note that the first update that was not acknowledged is."""
        self._append(run, {"acknowledged": True})

    def killed(self, run: Run) -> None:
        """Note a kill before it is done."""
        self._append(run, {"killed": run.kill_reason, "out_of_time": run.out_of_time})

    def forget(self, run: Run) -> None:
        """Remove what has been noted of a run."""
        if run.framework.checkpoint:
            shutil.rmtree(self._runs / run.container_id, ignore_errors=True)

    def clear(self) -> None:
        """Remove all runs."""
        shutil.rmtree(self._runs, ignore_errors=True)

    def load(self) -> list[SavedRun]:
        """Return all runs, oldest first; what cannot be read is removed, with a line in the log."""
        groups: dict[tuple[str, str], Group] = {}
        found: list[tuple[float, SavedRun]] = []
        for folder in self._runs.iterdir() if self._runs.is_dir() else ():
            try:
                document = json.loads((folder / "run.json").read_text())
                saved = SavedRun(document["agent_id"], _read_run(document, groups))
                for entry in _read_log(folder / "log"):
                    saved.read(entry)
                found.append(((folder / "run.json").stat().st_mtime, saved))
            except (OSError, ValueError, KeyError, TypeError, QuantityError) as exc:
                logger.warning("a note of container %s cannot be read: %s", folder.name, exc)
                shutil.rmtree(folder, ignore_errors=True)
        found.sort(key=lambda pair: pair[0])
        return [saved for _, saved in found]

    def _append(self, run: Run, entry: Mapping[str, Any]) -> None:
        folder = self._runs / run.container_id
        if run.framework.checkpoint and folder.is_dir():
            with (folder / "log").open("a") as log:
                log.write(json.dumps(entry, separators=(",", ":")) + "\n")


def _document(run: Run) -> dict[str, Any]:
    task, group = run.task, run.group
    document: dict[str, Any] = {
        "agent_id": task.agent_id,
        "framework": asdict(run.framework),
        "task": {
            "id": task.id,
            "name": task.name,
            "role": task.role,
            "pool": _pool(task.pool),
            "document": task.document,
        },
        "container_id": run.container_id,
        "sandbox": str(run.sandbox),
    }
    if group is not None:
        document["group"] = {
            "id": group.id,
            "container_id": group.container_id,
            "sandbox": str(group.sandbox),
            "pool": _pool(group.pool),
        }
    return document


def _read_run(document: Mapping[str, Any], groups: dict[tuple[str, str], Group]) -> Run:
    fields = dict(document["framework"])
    for name in ("roles", "capabilities", "labels"):
        fields[name] = tuple(fields[name])
    framework = FrameworkInfo(**fields)
    entry = document["task"]
    task = TaskInfo(
        entry["id"],
        entry["name"],
        document["agent_id"],
        entry["role"],
        _read_pool(entry["pool"]),
        entry["document"],
    )
    run = Run(framework, task, document["container_id"], Path(document["sandbox"]))
    if (noted := document.get("group")) is not None:
        key = (framework.id, noted["id"])
        if key not in groups:
            sandbox, pool = Path(noted["sandbox"]), _read_pool(noted["pool"])
            groups[key] = Group(noted["id"], framework, noted["container_id"], sandbox, pool)
        run.group = groups[key]
        run.group.runs.append(run)
    return run


def _pool(pool: Pool) -> dict[str, Any]:
    return {role: part.to_mesos() for role, part in pool}


def _read_pool(parts: Mapping[str, Any]) -> Pool:
    return Pool({role: Resources.from_mesos(part) for role, part in parts.items()})


def _read_log(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the lines that are whole."""
    if not path.exists():
        return
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        yield json.loads(line)


def _write(path: Path, document: Any) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document, separators=(",", ":")))
    fresh.replace(path)
