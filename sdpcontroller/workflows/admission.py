"""What is looked at before anything is recorded: whether all that a document asks for would be done.

A document that is right in form may ask for what no workflow makes, or name a task that its graph has not; the
override of a capture block may change what has been running for long. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sdpcontroller.config import ContinuumImage, ProductConfig, SpectralImage
from sdpcontroller.config.options import Options
from sdpcontroller.config.problems import Problem
from sdpcontroller.workflows import realtime, refusals
from sdpcontroller.workflows.plan import Workflow

ANY_ADDRESS: Final = "239.0.0.1"
"""Stands for multicast addresses where none are taken."""

_OF_BLOCKS: Final = (ContinuumImage, SpectralImage)
"""Outputs that are made of a capture block when it has ended."""
_OPTIONS_OF_BLOCKS: Final = frozenset({"image_tag", "image_overrides"})
"""Options that programs heed which begin when a capture block has ended."""


def check(config: ProductConfig) -> None:
    """Refuse a configuration of which not all would be done.

    Raises
    ------
    ConfigError
        One line per problem: path, value, rule, suggestion.
    """
    checked_workflow(config, "check")


def checked_workflow(config: ProductConfig, product: str) -> Workflow:
    """Return the real-time workflow that a product would have, with addresses that stand for real ones.

    Raises
    ------
    ConfigError
        As :func:`check`.
    """
    groups = dict.fromkeys(realtime.multicast_needs(config), ANY_ADDRESS)
    workflow = realtime.build(config, product, groups)
    refusals.check_overrides(config, [task.name for task in workflow.graph.tasks])
    return workflow


def without_effect(config: ProductConfig, workflow: Workflow) -> list[str]:
    """Say, for people, which parts of a configuration change nothing in what it asks for."""
    kinds = [task.kind for task in workflow.graph.tasks]
    return [str(problem) for problem in refusals.images_without_program(config, kinds)]


def of_block(config: ProductConfig, override: Mapping[str, Any]) -> ProductConfig:
    """Return the configuration of one capture block: the product's, with what is made of the block changed.

    Parameters
    ----------
    override
        A JSON merge patch (RFC 7386).

    Raises
    ------
    ConfigError
        If the result is none, or differs in what runs already: that would change nothing.
    """
    changed = config.merged(override)
    refusals.refuse_if_any(_changes_of_what_runs(config, changed))
    check(changed)
    return changed


def _changes_of_what_runs(config: ProductConfig, changed: ProductConfig) -> Iterator[Problem]:
    told = changed.to_json()
    for part in ("version", "inputs", "simulation"):
        if getattr(config, part) != getattr(changed, part):
            yield _too_late((part,), told.get(part))
    for option in sorted(set(Options.model_fields) - _OPTIONS_OF_BLOCKS):
        if getattr(config.config, option) != getattr(changed.config, option):
            yield _too_late(("config", option), told.get("config", {}).get(option))
    for name in {**config.outputs, **changed.outputs}:
        streams = (config.outputs.get(name), changed.outputs.get(name))
        of_blocks = all(stream is None or isinstance(stream, _OF_BLOCKS) for stream in streams)
        if not of_blocks and streams[0] != streams[1]:
            yield _too_late(("outputs", name), told["outputs"].get(name))


def _too_late(path: tuple[str, ...], value: object) -> Problem:
    rule = (
        "cannot change for one capture block, it runs already: images can, and config.image_tag and "
        "config.image_overrides for their programs"
    )
    return Problem(path, rule, value)
