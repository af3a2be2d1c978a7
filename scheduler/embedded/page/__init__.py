"""A page that shows the cluster to people: plain HTML, made on the server, nothing to run in the browser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from urllib.parse import quote

from scheduler.embedded.master import Master
from scheduler.embedded.model import VERSION, TaskState, ranges_text
from scheduler.embedded.page.parts import bar, cells, moment, scalar, table, tag, tile
from scheduler.embedded.page.style import STYLE
from scheduler.embedded.pool import united
from scheduler.embedded.records import AgentRecord, Framework, Task
from scheduler.quantities import Ranges, Resources

__all__ = ["MAX_TASKS", "render"]

MAX_TASKS = 500
"""Tasks that the page lists, those that run first."""
_FIRST = ("cpus", "mem", "disk", "gpus", "cores", "ports")
"""Resources that every agent has come before the others."""
_KEY = (
    "<span class='key'><span><i class='used'></i>used</span><span><i class='offered'></i>offered</span>"
    "<span><i></i>free</span></span>"
)


def render(master: Master) -> str:
    """Return the page."""
    tasks = list(_tasks(master))
    title = f"Cluster {escape(master.hostname)}:{master.address[1]}"
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>{title}</h1>",
        f"<p class='soft'>Embedded master, speaks Mesos {VERSION}; up since "
        f"{moment(master.start_time)}; <code>{escape(master.id)}</code></p>",
        *_figures(master),
        "</header><main>",
        *_frameworks(list(master.frameworks.values())),
        f"<h2>Agents {_KEY}</h2>",
        *(part for record in master.agents.values() for part in _agent(master, record)),
        *_task_table(master, tasks),
        "</main><footer>As JSON: ",
        ", ".join(
            f"<a href='/{name}'>{name}</a>" for name in ("state", "slaves", "tasks", "roles")
        ),
        "</footer></body></html>",
    ]
    return "\n".join(parts)


def _figures(master: Master) -> Iterator[str]:
    agents = list(master.agents.values())
    tasks = [task for f in master.frameworks.values() for task in f.tasks.values()]
    running = sum(task.state is TaskState.RUNNING for task in tasks)
    total = united(record.total.plain for record in agents)
    used = united(record.used.plain for record in agents)
    away = len(master.registry.unreachable)
    yield "<div class='tiles'>"
    yield tile("agents", f"{len(agents)}" + (f" + {away} unreachable" if away else ""))
    yield tile("frameworks", str(len(master.frameworks)))
    yield tile("tasks running", f"{running} of {len(tasks)}" if tasks else "0")
    for name, title in (("cpus", "CPUs used"), ("mem", "MiB of memory used")):
        have = total.scalars.get(name, 0)
        if have:
            yield tile(title, f"{scalar(used.scalars.get(name, 0))} of {scalar(have)}")
    yield "</div>"


def _frameworks(frameworks: Sequence[Framework]) -> Iterator[str]:
    yield "<h2>Frameworks</h2><div class='card'>"
    if not frameworks:
        yield "<p class='none'>Nobody has subscribed.</p>"
    else:
        yield from table(
            ("name", "id", "roles", "state", "#tasks", "#offers", "subscribed"),
            (
                (
                    escape(f.info.name),
                    f"<code>{escape(f.info.id)}</code>",
                    escape(", ".join(f.info.roles)),
                    f"<span class='{f.state.value}'>{f.state.value}</span>",
                    str(len(f.tasks)),
                    str(len(f.offers)),
                    moment(f.registered_time),
                )
                for f in frameworks
            ),
        )
    yield "</div>"


def _agent(master: Master, record: AgentRecord) -> Iterator[str]:
    spec = record.info.spec
    yield f"<div class='card' id='{escape(record.info.id)}'><div class='head'>"
    yield f"<h3>{escape(spec.hostname)}</h3><code class='soft'>{escape(record.info.id)}</code>"
    yield from _agent_states(master, record)
    for name, value in sorted(spec.attributes.items()):
        yield tag(f"{name}: {value}")
    yield "</div>"
    users = [
        task
        for framework in master.frameworks.values()
        for task in framework.tasks_on(record.info.id)
        if not task.released
    ]
    yield from table(
        ("resource", "", "#total", "#used", "#offered", "#free", "by"),
        (_resource(name, record, users) for name in _names(record.total.plain)),
        kind="resources",
    )
    yield "</div>"


def _agent_states(master: Master, record: AgentRecord) -> Iterator[str]:
    if not record.connected:
        yield tag("disconnected", "off")
    if record.drain is not None:
        yield tag("draining" if record.agent.runs else "drained", "off")
    elif record.deactivated:
        yield tag("deactivated", "off")
    if master.maintenance.unavailability(record) is not None:
        yield tag("maintenance planned", "off")
    for role in record.total.reservations:
        yield tag(f"reserved for {role}")


def _names(resources: Resources) -> list[str]:
    names = {*resources.scalars, *resources.ranges}
    return [n for n in _FIRST if n in names] + sorted(names.difference(_FIRST))


def _resource(name: str, record: AgentRecord, users: Sequence[Task]) -> Sequence[str]:
    pools = (record.total, record.used, record.offered, record.free)
    total, used, offered, free = (pool.plain for pool in pools)
    holders = ", ".join(
        f"{escape(task.info.name)} ({_amount(task.info.resources, name)})"
        for task in users
        if name in task.info.resources.scalars or name in task.info.resources.ranges
    )
    if name in total.ranges:
        held = {
            member: task.info.name
            for task in users
            for member in task.info.resources.ranges.get(name, Ranges())
        }
        drawn = cells(total.ranges[name], offered.ranges.get(name, Ranges()), held)
    else:
        amounts = (resources.scalars.get(name, 0) for resources in (total, used, offered))
        drawn = bar(*amounts)
    shown = (_amount(r, name) for r in (total, used, offered, free))
    return (escape(name), drawn, *shown, holders)


def _amount(resources: Resources, name: str) -> str:
    if name in resources.scalars:
        return scalar(resources.scalars[name])
    members = resources.ranges.get(name, Ranges())
    return escape(f"{ranges_text(members)} ({len(members)})") if members else "–"


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
    yield f"<h2>Tasks{more}</h2><div class='card'>"
    if not tasks:
        yield "<p class='none'>There are no tasks, and there were none.</p>"
    else:
        yield from table(
            ("task", "name", "framework", "state", "agent", "resources", "since", "sandbox"),
            (_task(master, framework, task) for framework, task in tasks[:MAX_TASKS]),
        )
    yield "</div>"


def _task(master: Master, framework: Framework, task: Task) -> Sequence[str]:
    record = master.find_agent(task.info.agent_id)
    last = task.statuses[-1] if task.statuses else {}
    state = (
        f"<span class='{task.state.value}'>{task.state.value.removeprefix('TASK_').lower()}</span>"
    )
    if task.state.is_terminal and "message" in last:
        state += f"<br><span class='soft'>{escape(str(last['message']))}</span>"
    return (
        f"<code>{escape(task.info.id)}</code>",
        escape(task.info.name),
        escape(framework.info.name),
        state,
        "" if record is None else escape(record.info.spec.hostname),
        escape(_short(task.info.resources)),
        moment(last["timestamp"]) if last else "",
        "" if record is None else _sandbox(record, task),
    )


def _short(resources: Resources) -> str:
    parts = [f"{name} {scalar(amount)}" for name, amount in sorted(resources.scalars.items())]
    parts += [f"{n} {ranges_text(members)}" for n, members in sorted(resources.ranges.items())]
    return ", ".join(parts)


def _sandbox(record: AgentRecord, task: Task) -> str:
    """Link the sandbox' files, as long as the agent knows of it."""
    if record.agent.find_run(task.framework_id, task.info.id) is None:
        return ""
    executor_id = task.executor_id or task.info.id
    root = f"/frameworks/{task.framework_id}/executors/{executor_id}/runs/latest"
    if task.executor_id is not None:
        root += f"/tasks/{task.info.id}"
    files = record.info.path + "/files"
    links: Iterable[str] = (
        f"<a href='{files}/download?path={quote(f'{root}/{name}', safe='')}'>{name}</a>"
        for name in ("stdout", "stderr")
    )
    browse = f"<a href='{files}/browse?path={quote(root, safe='')}'>files</a>"
    return " ".join((*links, browse))
