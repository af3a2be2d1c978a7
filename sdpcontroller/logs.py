"""What log lines are about: the product, task and capture block that the code at hand works for.

`about` marks a stretch of work; everything logged in it, and in the asyncio tasks started from it, carries
the marks. Lines are text for people or JSON for a log store, one object a line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

FIELDS: Final = ("product", "task", "capture_block")
"""What both formats show."""
JSON_FIELDS: Final = (*FIELDS, "graph")
"""The scheduler knows graphs, not products: a product's graph is named PRODUCT-NUMBER."""
LOG_FORMATS: Final = ("text", "json")
_TEXT: Final = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(about)s%(message)s"

_about: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039 - it is never changed


@contextmanager
def about(
    *, product: str | None = None, task: str | None = None, capture_block: str | None = None
) -> Iterator[None]:
    """Mark what is logged within as being about these; what is not given stays as it is."""
    given = {"product": product, "task": task, "capture_block": capture_block}
    marks = {name: value for name, value in given.items() if value is not None}
    token = _about.set({**_about.get(), **marks})
    try:
        yield
    finally:
        _about.reset(token)


class AboutFilter(logging.Filter):
    """Adds the marks to every record of a handler; what a record has by itself (`extra`) is kept."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the marks; never drops a record."""
        marks = _about.get()
        for name in FIELDS:
            if not hasattr(record, name):
                setattr(record, name, marks.get(name))
        found = [str(getattr(record, name)) for name in FIELDS if getattr(record, name)]
        record.about = f"[{' '.join(found)}] " if found else ""
        return True


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in JSON_FIELDS:
            if value := getattr(record, name, None):
                line[name] = str(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _iso(unix: float) -> str:
    whole = int(unix)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{moment}.{int((unix - whole) * 1000):03d}Z"


def set_up(level: str, log_format: str = "text") -> None:
    """Log to standard error in a format of :data:`LOG_FORMATS`, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(AboutFilter())
    text = logging.Formatter(_TEXT, "%Y-%m-%dT%H:%M:%S")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Every request of a waiting task would be a line.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
