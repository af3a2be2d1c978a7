"""Kinds of values that fields of a product configuration have.

JSON's ``true`` is not a number and ``"1"`` is not one either: scalars are strict. A number stays as it was
written (``856000000`` does not become ``856000000.0``), so that a document survives the round trip.
Every bound exists so that no document can ask for something absurd; what is refused beyond that is decided by
:mod:`sdpcontroller.config.checks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, WrapValidator

MAX_NUMBER = 1e18
"""Largest number of any unit: beyond it nothing physical lies (Hz, seconds, counts)."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
"""Names become parts of KATCP sensor names, telescope state keys, task names and folders."""


def _as_written(value: Any, check: Callable[[Any], float]) -> Any:
    check(value)
    return value


class Model(BaseModel):
    """Base of every object in the document: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Number = Annotated[
    float,
    Field(strict=True, ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False),
    WrapValidator(_as_written),
]
"""Any finite number."""
Positive = Annotated[
    float,
    Field(strict=True, gt=0, le=MAX_NUMBER, allow_inf_nan=False),
    WrapValidator(_as_written),
]
"""A finite number above zero."""
NonNegative = Annotated[
    float,
    Field(strict=True, ge=0, le=MAX_NUMBER, allow_inf_nan=False),
    WrapValidator(_as_written),
]
"""A finite number, zero or above."""
Count = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
"""An integer above zero."""
Index = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
"""An integer, zero or above."""
Flag = StrictBool
"""true or false."""
Text = Annotated[str, Field(strict=True, min_length=1, max_length=4096)]
"""A string that is not empty."""
Name = Annotated[str, Field(strict=True, pattern=NAME_PATTERN)]
"""Letters, digits, ``_`` and ``-``; at most 63."""
ChannelRange = Annotated[tuple[Index, Index], Field(description="[first, last + 1).")]
"""Half-open range of channels."""
