"""What is told of batch graphs that failed."""

from __future__ import annotations

from scheduler.task import Death, Outcome
from scheduler.views import BatchResult, NodeResult
from sdpcontroller.products.postprocessing import failure


def test_a_failure_names_what_was_tried_what_was_not_and_what_does_not_end() -> None:
    death = Death(Outcome.FAILED, "exited with status 4")
    nodes = (
        NodeResult(name="fine", attempts=1, death=Death(Outcome.FINISHED, "done")),
        NodeResult(name="broken", attempts=2, death=death, log_tail=("no space left",)),
        NodeResult(name="after", attempts=0, death=None, skipped="broken did not finish"),
        NodeResult(name="stuck", attempts=1, death=None, left="stuck.0 on host a does not end"),
    )
    result = BatchResult("g", {node.name: node for node in nodes}, ("broken", "after", "stuck"))
    assert failure(result).split("; ") == [
        "broken after 2 attempts: failed: exited with status 4 | no space left",
        "after was not run: broken did not finish",
        "stuck after 1 attempts: stuck.0 on host a does not end",
    ]
