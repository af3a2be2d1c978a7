"""The reference page of requests and sensors, from docstrings and readings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import aiokatcp

from katcp_iface.aggregates import RULES, task_counts
from katcp_iface.bounded import MAX_LINE, PROTOCOL, BoundedServer
from katcp_iface.cluster_requests import ClusterRequests, SystemRequests
from katcp_iface.readings import (
    derived_status,
    mirrored_sensor,
    product_sensors,
    system_sensors,
    task_sensors,
)
from katcp_iface.requests import CaptureRequests, ProductRequests
from sdpcontroller.control import ProductRecord, ProductState, SystemRecord, TaskRecord

_INTRODUCTION = """\
# KATCP requests and sensors

<!-- Made from the code by `python -m katcp_iface`: change those, not this page. -->

What clients can ask of the controller, by default on port 5001 of the loopback interface. The controller
itself gives the same texts in answer to `?help` and `?help REQUEST`. A reply begins with `ok`, or with
`fail` and one line: what was asked, what was found, what to do. A request that failed has changed nothing,
or was undone. Besides these there are the requests of every KATCP device: `?help`, `?watchdog`,
`?version-list`, `?client-list`, `?log-level`, `?sensor-list`, `?sensor-value`, `?sensor-sampling`.

It speaks KATCP 5.1 with message ids, bulk sampling of sensors and hints of timeouts (`{protocol}`): a client
that waits as long as `?request-timeout-hint` says is told how a request ended, also one that failed because
something took too long.

A request that cannot be read (a line of more than {line} bytes, a character that must be escaped) fails, as
far as its name and message id can be told; other malformed lines get a `#log error` inform each, five of a
connection at most.

From a shell: `katcpcmd HOST:PORT REQUEST ARGUMENT…` (it comes with aiokatcp).

"""
_GROUPS = (
    ("Products", ProductRequests),
    ("Captures", CaptureRequests),
    ("Tasks and agents", ClusterRequests),
    ("The whole", SystemRequests),
    ("Refused", BoundedServer),
)
_SENSORS = """\
## Sensors

NAME is a product's, TASK one of its tasks', PORT one of the task's ports. A task's own sensors are here as
`NAME.TASK.SENSOR`, with type, units and status, at most every half second under the strategy `auto`;
`unreachable` when the task is gone. A task that publishes no `device-status` has the controller's: `ok` while
it is ready, `degraded` while Mesos cannot reach it or only an operator can let it go on, `fail` when it died
by itself. What clients may search sensors with: a name, or between slashes a
regular expression that repeats nothing that repeats, with at most four repetitions.
"""
_HEADINGS = {
    "Parameters": "Arguments",
    "Informs": "Informs, each with",
    "Returns": "Reply, after `ok`",
}
_ITEM = re.compile(r"(\w+) : (.+)")


def reference_page() -> str:
    """Return the page, in Markdown."""
    introduction = _INTRODUCTION.format(line=MAX_LINE, protocol=PROTOCOL)
    return introduction + "\n".join((*_sections(), *_sensors())) + "\n"


def _sensors() -> Iterator[str]:
    """Yield the tables of the sensors, from what the readings of an example show."""
    task = TaskRecord(
        name="TASK", kind="", task_id="", state="ready", ports={"PORT": ("10.0.0.1", 1)}
    )
    product = ProductRecord(name="NAME", state=ProductState.IDLE, config="{}")
    system = SystemRecord("ON", "ON", "connected", "")
    yield _SENSORS
    yield "| sensor | type | meaning |\n| --- | --- | --- |"
    for shown in (
        *system_sensors(system, {}, (), "[]"),
        *product_sensors(product),
        *task_counts(product),
    ):
        yield _row(shown.name, shown.kind, shown.description)
    for name, rule in RULES.items():
        yield _row(f"NAME.{name}", rule.kind, rule.description, rule.units)
    own = mirrored_sensor(derived_status("NAME", task, 0.0))
    for shown in (*task_sensors("NAME", task), own):
        yield _row(shown.name, shown.kind, shown.description)


def _row(name: str, kind: type[Any], description: str, units: str = "") -> str:
    told = f"{description} [{units}]" if units else description
    return f"| `{name}` | {aiokatcp.core.get_type(kind).name} | {told} |"


def _sections() -> Iterator[str]:
    for title, group in _GROUPS:
        yield f"## {title}\n"
        for attribute, handler in vars(group).items():
            if attribute.startswith("request_"):
                yield f"### `?{attribute.removeprefix('request_').replace('_', '-')}`\n"
                yield from _markdown(inspect.getdoc(handler) or "")
                yield ""


def _markdown(doc: str) -> Iterator[str]:
    """Turn a numpy-style docstring into Markdown: sections become lists."""
    lines = doc.splitlines()
    section = False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        item = _ITEM.fullmatch(line) if section else None
        if following.startswith("---") and line in _HEADINGS:
            section = True
            yield f"{_HEADINGS[line]}:\n"
        elif line.startswith("---"):
            continue
        elif item is not None:
            yield f"- `{item[1]}` ({item[2]}):"
        elif section and line:
            yield f"  {line.strip()}"
        else:
            yield line
