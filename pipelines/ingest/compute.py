"""The arithmetic of ingest behind one interface of plain arrays: counts of a dump in, averages of L0 out.

:class:`Processor` is the seam at which another device takes over: nothing else in ingest touches a sample.
:class:`Averager` does it on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pipelines.common.rfi import FlaggerSettings
from pipelines.common.rfi_lanes import flag_products
from pipelines.common.spead import FLAG_DATA_LOST, FLAG_INGEST_RFI, FLAG_SATURATED
from pipelines.ingest import kernels
from pipelines.ingest.layout import OutputLayout
from pipelines.ingest.weights import Weighting, add_powers, mean_powers, weigh

T = TypeVar("T")


@dataclass(slots=True)
class L0Dump:
    """One output dump of one ingest; the arrays are reused."""

    vis: npt.NDArray[np.complex64]
    """(chan, bls), Jy."""
    flags: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.uint8]
    weights_channel: npt.NDArray[np.float32]
    """(chan,); the weight of a sample is ``weights * weights_channel``, its inverse variance."""
    index: int = 0
    timestamp: float = 0.0
    """Centre, seconds since ``sync_time``."""
    flagged: int = 0
    """Samples with a flag."""

    @classmethod
    def empty(cls, layout: OutputLayout) -> L0Dump:
        """Return a dump of the right shape, its memory touched."""
        shape = (len(layout.channels), layout.source.n_bls)
        return cls(
            np.ones(shape, np.complex64),
            np.ones(shape, np.uint8),
            np.ones(shape, np.uint8),
            np.ones(shape[0], np.float32),
        )

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        arrays = (self.vis, self.flags, self.weights, self.weights_channel)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True, slots=True)
class DumpStatistics:
    """What was found in one input dump."""

    samples: int
    lost: int
    saturated: int
    rfi: int


class Processor(Protocol):
    """Makes output dumps of input dumps. Its methods block, one of them at a time: call them in a thread."""

    def add(self, counts: npt.NDArray[np.int32], present: npt.NDArray[np.uint8]) -> DumpStatistics:
        """Flag one input dump and add it to the running output dump.

        Parameters
        ----------
        counts
            int32 (channel, product, 2) as received; rubbish where a heap is missing.
        present
            uint8 (heap,): 0 where a heap is missing.
        """

    def finish(self, out: L0Dump) -> None:
        """Write the running output dump to `out` and begin a new one."""

    def reset(self) -> None:
        """Forget the running output dump."""


@dataclass(slots=True)
class Averager:
    """Scales, flags and averages the dumps of one ingest: a :class:`Processor`."""

    layout: OutputLayout
    excise: bool
    order: npt.NDArray[np.int64] | None = None
    """The input product of each output product; None: the same order."""
    weighting: Weighting | None = None
    """Of the output products; None: they weigh as much as the number of their samples."""
    flagger: FlaggerSettings = field(default_factory=FlaggerSettings)
    workers: int = 1
    """Threads that share the work on one dump."""
    _vis: npt.NDArray[np.complex64] = field(init=False)
    _flags: npt.NDArray[np.uint8] = field(init=False)
    _total: npt.NDArray[np.complex64] = field(init=False)
    _count: npt.NDArray[np.uint32] = field(init=False)
    _seen: npt.NDArray[np.uint8] = field(init=False)
    _weighting: Weighting = field(init=False)
    _power: npt.NDArray[np.float32] = field(init=False)
    _power_count: npt.NDArray[np.uint32] = field(init=False)
    _pool: ThreadPoolExecutor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        n_bls = self.layout.source.n_bls
        if self.order is None:
            self.order = np.arange(n_bls)
        shape_in = (len(self.layout.source.channels), n_bls)
        shape_out = (len(self.layout.channels), n_bls)
        self._vis = np.ones(shape_in, np.complex64)
        self._flags = np.ones(shape_in, np.uint8)
        self._total = np.full(shape_out, 0, np.complex64)
        self._count = np.full(shape_out, 0, np.uint32)
        self._seen = np.full(shape_out, 0, np.uint8)
        self._weighting = self.weighting or Weighting.equal(n_bls)
        shape_powers = (shape_out[0], len(self._weighting.autos))
        self._power = np.full(shape_powers, 0, np.float32)
        self._power_count = np.full(shape_powers, 0, np.uint32)
        if self.workers > 1:
            self._pool = ThreadPoolExecutor(self.workers, "averager")

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return self._vis.nbytes + self._flags.nbytes + sum(array.nbytes for array in self._sums)

    @property
    def _sums(self) -> tuple[npt.NDArray[Any], ...]:
        """What is summed up for the running output dump."""
        return self._total, self._count, self._seen, self._power, self._power_count

    def add(self, counts: npt.NDArray[np.int32], present: npt.NDArray[np.uint8]) -> DumpStatistics:
        """Flag one input dump and add it to the running output dump, as :class:`Processor` says."""
        source = self.layout.source
        unpacked = self._spread(
            len(source.channels),
            lambda a, b: kernels.unpack(
                counts, present, self.order, source.scale, a, b, self._vis, self._flags
            ),
        )
        lost, saturated = (sum(part) for part in zip(*unpacked, strict=True))
        found = sum(self._spread(source.n_bls, self._flag))
        self._spread(len(self.layout.channels), self._accumulate)
        return DumpStatistics(self._vis.size, lost, saturated, found)

    def finish(self, out: L0Dump) -> None:
        """Write the running output dump to `out` and begin a new one."""
        powers = mean_powers(self._power, self._power_count)
        self._power[:], self._power_count[:] = 0, 0
        flagged = self._spread(
            len(self.layout.channels), lambda a, b: self._conclude(a, b, powers, out)
        )
        out.flagged = sum(flagged)

    def reset(self) -> None:
        """Forget the running output dump."""
        for array in self._sums:
            array[...] = 0

    def warm_up(self) -> None:
        """Compile everything, by a dump without data, so that the first real one is not late."""
        source = self.layout.source
        counts = np.zeros((len(source.channels), source.n_bls, 2), np.int32)
        self.add(counts, np.ones(source.n_heaps, np.uint8))
        self.finish(L0Dump.empty(self.layout))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    @property
    def _reject(self) -> int:
        # A clipped count is no measurement, whatever is made of interference.
        return FLAG_DATA_LOST | FLAG_SATURATED | (FLAG_INGEST_RFI if self.excise else 0)

    def _flag(self, start: int, stop: int) -> int:
        # The rounding of a count is uniform, 0.29 of a count; a whole one keeps well clear of it.
        settings, floor = self.flagger, self.layout.source.scale
        found: int = flag_products(
            self._vis, self._flags, start, stop, settings.half_width, settings.n_sigma,
            settings.falloff, settings.doublings, floor,
        )  # fmt: skip
        return found

    def _accumulate(self, start: int, stop: int) -> None:
        factor = self.layout.continuum_factor
        kernels.accumulate(
            self._vis, self._flags, self._reject, factor, start, stop,
            self._total, self._count, self._seen,
        )  # fmt: skip
        add_powers(
            self._vis, self._flags, self._weighting.autos, factor, start, stop,
            self._power, self._power_count,
        )  # fmt: skip

    def _conclude(self, start: int, stop: int, powers: npt.NDArray[np.float32], out: L0Dump) -> int:
        flagged: int = kernels.conclude(
            self._total, self._count, self._seen, self._reject, start, stop, out.vis, out.flags
        )
        weigh(
            self._count, powers, self._weighting.inputs, self._weighting.information, start, stop,
            out.weights, out.weights_channel,
        )  # fmt: skip
        return flagged

    def _spread(self, n: int, work: Callable[[int, int], T]) -> list[T]:
        """Call `work` on parts of ``range(n)``, side by side if there are workers; return what it returned."""
        if self._pool is None:
            return [work(0, n)]
        edges = np.linspace(0, n, self.workers + 1).astype(int)
        return list(self._pool.map(work, edges[:-1].tolist(), edges[1:].tolist()))
