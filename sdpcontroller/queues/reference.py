"""What the models of queues say of themselves: JSON Schema, and the reference page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel

from sdpcontroller.config.reference import described
from sdpcontroller.queues.agreement import plain
from sdpcontroller.queues.model import (
    BUILT_IN,
    LimitSettings,
    QueuesConfig,
    QueueSettings,
    Rule,
    WorkSettings,
)

_INTRODUCTION: Final = """\
# The queues

<!-- Made from the models by `python -m sdpcontroller.queues`: change those, not this page. -->

What `sdp master --queues FILE` reads: TOML where the name of the file ends in `.toml`, else JSON. Fields in
**bold** are required; one that is not listed is an error, and so is what can have no effect (a queue that
preempts, and nobody below it who may be ended). Errors name file, path, value and rule, one line each, before
the controller stands by or leads. The same as JSON Schema: [queues.schema.json](queues.schema.json). What the
fields come to when graphs wait: [scheduler.md](../scheduler.md), «Queues»; how to go about it:
[operations.md](../operations.md), «Queues».

Without the option these hold: real time goes before batch, and nobody is ended for anybody.

"""
_MODELS: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("The document", QueuesConfig),
    ("`queues`, each", QueueSettings),
    ("`queues`, each: `limits`", LimitSettings),
    ("`work`", WorkSettings),
    ("`rules`, each", Rule),
)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the document, which stands alone."""
    schema = QueuesConfig.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def reference_page() -> str:
    """Return the page, in Markdown."""
    return "\n".join((_INTRODUCTION.rstrip() + "\n", *_built_in(), *_fields())).rstrip() + "\n"


def _built_in() -> Iterator[str]:
    told = {
        name: {k: v for k, v in queue.items() if k in ("priority", "preempts", "preemptible")}
        for name, queue in plain(BUILT_IN)["queues"].items()
    }
    shown = {"queues": told, "work": plain(BUILT_IN)["work"], "roles": plain(BUILT_IN)["roles"]}
    yield f"```json\n{json.dumps(shown, indent=2)}\n```\n"


def _fields() -> Iterator[str]:
    for title, model in _MODELS:
        yield f"## {title}\n"
        yield from described(model)
