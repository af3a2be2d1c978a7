"""What is wrong with a logical graph, whatever the cluster: pure checks, every problem as one line."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter

from scheduler import templates
from scheduler.constraints import Relation
from scheduler.errors import GraphError
from scheduler.graph import EdgeKind, LogicalGraph, ReadyKind, TaskTemplate
from scheduler.requests import TaskRequest

MAX_TASKS = 5000
MAX_EDGES = 100_000
MAX_NAME = 120
"""With a graph id of 100 characters and the attempt, a task id stays below Mesos' 255."""
MAX_WORDS = 1000
MAX_WORD = 100_000
"""Characters of one argument or value; Linux' ``execve`` takes 131072 bytes (``MAX_ARG_STRLEN``)."""
MAX_ENV = 1000
MAX_GPU_IMAGES = 64
MAX_IMAGE = 1000
MAX_PROBLEMS = 100
MAX_SECONDS = 10 * 365 * 86400.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PART_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"/[!-~]{0,1000}")
_SENSOR = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_ASKED_AT_PORTS = (ReadyKind.PORTS, ReadyKind.HTTP, ReadyKind.SENSOR)
_ORDERS = (
    (
        "starting order (READY, FINISHED, ENDED)",
        (EdgeKind.READY, EdgeKind.FINISHED, EdgeKind.ENDED),
    ),
    ("order of resolution (RESOLVED)", (EdgeKind.RESOLVED,)),
    ("killing order (KILL)", (EdgeKind.KILL,)),
)


def require_seconds(timeout: float) -> None:
    """Refuse what is no time to wait for: nothing is ever later than NaN."""
    if math.isnan(timeout):
        raise GraphError("its timeout is not a number of seconds")


def problems(graph: LogicalGraph, values: Collection[str] = ()) -> list[str]:
    """Return everything that is wrong with `graph`, at most :data:`MAX_PROBLEMS` lines.

    Parameters
    ----------
    values
        Names that the physical graph adds for the templates.
    """
    if sizes := list(_size_problems(graph)):  # nothing else is worth the time then
        return sizes
    found: list[str] = []
    for problem in _all_problems(graph, values):
        found.append(problem)
        if len(found) == MAX_PROBLEMS:
            found.append("and more")
            break
    return found


def _size_problems(graph: LogicalGraph) -> Iterator[str]:
    if not graph.tasks:
        yield "it has no tasks"
    if len(graph.tasks) > MAX_TASKS:
        yield f"it has {len(graph.tasks)} tasks, at most {MAX_TASKS} are taken"
    if len(graph.edges) > MAX_EDGES:
        yield f"it has {len(graph.edges)} edges, at most {MAX_EDGES} are taken"


def _all_problems(graph: LogicalGraph, values: Collection[str]) -> Iterator[str]:
    names = Counter(task.name for task in graph.tasks)
    yield from (f"there are {n} tasks {name!r}" for name, n in names.items() if n > 1)
    for value in values:
        if templates.VALUE_NAME.fullmatch(value) is None or value in templates.COMMON_FIELDS:
            yield f"{value!r} cannot be the name of a template value"
    for edge in graph.edges:
        # Not the difference of both sets: for that, Python goes through all names.
        for end in {end: None for end in (edge.source, edge.target) if end not in names}:
            other = edge.target if end == edge.source else edge.source
            yield f"a {edge.kind.name} edge of {other!r} names {end!r}, which is no task"
    yield from _cycles(graph)
    yield from _unknown_groups(graph)
    foreign = _foreign_fields(graph)
    for task in graph.tasks:
        known = templates.own_fields(task.request) | foreign.get(task.name, set()) | set(values)
        yield from (f"task {task.name!r}: {problem}" for problem in _task_problems(task, known))


def _cycles(graph: LogicalGraph) -> Iterator[str]:
    for order, kinds in _ORDERS:
        needs: dict[str, list[str]] = {}
        for edge in graph.edges:
            if edge.kind in kinds:
                needs.setdefault(edge.source, []).append(edge.target)
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as exc:
            yield f"the {order} has the cycle {' → '.join(reversed(exc.args[1]))}"


def _foreign_fields(graph: LogicalGraph) -> dict[str, set[str]]:
    """Return, for each task, the fields of others that its edges make known."""
    tasks = {task.name: task for task in graph.tasks}
    fields: dict[str, set[str]] = {}
    for edge in graph.edges:
        if (target := tasks.get(edge.target)) is None:
            continue
        known = fields.setdefault(edge.source, set())
        match edge.kind:
            case EdgeKind.PORT:
                known.update(f"endpoint[{edge.target}:{port}]" for port in target.request.ports)
            case EdgeKind.RESOURCES:
                own = templates.own_fields(target.request)
                known.update(templates.field_of(edge.target, name) for name in own)
            case EdgeKind.RESOLVED:
                known.update(templates.variable_of(edge.target, name) for name in target.env)
    return fields


def _unknown_groups(graph: LogicalGraph) -> Iterator[str]:
    """Yield relations to groups that nobody is in: slips, since a relation ends with its graph."""
    known = {name for task in graph.tasks for name in (task.name, *task.request.groups)}
    for task in graph.tasks:
        request = task.request
        relations: tuple[Relation, ...] = (*request.together, *request.apart, *request.at_most)
        for relation in relations:
            if relation.group not in known:
                yield f"task {task.name!r}: {relation}, but no task of the graph is in that group"


def _task_problems(task: TaskTemplate, known: Collection[str]) -> Iterator[str]:
    if _NAME.fullmatch(task.name) is None or len(task.name) > MAX_NAME:
        yield f"the name must have at most {MAX_NAME} letters, digits, '_', '.', '-'"
    if not task.command or not 1 <= len(task.command) <= MAX_WORDS:
        yield f"the command must have 1 to {MAX_WORDS} words"
    if len(task.env) > MAX_ENV:
        yield f"it has {len(task.env)} environment variables, at most {MAX_ENV} are taken"
    yield from (f"{n!r} is no name of a variable" for n in task.env if not _ENV_NAME.fullmatch(n))
    yield from _request_problems(task)
    yield from _image_problems(task)
    yield from _time_problems(task)
    for text in (*task.command, *task.env.values()):
        if len(text) > MAX_WORD or "\0" in text:
            yield f"{text[:40]!r}… is longer than {MAX_WORD} characters, or has a NUL in it"
        else:
            yield from templates.problems(text, known)


def asks_for_something(request: TaskRequest) -> bool:
    """Whether a task draws anything that Mesos counts, wherever it is placed."""
    amounts = [request.cpus, request.mem, request.disk, len(request.cores), len(request.ports)]
    amounts += [gpu.compute + gpu.mem for gpu in request.gpus]
    amounts += [nic.bandwidth_in + nic.bandwidth_out for nic in request.nics]
    amounts += [volume.disk for volume in request.volumes]
    return any(amounts) or bool(request.numa_share) or any(gpu.exclusive for gpu in request.gpus)


def _request_problems(task: TaskTemplate) -> Iterator[str]:
    if not asks_for_something(task.request):
        yield "it asks for nothing: Mesos takes no task without any resources, ask for some cpus"
    request = task.request
    named = {
        "port": request.ports,
        "core": request.cores,
        "volume": tuple(volume.name for volume in request.volumes),
        "network": tuple({nic.network for nic in request.nics}),
    }
    for what, names in named.items():
        yield from (
            f"{name!r} is no name of a {what}" for name in names if not _PART_NAME.fullmatch(name)
        )
    yield from _ready_problems(task)


def _ready_problems(task: TaskTemplate) -> Iterator[str]:
    ready, kind = task.ready, task.ready.kind
    if kind in _ASKED_AT_PORTS and not ready.ports:
        yield f"its readiness is shown by {kind.value}, but no port is named"
    for port in ready.ports:
        if port not in task.request.ports:
            yield f"its readiness is shown by the port {port!r}, which it does not ask for"
    if kind is ReadyKind.HTTP and _PATH.fullmatch(ready.path) is None:
        yield f"{ready.path[:40]!r} is no path of an URL: expected '/' and printable characters"
    if kind is ReadyKind.SENSOR:
        if _SENSOR.fullmatch(ready.sensor) is None:
            yield f"{ready.sensor[:40]!r} is no name of a KATCP sensor"
        if not ready.values:
            yield f"its readiness is shown by the sensor {ready.sensor!r}, but no value is named"
    if not (math.isfinite(ready.hold) and 0 <= ready.hold < task.launch_timeout):
        yield f"its readiness must hold for {ready.hold} s: expected less than its launch_timeout"


def _image_problems(task: TaskTemplate) -> Iterator[str]:
    if task.gpu_images and not task.request.gpus:
        yield "it has images by the name of its GPU, but asks for none"
    if task.gpu_images and task.image is None:
        yield "it has images by the name of its GPU, but none for any other GPU"
    if len(task.gpu_images) > MAX_GPU_IMAGES:
        yield f"it has {len(task.gpu_images)} images, at most {MAX_GPU_IMAGES} are taken"
    for text in (*task.gpu_images, *task.gpu_images.values()):
        if not (0 < len(text) <= MAX_IMAGE and text.isprintable()):
            yield f"{text[:40]!r} is no name of a GPU or an image"


def _time_problems(task: TaskTemplate) -> Iterator[str]:
    times = {
        "launch_timeout": task.launch_timeout,
        "kill_grace": task.kill_grace,
        "max_run_time": task.max_run_time,
    }
    for name, value in times.items():
        if value is not None and not (math.isfinite(value) and 0 < value <= MAX_SECONDS):
            yield f"{name} is {value}: expected seconds above 0"
