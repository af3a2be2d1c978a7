"""``sdp resources``: what a configuration asks for, and why."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from sdpcontroller import config
from sdpcontroller.cli.controller import console, print_json
from sdpcontroller.cli.products import read_document
from sdpcontroller.cli.service import fail
from sdpcontroller.errors import ControllerError
from sdpcontroller.workflows import imaging
from sdpcontroller.workflows.admission import checked_workflow, without_effect
from sdpcontroller.workflows.imaging import ImagingPlan
from sdpcontroller.workflows.plan import Workflow
from sdpcontroller.workflows.totals import row, totals


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "resources",
        help="say what a product configuration asks of the cluster",
        description="Print what each task of a configuration asks for, and the totals. Needs no "
        "controller.",
    )
    parser.add_argument("config", help="file with the product configuration (JSON); - for stdin")
    parser.add_argument(
        "--why", action="store_true", help="print every formula with its inputs, reason and source"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    try:
        document = config.parse(read_document(options.config))
        workflow = checked_workflow(document, "product")
    except (ControllerError, OSError) as exc:
        return fail(exc)
    sys.stderr.writelines(f"note: {note}\n" for note in without_effect(document, workflow))
    images = imaging.of_one_target(document, "product", imaging.least_time(document))
    if options.json:
        print_json({**as_data(workflow), "postprocessing": as_data(images)})
    elif options.why:
        sys.stdout.writelines(f"{line}\n" for part in (workflow, images) for line in reasons(part))
    else:
        console().print(table(workflow))
        if images.graph.tasks:
            console().print("\nWhen a capture block has ended, for each target:\n")
            console().print(table(images))
    return 0


def as_data(workflow: Workflow | ImagingPlan) -> dict[str, Any]:
    """Return tasks, totals and quantities as plain data."""
    rows = {task.name: row(task.request) for task in workflow.graph.tasks}
    return {
        "tasks": {
            name: {
                "request": amounts,
                "quantities": [
                    {
                        "resource": quantity.formula.resource,
                        "value": quantity.value,
                        "unit": quantity.formula.unit,
                        "inputs": dict(quantity.inputs),
                        "why": quantity.formula.why,
                        "source": quantity.formula.source,
                    }
                    for quantity in workflow.asked[name]
                ],
            }
            for name, amounts in rows.items()
        },
        "total": totals(rows.values()),
    }


def table(workflow: Workflow | ImagingPlan) -> Table:
    """Return the table of tasks and totals; columns that are empty are left out."""
    rows = {task.name: row(task.request) for task in workflow.graph.tasks}
    total = totals(rows.values())
    columns = [column for column, amount in total.items() if amount]
    result = Table("task", box=None, pad_edge=False, show_footer=True)
    result.columns[0].footer = "total"
    result.columns[0].no_wrap = True
    for column in columns:
        result.add_column(column, f"{total[column]:,.10g}", justify="right")
    for name, amounts in rows.items():
        cells = (amounts.get(column, 0) for column in columns)
        result.add_row(name, *(f"{cell:,.10g}" if cell else "" for cell in cells))
    return result


def reasons(workflow: Workflow | ImagingPlan) -> Iterator[str]:
    """Yield lines that say why each task asks for what it asks for."""
    for task in workflow.graph.tasks:
        yield task.name
        for quantity in workflow.asked[task.name]:
            yield f"    {quantity}"
            yield f"        source: {quantity.formula.source}"
