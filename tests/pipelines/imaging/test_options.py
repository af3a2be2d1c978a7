"""The command line, as documents use it."""

from __future__ import annotations

from pipelines import catalogue
from pipelines.imaging.options import parser

DECIDED = {
    *("help", "dataset", "output", "target", "applycal"),  # by what was observed
    *("task", "quality_queue"),  # by the workflow
    *("sources", "picture"),  # a yes or no: options without a value
}


def test_documents_can_choose_what_the_workflow_does_not_decide() -> None:
    options = {action.dest for action in parser()._actions}
    assert options - DECIDED == catalogue.IMAGER_PARAMETERS
