"""Product configurations for the end-to-end tests: the demonstration's, and changes to it."""

from __future__ import annotations

from typing import Any

from sdpcontroller.cli import demo_config
from sdpcontroller.config.document import merge

SIMULATOR = f"sim.{demo_config.CORRELATION}"


def document(**changes: Any) -> dict[str, Any]:
    """The demonstration's configuration, with a merge patch (RFC 7386) applied."""
    observation = demo_config.simulated(seconds=10, calibrator_seconds=5)
    changed: dict[str, Any] = merge(observation.document, changes)
    return changed


def with_stream(stream: str, **fields: Any) -> dict[str, Any]:
    """The demonstration's configuration with other fields of one output."""
    return document(outputs={stream: fields})


def with_setting(task: str, **settings: Any) -> dict[str, Any]:
    """The demonstration's configuration with settings of one task overridden."""
    return document(config={"service_overrides": {task: {"config": settings}}})
