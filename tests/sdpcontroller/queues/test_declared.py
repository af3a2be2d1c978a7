"""Queues as an observatory declares them: what is read, what is refused and how, who waits where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.policy import BATCH, REALTIME, Limits, Order, Queue
from sdpcontroller.errors import ConfigError
from sdpcontroller.queues import BUILT_IN, Assigned, QueueInUse, Work, parse, read
from sdpcontroller.queues.__main__ import main
from sdpcontroller.queues.reference import json_schema

DOCS = Path(__file__).parents[3] / "docs" / "reference"
DOCUMENT: dict[str, Any] = {
    "roles": ["sdp", "sdp/batch"],
    "queues": {
        "realtime": {"priority": 100, "preempts": True},
        "engineering": {"priority": 50, "order": "deadline", "backfill": False},
        "batch": {
            "preemptible": True,
            "roles": ["sdp/batch"],
            "limits": {"cpus": 64, "gpus": 1.5, "mem_mib": 1e5, "tasks": 9},
        },
        "spare": {"priority": -5},
    },
    "rules": [
        {"product": "eng_*", "products": "engineering", "postprocessing": "spare"},
        {"product": "*", "postprocessing": "batch"},
    ],
}
TOML = """
roles = ["sdp", "sdp/batch"]

[queues.realtime]
priority = 100
preempts = true

[queues.engineering]
priority = 50
order = "deadline"
backfill = false

[queues.batch]
preemptible = true
roles = ["sdp/batch"]
limits = { cpus = 64, gpus = 1.5, mem_mib = 1e5, tasks = 9 }

[queues.spare]
priority = -5

[[rules]]
product = "eng_*"
products = "engineering"
postprocessing = "spare"

[[rules]]
product = "*"
postprocessing = "batch"
"""


def text(**changes: Any) -> str:
    return json.dumps(DOCUMENT | changes)


def test_what_is_declared_is_what_the_scheduler_gets_the_highest_first() -> None:
    realtime, engineering, batch, spare = parse(text()).declared()
    assert realtime == Queue(name="realtime", priority=100, preempts=True)
    assert (engineering.order, engineering.backfill) == (Order.DEADLINE, False)
    assert batch.limits == Limits(tasks=9000, cpus=64_000, mem=100_000_000, gpus=1500)
    assert (batch.roles, batch.preemptible) == (("sdp/batch",), True)
    assert spare.priority == -5


def test_the_same_in_toml(tmp_path: Path) -> None:
    file = tmp_path / "queues.toml"
    file.write_text(TOML)
    assert read(file) == parse(text())


def test_what_holds_without_a_file_is_what_the_scheduler_has_by_itself() -> None:
    assert BUILT_IN.declared() == (REALTIME, BATCH)
    assert BUILT_IN.problems() == []
    assert BUILT_IN.roles == ("sdp",)


def test_rules_come_before_the_kind_of_work() -> None:
    config = parse(text())
    waits = {
        product: [config.queue_of(work, product) for work in Work]
        for product in ("array_1", "eng_3", "ENG_3")
    }
    assert waits == {
        "array_1": ["realtime", "batch"],
        "eng_3": ["engineering", "spare"],
        "ENG_3": ["realtime", "batch"],
    }


PREEMPTED = {"batch": {"preemptible": True}, "realtime": {"priority": 1, "preempts": True}}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (
            text(work={"products": "realtme"}),
            "work.products: \"realtme\": is not among the queues; did you mean 'realtime'? "
            "(queues: realtime, engineering, batch, spare)",
        ),
        (
            text(rules=[{"product": "x", "products": "batch"}]),
            'rules[0].products: "batch": is a preemptible queue: a product\'s graph is never ended',
        ),
        (
            text(roles=["sdp"]),
            'queues.batch.roles[0]: "sdp/batch": is not among `roles`',
        ),
        (
            text(queues={"realtime": {"preempts": True}, "batch": {}}, rules=[]),
            "queues.realtime.preempts: true: ends nobody: no queue of lower priority is preemptible",
        ),
        (
            text(queues={"realtime": {"priority": 1}, "batch": {"preemptible": True}}, rules=[]),
            "queues.batch.preemptible: true: is ended for nobody",
        ),
        (
            text(queues=PREEMPTED | {"realtime": {"preempts": True}}, rules=[]),
            "ends nobody",  # of equal priority
        ),
        (
            text(queues={"realtime": {"preemptable": True}}),
            "queues.realtime.preemptable: is not a field here; did you mean 'preemptible'?",
        ),
        (text(queues={}), "queues: {}: "),
        (text(queues={"a b": {}}), "is no valid name"),
        (
            text(queues={"realtime": {"priority": 10**6}}),
            "queues.realtime.priority: 1000000: must be less than or equal to 1000",
        ),
        (
            text(queues={"realtime": {"limits": {"cpus": 0}}}),
            "queues.realtime.limits.cpus: 0: must be greater than 0",
        ),
        (text(queues={"realtime": {"order": "arival"}}), "did you mean 'arrival'?"),
        (text(rules=[{"products": "realtime"}]), "rules[0].product: is required: Names of"),
        ("{", "not JSON: line 1, column 2"),
        ('{"queues": {"a": {}, "a": {}}}', "stands twice"),
    ],
)
def test_what_is_wrong_is_told_with_path_value_rule_and_suggestion(
    document: str, told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(document)
    assert told in str(refused.value)


def test_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*gone\.json: No such file"):
        read(tmp_path / "gone.json")
    (tmp_path / "q.toml").write_text("queues = [")
    with pytest.raises(ConfigError, match=r"q\.toml: the document is not TOML"):
        read(tmp_path / "q.toml")
    (tmp_path / "q.json").write_text(text(roles=["other"], work={"products": "x"}))
    with pytest.raises(ConfigError) as refused:
        read(tmp_path / "q.json")
    lines = str(refused.value).splitlines()
    assert len(lines) == 2 and all(line.startswith(f"{tmp_path}/q.json: ") for line in lines)


def test_what_was_recorded_stays_as_long_as_there_is_such_a_queue() -> None:
    assigned = Assigned(parse(text()))
    assert assigned.still("spare", Work.PRODUCTS, "array_1") == QueueInUse("spare")
    gone = assigned.still("express", Work.PRODUCTS, "eng_1")
    assert gone == QueueInUse("engineering", instead_of="express")
    assert "queue express is not declared any more" in gone.note
    assert assigned.still("batch", Work.PRODUCTS, "x").name == "realtime", "it is preemptible now"
    assert assigned.still("", Work.POSTPROCESSING, "x") == QueueInUse("batch")


def test_people_are_told_what_each_queue_is_for() -> None:
    records = Assigned(parse(text())).records({"batch": [1.0, 7.5]})
    assert [(r.name, r.priority, r.waiting, r.oldest) for r in records] == [
        ("realtime", 100, 0, 0.0),
        ("engineering", 50, 0, 0.0),
        ("batch", 0, 2, 7.5),
        ("spare", -5, 0, 0.0),
    ]
    terms = {record.name: record.terms for record in records}
    assert terms["realtime"] == "for products; preempts"
    assert terms["engineering"] == "for products of eng_*; by deadline; no backfill"
    assert terms["batch"] == (
        "for postprocessing, postprocessing of *; preemptible; roles sdp/batch; "
        "at most 9 tasks, 64 cpus, 100000 mem_mib, 1.5 gpus"
    )


def test_the_files_in_docs_are_those_that_the_models_make(tmp_path: Path) -> None:
    main(tmp_path)
    for name in ("queues.md", "queues.schema.json"):
        message = f"docs/reference/{name} is stale: run python -m sdpcontroller.queues"
        assert (DOCS / name).read_text() == (tmp_path / name).read_text(), message
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert all(d["additionalProperties"] is False for d in schema["$defs"].values())
