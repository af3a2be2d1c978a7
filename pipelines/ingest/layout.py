"""Shapes, grids and units of what comes in and what goes out, as frozen values that check themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pipelines.common.baselines import BlsOrdering
from pipelines.common.stream_info import CorrelatorStream, VisStream
from pipelines.ingest.errors import LayoutError


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLayout:
    """One ingest's part of a correlation stream."""

    n_chans: int
    """Channels of the whole stream."""
    n_chans_per_substream: int
    n_bls: int
    """Products on the baseline axis."""
    channels: range
    """The channels of this ingest: whole substreams."""
    ticks_per_dump: int
    """ADC samples in one dump."""
    scale_factor_timestamp: float
    """ADC samples per second, Hz."""
    scale: float
    """Jy of model per count."""

    def __post_init__(self) -> None:
        for name in ("n_chans", "n_chans_per_substream", "n_bls", "ticks_per_dump"):
            if getattr(self, name) <= 0:
                raise LayoutError(
                    f"{name} of the input stream is {getattr(self, name)}, not positive"
                )
        if not self.scale_factor_timestamp > 0 or not self.scale > 0:
            raise LayoutError(
                "scale_factor_timestamp and scale of the input stream must be positive"
            )
        if self.n_chans % self.n_chans_per_substream:
            raise LayoutError(
                f"{self.n_chans} channels are not a whole number of substreams"
                f" of {self.n_chans_per_substream}"
            )
        _check_slice(
            "--channels", self.channels, self.n_chans, self.n_chans_per_substream, "substream"
        )

    @classmethod
    def of(cls, stream: CorrelatorStream, channels: range) -> Self:
        """Return the part of `stream` that has these channels."""
        return cls(
            n_chans=stream.n_chans,
            n_chans_per_substream=stream.n_chans_per_substream,
            n_bls=stream.n_bls,
            channels=channels,
            ticks_per_dump=stream.dump_ticks,
            scale_factor_timestamp=stream.scale_factor_timestamp,
            scale=stream.scale,
        )

    @property
    def n_heaps(self) -> int:
        """Substreams of this ingest: the heaps that make up one of its dumps."""
        return len(self.channels) // self.n_chans_per_substream

    @property
    def heap_bytes(self) -> int:
        """Payload of one heap: int32 real and imaginary counts."""
        return self.n_chans_per_substream * self.n_bls * 8

    @property
    def chunk_bytes(self) -> int:
        """Payload of one dump."""
        return self.n_heaps * self.heap_bytes

    @property
    def int_time(self) -> float:
        """Length of an input dump, s."""
        return self.ticks_per_dump / self.scale_factor_timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLayout:
    """What one ingest makes of its input: averages over `ratio` dumps and `continuum_factor` channels."""

    source: InputLayout
    output_channels: range
    """Correlator channels of the whole L0 stream, of which this ingest makes a part."""
    ratio: int
    """Input dumps per output dump."""
    continuum_factor: int

    def __post_init__(self) -> None:
        if self.ratio < 1 or self.continuum_factor < 1:
            raise LayoutError("the output needs at least one dump and one channel per average")
        whole, own = self.output_channels, self.source.channels
        _check_slice(
            "--output-channels", whole, self.source.n_chans, self.continuum_factor, "average"
        )
        if own.start < whole.start or own.stop > whole.stop:
            raise LayoutError(
                f"--channels {own.start}:{own.stop} lies outside of"
                f" --output-channels {whole.start}:{whole.stop}"
            )
        if (own.start - whole.start) % self.continuum_factor or len(own) % self.continuum_factor:
            raise LayoutError(
                f"--channels {own.start}:{own.stop} splits an average over"
                f" {self.continuum_factor} channels"
            )
        if len(self.channels) < 2 or len(self.channels) * self.source.n_bls < 8:
            # SPEAD would make immediate items of arrays this small, and receivers look for them in the payload.
            raise LayoutError("an ingest must make at least two output channels and eight samples")

    @property
    def n_chans(self) -> int:
        """Channels of the whole L0 stream."""
        return len(self.output_channels) // self.continuum_factor

    @property
    def channels(self) -> range:
        """L0 channels of this ingest."""
        start = (self.source.channels.start - self.output_channels.start) // self.continuum_factor
        return range(start, start + len(self.source.channels) // self.continuum_factor)

    @property
    def ticks_per_dump(self) -> int:
        """ADC samples in one output dump."""
        return self.ratio * self.source.ticks_per_dump

    @property
    def int_time(self) -> float:
        """True length of an output dump, s."""
        return self.ticks_per_dump / self.source.scale_factor_timestamp

    @property
    def heap_bytes(self) -> int:
        """Payload of an output heap: samples of 10 bytes, a float32 for each channel, the time."""
        return len(self.channels) * (self.source.n_bls * 10 + 4) + 8

    def frequency_axis(self, bandwidth: float, center_freq: float) -> tuple[float, float]:
        """Return (bandwidth, center_freq) of the L0 stream, Hz, for those of the correlation stream.

        Channel `k` of `n` has its centre at ``center_freq + (k - n // 2) * bandwidth / n`` (katdal), and an
        average stands at the mean of its channels.
        """
        width = bandwidth / self.source.n_chans
        first = self.output_channels.start + (self.continuum_factor - 1) / 2
        first_freq = center_freq + (first - self.source.n_chans // 2) * width
        out_width = width * self.continuum_factor
        return out_width * self.n_chans, first_freq + (self.n_chans // 2) * out_width

    def stream(
        self, name: str, source: CorrelatorStream, ordering: BlsOrdering, *, excise: bool
    ) -> VisStream:
        """Return the description of the L0 stream `name`, the same from each of its ingests."""
        bandwidth, center_freq = self.frequency_axis(source.bandwidth, source.center_freq)
        return VisStream(
            name=name,
            n_chans=self.n_chans,
            bandwidth=bandwidth,
            center_freq=center_freq,
            sync_time=source.sync_time,
            int_time=self.int_time,
            bls_ordering=ordering,
            src_streams=(source.name,),
            excise=excise,
        )


def dumps_per_output(output_int_time: float, int_time: float) -> int:
    """Return the whole number of input dumps whose length is nearest to `output_int_time` (s), at least 1."""
    if not output_int_time > 0:
        raise LayoutError(f"--output-int-time {output_int_time:g} is not positive")
    return max(1, round(output_int_time / int_time))


def _check_slice(option: str, channels: range, n_chans: int, step: int, what: str) -> None:
    text = f"{option} {channels.start}:{channels.stop}"
    if not 0 <= channels.start < channels.stop <= n_chans:
        raise LayoutError(f"{text} is empty or outside of the stream's {n_chans} channels")
    aligned = channels.start % step == 0 if what == "substream" else True
    if not aligned or len(channels) % step:
        raise LayoutError(f"{text} is not made of whole {what}s of {step} channels")
