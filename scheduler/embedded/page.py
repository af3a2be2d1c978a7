"""A page that shows the cluster to people: plain HTML, made on the server, nothing to run in the browser."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from urllib.parse import quote

from scheduler.embedded.master import Master
from scheduler.embedded.model import VERSION, ranges_text
from scheduler.embedded.records import AgentRecord, Framework, Task
from scheduler.quantities import Ranges, Resources, format_millis

_STYLE = """
body { font: 14px/1.4 sans-serif; margin: 1.5em; color: #222; }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; }
th, td { border: 1px solid #ccc; padding: 0.2em 0.6em; text-align: left; vertical-align: top; }
th { background: #f3f3f3; font-weight: 600; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.TASK_RUNNING { color: #06662a; } .TASK_FAILED, .TASK_ERROR, .TASK_LOST { color: #a00; }
.off { color: #a00; }
"""
MAX_TASKS = 500
"""Tasks that the page lists, those that run first."""


def render(master: Master) -> str:
    """Return the page."""
    tasks = list(_tasks(master))
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>Cluster {escape(master.hostname)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Cluster {escape(master.hostname)}:{master.address[1]}</h1>",
        f"<p>Embedded master, speaks Mesos {VERSION}; id {escape(master.id)}; "
        f"up since {_moment(master.start_time)}.</p>",
        *_frameworks(master.frameworks.values()),
        "<h2>Agents</h2>",
        *(part for record in master.agents.values() for part in _agent(master, record)),
        *_task_table(master, tasks),
        "</body></html>",
    ]
    return "\n".join(parts)


def _moment(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table; cells are HTML already."""
    yield "<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table>"


def _frameworks(frameworks: Iterable[Framework]) -> Iterator[str]:
    yield "<h2>Frameworks</h2>"
    yield from _table(
        ("name", "id", "roles", "state", "tasks", "offers"),
        (
            (
                escape(f.info.name),
                escape(f.info.id),
                escape(", ".join(f.info.roles)),
                f.state.value,
                str(len(f.tasks)),
                str(len(f.offers)),
            )
            for f in frameworks
        ),
    )


def _agent(master: Master, record: AgentRecord) -> Iterator[str]:
    spec = record.info.spec
    state = "" if record.connected else " <span class='off'>disconnected</span>"
    yield f"<h3 id='{escape(record.info.id)}'>{escape(spec.hostname)}{state}</h3>"
    facts = ", ".join(f"{escape(n)}: {escape(v)}" for n, v in sorted(spec.attributes.items()))
    yield f"<p>{escape(record.info.id)}" + (f"; {facts}" if facts else "") + "</p>"
    users = [
        task
        for framework in master.frameworks.values()
        for task in framework.tasks.values()
        if task.info.agent_id == record.info.id and not task.released
    ]
    yield from _table(
        ("resource", "total", "used", "offered", "free", "by"),
        (_resource(name, record, users) for name in _names(record.total.plain)),
    )


def _names(resources: Resources) -> list[str]:
    return sorted({*resources.scalars, *resources.ranges})


def _resource(name: str, record: AgentRecord, users: Sequence[Task]) -> Sequence[str]:
    holders = (
        f"{escape(task.info.name)} ({_amount(task.info.resources, name)})"
        for task in users
        if _holds(task.info.resources, name)
    )
    amounts = (record.total.plain, record.used.plain, record.offered.plain, record.free.plain)
    return (escape(name), *(_amount(r, name) for r in amounts), ", ".join(holders))


def _holds(resources: Resources, name: str) -> bool:
    return name in resources.scalars or name in resources.ranges


def _amount(resources: Resources, name: str) -> str:
    if name in resources.scalars:
        return format_millis(resources.scalars[name])
    members = resources.ranges.get(name, Ranges())
    return f"{ranges_text(members)} ({len(members)})" if members else "–"


def _tasks(master: Master) -> Iterator[tuple[Framework, Task]]:
    for framework in master.frameworks.values():
        for task in (*framework.tasks.values(), *framework.unreachable.values()):
            yield framework, task
    for framework in (*master.frameworks.values(), *master.completed_frameworks.values()):
        for task in reversed(framework.completed):
            yield framework, task


def _task_table(master: Master, tasks: Sequence[tuple[Framework, Task]]) -> Iterator[str]:
    hidden = len(tasks) - MAX_TASKS
    more = f" (of {len(tasks)} tasks, {MAX_TASKS} are shown)" if hidden > 0 else ""
    yield f"<h2>Tasks{more}</h2>"
    yield from _table(
        ("task", "name", "framework", "state", "agent", "resources", "since", "sandbox"),
        (_task(master, framework, task) for framework, task in tasks[:MAX_TASKS]),
    )


def _task(master: Master, framework: Framework, task: Task) -> Sequence[str]:
    record = master.find_agent(task.info.agent_id)
    since = _moment(task.statuses[-1]["timestamp"]) if task.statuses else ""
    return (
        escape(task.info.id),
        escape(task.info.name),
        escape(framework.info.name),
        f"<span class='{task.state.value}'>{task.state.value}</span>",
        "" if record is None else escape(record.info.spec.hostname),
        escape(str(task.info.resources)),
        since,
        "" if record is None else _sandbox(record, task),
    )


def _sandbox(record: AgentRecord, task: Task) -> str:
    """Link the sandbox' files, as long as the agent knows of it."""
    if record.agent.find_run(task.framework_id, task.info.id) is None:
        return ""
    executor_id = task.executor_id or task.info.id
    root = f"/frameworks/{task.framework_id}/executors/{executor_id}/runs/latest"
    if task.executor_id is not None:
        root += f"/tasks/{task.info.id}"
    files = record.info.path + "/files"
    links = [
        f"<a href='{files}/download?path={quote(f'{root}/{name}', safe='')}'>{name}</a>"
        for name in ("stdout", "stderr")
    ]
    links.append(f"<a href='{files}/browse?path={quote(root, safe='')}'>files</a>")
    return " ".join(links)
