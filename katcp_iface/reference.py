"""The reference page of the requests, from their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from katcp_iface.bounded import BoundedServer
from katcp_iface.cluster_requests import ClusterRequests, SystemRequests
from katcp_iface.requests import CaptureRequests, ProductRequests

_INTRODUCTION = """\
# KATCP requests

<!-- Made from the docstrings by `python -m katcp_iface`: change those, not this page. -->

What clients can ask of the controller, by default on port 5001 of the loopback interface. The controller
itself gives the same texts in answer to `?help` and `?help REQUEST`. A reply begins with `ok`, or with
`fail` and one line: what was asked, what was found, what to do. A request that failed has changed nothing,
or was undone. Besides these there are the requests of every KATCP device: `?help`, `?watchdog`,
`?version-list`, `?client-list`, `?log-level`, `?sensor-list`, `?sensor-value`, `?sensor-sampling`.

From a shell: `katcpcmd HOST:PORT REQUEST ARGUMENT…` (it comes with aiokatcp).

"""
_GROUPS = (
    ("Products", ProductRequests),
    ("Captures", CaptureRequests),
    ("Tasks and agents", ClusterRequests),
    ("The whole", SystemRequests),
    ("Refused", BoundedServer),
)
_HEADINGS = {
    "Parameters": "Arguments",
    "Informs": "Informs, each with",
    "Returns": "Reply, after `ok`",
}
_ITEM = re.compile(r"(\w+) : (.+)")


def reference_page() -> str:
    """Return the page, in Markdown."""
    return _INTRODUCTION + "\n".join(_sections()) + "\n"


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
