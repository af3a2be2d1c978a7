"""Sensors of ingest, and the state that they add up to."""

from __future__ import annotations

import time
from typing import Final

import aiokatcp

from pipelines.common.program import ProgramServer
from pipelines.ingest.capture import CaptureBlock
from pipelines.ingest.layout import OutputLayout
from pipelines.ingest.place import REJECTIONS, HeapClass
from pipelines.ingest.receive import HeapStream

LOSS_MEMORY: Final = 10.0
"""Seconds for which a loss keeps the state at degraded."""
REASONS: Final = (
    *(c.name.lower().replace("_", "-") for c in REJECTIONS),
    "incomplete",
    "contradicted",
    "off-grid",
    "past",
)
"""Why heaps of a capture block are thrown away."""


def rejections(block: CaptureBlock) -> dict[str, int]:
    """Return the heaps that were thrown away, by reason: the callback's, spead2's, the block's."""
    classes, counts = block.stream.classes(), block.counts
    numbers = [classes[c] for c in REJECTIONS]
    numbers += [block.stream.incomplete, counts.contradicted, counts.off_grid, counts.past]
    return dict(zip(REASONS, numbers, strict=True))


_BAD: Final = {"input-heaps-lost": 0, "input-samples-saturated": 0}
"""Figures that are not as they should be above these."""


class IngestSensors:
    """Keeps the server's sensors; figures are of the current capture block, or else of the last one."""

    def __init__(self, server: ProgramServer, layout: OutputLayout, sync_time: float) -> None:
        self._server = server
        self._layout = layout
        self._sync_time = sync_time
        add = server.add_sensor
        self._block_id = add(str, "capture-block-id", "Capture block in progress, or empty")
        self._integers = {
            name: add(int, name, description, default=0, warn_above=_BAD.get(name))
            for name, description in _INTEGERS.items()
        }
        self._rejected = {
            reason: add(int, f"input-heaps-rejected.{reason}", "Input heaps thrown away", default=0)
            for reason in REASONS
        }
        self._flagged = add(float, "flagged-fraction", "Part of the output that has a flag")
        self._rfi = add(float, "rfi-fraction", "Part of the received input with interference")
        self._rate = add(float, "input-rate", "Data of good input heaps", units="B/s")
        self._last = add(aiokatcp.Timestamp, "last-timestamp", "Start of the newest input dump")
        self._previous = (0.0, 0)
        self._bad = 0
        self._bad_since = -LOSS_MEMORY

    def begin(self, cbid: str) -> None:
        """Start over for a new capture block."""
        self._block_id.value = cbid
        for sensor in (*self._integers.values(), *self._rejected.values()):
            if sensor.name != "input-heaps-idle":
                sensor.value = 0
        self._flagged.value = self._rfi.value = self._rate.value = 0.0
        self._previous = (time.monotonic(), 0)
        self._bad = 0
        self._bad_since = -LOSS_MEMORY
        self._server.set_device_status(aiokatcp.DeviceStatus.OK, f"capture block {cbid} begins")

    def end(self) -> None:
        """Say that no capture is in progress; the figures stay."""
        self._block_id.value = ""
        self._rate.value = 0.0

    def add_idle(self, heaps: int) -> None:
        """Count heaps that came while no capture was in progress."""
        self._integers["input-heaps-idle"].value += heaps

    def update(self, block: CaptureBlock) -> None:
        """Bring all sensors up to date."""
        counts, account = block.counts, block.counts.account
        rejected = rejections(block)
        values = {
            "input-heaps-total": account.received,
            "input-heaps-lost": account.lost,
            "input-heaps-rejected": sum(rejected.values()),
            "input-samples-saturated": counts.saturated_samples,
            "input-dumps": account.dumps,
            "input-dumps-early": counts.early_dumps,
            "output-dumps-total": counts.output_dumps,
            "output-heaps-total": counts.output_dumps,
        }
        for name, value in values.items():
            self._integers[name].value = value
        for reason, number in rejected.items():
            self._rejected[reason].value = number
        self._flagged.value = counts.flagged_samples / max(1, counts.output_samples)
        self._rfi.value = counts.rfi_samples / max(1, counts.samples - counts.lost_samples)
        if counts.last_timestamp is not None:
            self._last.value = aiokatcp.Timestamp(self._sync_time + counts.last_timestamp)
        self._update_rate(block.stream)
        # Repetitions do no harm, and an incomplete heap that is wanted is among the lost.
        harmless = rejected["duplicate"] + rejected["incomplete"]
        self._judge(account.lost + sum(rejected.values()) - harmless)

    def _update_rate(self, stream: HeapStream) -> None:
        now, heaps = time.monotonic(), stream.classes()[HeapClass.ACCEPTED]
        before, old = self._previous
        if now > before:
            self._rate.value = (heaps - old) * self._layout.source.heap_bytes / (now - before)
            self._previous = (now, heaps)

    def _judge(self, bad: int) -> None:
        """Set the state of the whole by whether heaps were lost or thrown away of late."""
        now = time.monotonic()
        if bad > self._bad:
            self._bad_since = now
            self._server.set_device_status(
                aiokatcp.DeviceStatus.DEGRADED, f"{bad} heaps lost or thrown away in this block"
            )
        elif now - self._bad_since > LOSS_MEMORY:
            self._server.set_device_status(aiokatcp.DeviceStatus.OK, "no heap lost of late")
        self._bad = bad


_INTEGERS: Final = {
    "input-heaps-total": "Good heaps received in this capture block",
    "input-heaps-lost": "Heaps missing between the first and the last dump seen",
    "input-heaps-rejected": "Heaps thrown away, for all reasons",
    "input-heaps-idle": "Heaps that came while no capture was in progress",
    "input-samples-saturated": "Samples (of a product, channel and dump) that the correlator clipped",
    "input-dumps": "Input dumps of which at least one heap came",
    "input-dumps-early": "Input dumps before the first one that all ingests agreed on",
    "output-dumps-total": "Output dumps sent",
    "output-heaps-total": "Output heaps sent, one per dump",
}
