"""What the streams are: attributes in telescope state as frozen values that check themselves.

The source of a stream publishes its description, everybody else loads it. Publishing the same twice is fine
(a program that was restarted); publishing something else is an error, since keys are immutable.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Self

import numpy as np
from katsdptelstate.aio.telescope_state import TelescopeState
from numpy.typing import NDArray

from pipelines.common import telstate as ts
from pipelines.common.baselines import BlsOrdering, parse_ordering
from pipelines.common.errors import StreamError
from pipelines.common.spead import TIMESTAMP_MODULUS

MAX_CHANNELS: Final = 1 << 20


@dataclass(frozen=True)
class _Stream:
    """What both kinds of stream have; each field is the key of that name in the stream's view."""

    READY_KEY: ClassVar[str]
    """The key that is published last: where it is, all are."""

    name: str
    """Name of the stream; not a key."""
    n_chans: int
    bandwidth: float
    """Hz, of all channels together."""
    center_freq: float
    """Sky frequency of channel ``n_chans // 2``, Hz (katdal's convention)."""
    sync_time: float
    """Unix time from which timestamps count, s."""
    int_time: float
    """Time between the starts of dumps, s."""
    bls_ordering: BlsOrdering

    def __post_init__(self) -> None:
        self._require(1 <= self.n_chans <= MAX_CHANNELS, f"n_chans is {self.n_chans}")
        for key in ("bandwidth", "center_freq", "int_time"):
            self._require(getattr(self, key) > 0, f"{key} is {getattr(self, key)}")
        self._require(self.sync_time >= 0, f"sync_time is {self.sync_time}")
        parse_ordering(self.bls_ordering)

    def _require(self, good: bool, message: str) -> None:
        if not good:
            raise StreamError(f"stream {self.name!r}: {message}, which cannot be")

    @property
    def n_bls(self) -> int:
        """Number of products."""
        return len(self.bls_ordering)

    @property
    def channel_width(self) -> float:
        """Hz."""
        return self.bandwidth / self.n_chans

    @cached_property
    def channel_freqs(self) -> NDArray[np.float64]:
        """Sky frequencies of the centres of the channels, Hz, shape (n_chans,)."""
        offsets = np.arange(self.n_chans) - self.n_chans // 2
        return np.asarray(self.center_freq + offsets * self.channel_width, dtype=np.float64)

    @classmethod
    async def load(
        cls, telstate: TelescopeState, name: str, timeout: float = ts.WAIT_TIMEOUT
    ) -> Self:
        """Load and check the description of stream `name`, waiting until it is published.

        Raises
        ------
        TelstateError
            It is not there in time, or incomplete.
        StreamError
            It is there and wrong; the message names the stream and the key.
        """
        view = telstate.view(name)
        await ts.wait(view, cls.READY_KEY, timeout)
        values: dict[str, Any] = {"name": name}
        for field in dataclasses.fields(cls):
            if field.name != "name":
                values[field.name] = _convert(
                    field.name, str(field.type), await ts.get(view, field.name), name
                )
        return cls(**values)

    async def publish(self, telstate: TelescopeState) -> None:
        """Write the description to the stream's view.

        Raises
        ------
        TelstateError
            Another description is there already, or the server does not answer.
        """
        view = telstate.view(self.name)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["name"]
        values["n_bls"] = self.n_bls
        # Tuples and lists are different to telescope state; lists are what other writers use.
        values["bls_ordering"] = [list(pair) for pair in self.bls_ordering]
        if "src_streams" in values:
            values["src_streams"] = list(values["src_streams"])
        last = values.pop(self.READY_KEY)
        for key, value in values.items():
            await ts.publish(view, key, value)
        await ts.publish(view, self.READY_KEY, last)


@dataclass(frozen=True)
class CorrelatorStream(_Stream):
    """A ``baseline_correlation_products`` stream."""

    READY_KEY = "scale"

    n_chans_per_substream: int
    n_accs: int
    """Spectra in a dump."""
    scale_factor_timestamp: float
    """ADC samples per second, the unit of timestamps."""
    ticks_between_spectra: int
    """ADC samples from one spectrum to the next."""
    scale: float
    """Jy of the model before gains, per count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("scale_factor_timestamp", "scale"):
            self._require(getattr(self, key) > 0, f"{key} is {getattr(self, key)}")
        for key in ("n_chans_per_substream", "n_accs", "ticks_between_spectra"):
            self._require(getattr(self, key) >= 1, f"{key} is {getattr(self, key)}")
        self._require(
            self.n_chans % self.n_chans_per_substream == 0,
            f"{self.n_chans} channels in substreams of {self.n_chans_per_substream}",
        )
        self._require(
            self.dump_ticks < TIMESTAMP_MODULUS // 2, f"dump of {self.dump_ticks} samples"
        )
        self._require(
            math.isclose(
                self.dump_ticks / self.scale_factor_timestamp, self.int_time, rel_tol=1e-9
            ),
            f"int_time {self.int_time} with dumps of {self.dump_ticks} samples",
        )

    @property
    def n_substreams(self) -> int:
        """Number of substreams, each with one heap per dump."""
        return self.n_chans // self.n_chans_per_substream

    @property
    def dump_ticks(self) -> int:
        """ADC samples from one dump to the next."""
        return self.n_accs * self.ticks_between_spectra

    @property
    def heap_bytes(self) -> int:
        """Size of the data of one heap."""
        return self.n_chans_per_substream * self.n_bls * 8

    def endpoint_index(self, substream: int, n_endpoints: int) -> int:
        """Endpoint that a substream is sent to."""
        return substream * n_endpoints // self.n_substreams


@dataclass(frozen=True)
class VisStream(_Stream):
    """An ``sdp.vis`` stream (L0)."""

    READY_KEY = "bls_ordering"

    src_streams: tuple[str, ...]
    excise: bool = True
    need_weights_power_scale: bool = False


def _convert(key: str, kind: str, value: Any, stream: str) -> Any:
    """Value of telescope state as the type of a field, or an error that names the key."""
    try:
        return _CONVERTERS[kind](value)
    except (TypeError, ValueError, OverflowError, StreamError) as exc:
        raise StreamError(f"stream {stream!r}: {key} is {value!r:.100}: {exc}") from exc


def _integer(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or int(value) != value:
        raise ValueError("expected a whole number")
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, str | bytes | bool) or not math.isfinite(float(value)):
        raise ValueError("expected a finite number")
    return float(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError("expected true or false")
    return bool(value)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise TypeError("expected a list of names")
    return tuple(value)


_CONVERTERS: Final = {
    "int": _integer,
    "float": _real,
    "bool": _boolean,
    "tuple[str, ...]": _names,
    "BlsOrdering": parse_ordering,
}
