"""The picture: the newest word of every task on every capture block. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipelines.common.quality import QualityRecord, Status

MAX_BLOCKS: Final = 16
"""Capture blocks that are kept, the newest."""
MAX_TASKS: Final = 1000
"""Tasks (and targets) of a block that are kept."""

_ORDER: Final[tuple[Status, ...]] = ("nominal", "unknown", "warn", "error")

Key = tuple[str, str]
"""Task and target."""


def worst(statuses: list[Status]) -> Status:
    """Return the worst of some statuses; nominal if there is none."""
    return max(statuses, key=_ORDER.index, default="nominal")


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known."""

    blocks: Mapping[str, Mapping[Key, QualityRecord]] = field(default_factory=dict)
    """Newest record by capture block, task and target."""

    def with_record(self, record: QualityRecord) -> Picture:
        """Return the picture with one more record; an older one than what is known changes nothing."""
        known = self.blocks.get(record.capture_block, {})
        key = (record.task, record.target)
        old = known.get(key)
        if (old is not None and old.time > record.time) or (
            old is None and len(known) >= MAX_TASKS
        ):
            return self
        blocks = {**self.blocks, record.capture_block: {**known, key: record}}
        newest = sorted(blocks, key=lambda block: int(block or 0))[-MAX_BLOCKS:]
        return Picture({block: blocks[block] for block in newest})

    @property
    def newest(self) -> str:
        """The newest capture block; empty if there is none."""
        return max(self.blocks, key=lambda block: int(block or 0), default="")

    def status(self, block: str) -> Status:
        """Return the worst that any task says of a block."""
        return worst([record.status for record in self.blocks.get(block, {}).values()])

    def complaints(self, block: str) -> list[str]:
        """Return what is not as it should be in a block, a line each."""
        lines = []
        for record in self.blocks.get(block, {}).values():
            for name, metric in record.metrics.items():
                if metric.status in ("warn", "error"):
                    amount = (
                        "unknown" if metric.value is None else f"{metric.value:g} {metric.units}"
                    )
                    about = f" of {record.target}" if record.target else ""
                    lines.append(
                        f"{record.task}: {name}{about} is {amount.strip()} ({metric.status})"
                    )
        return sorted(lines)

    def as_data(self, block: str) -> dict[str, Any]:
        """Return a block as plain data: stages, their tasks, their metrics."""
        stages: dict[str, dict[str, Any]] = {}
        for (task, target), record in sorted(self.blocks.get(block, {}).items()):
            name = f"{task} {target}".strip()
            stages.setdefault(record.stage, {})[name] = record.model_dump(
                include={"time", "stream", "metrics"}
            )
        return {
            "capture_block": block,
            "status": self.status(block),
            "complaints": self.complaints(block),
            "stages": stages,
        }
