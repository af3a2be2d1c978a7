"""The state machines of products and capture blocks, as tables.

Drawn in ``docs/architecture.md``. Pure: what may follow what, and what a product's state must be given the
states of its capture blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sdpcontroller.control import CaptureBlockState, ProductState
from sdpcontroller.errors import CommandError

_P = ProductState
_C = CaptureBlockState

PRODUCT_TRANSITIONS: Final[Mapping[ProductState, frozenset[ProductState]]] = {
    _P.CONFIGURING: frozenset({_P.IDLE, _P.ERROR, _P.DECONFIGURING, _P.DEAD}),
    _P.IDLE: frozenset({_P.CAPTURING, _P.DECONFIGURING, _P.ERROR}),
    _P.CAPTURING: frozenset({_P.IDLE, _P.DECONFIGURING, _P.ERROR}),
    _P.ERROR: frozenset({_P.DECONFIGURING}),
    _P.DECONFIGURING: frozenset({_P.POSTPROCESSING, _P.DEAD}),
    _P.POSTPROCESSING: frozenset({_P.DEAD}),
    _P.DEAD: frozenset(),
}

_WAY_OUT: Final[Mapping[ProductState, str]] = {
    _P.CONFIGURING: "wait until it is idle, or deconfigure it",
    _P.IDLE: "begin a capture first",
    _P.CAPTURING: "end the capture first",
    _P.ERROR: "deconfigure it",
    _P.DECONFIGURING: "it is on its way down",
    _P.POSTPROCESSING: "its tasks are gone",
    _P.DEAD: "configure it anew",
}
"""What to do in a state from which a product cannot go where it was asked to, for people."""

CAPTURE_BLOCK_TRANSITIONS: Final[Mapping[CaptureBlockState, frozenset[CaptureBlockState]]] = {
    _C.INITIALISING: frozenset({_C.CAPTURING, _C.BURNDOWN, _C.DEAD}),
    _C.CAPTURING: frozenset({_C.BURNDOWN, _C.DEAD}),
    _C.BURNDOWN: frozenset({_C.POSTPROCESSING, _C.DEAD}),
    _C.POSTPROCESSING: frozenset({_C.DEAD}),
    _C.DEAD: frozenset(),
}


def check_product(name: str, old: ProductState, new: ProductState) -> None:
    """Allow a transition of a product, or raise.

    Raises
    ------
    CommandError
        If `new` may not follow `old`.
    """
    if new not in PRODUCT_TRANSITIONS[old]:
        raise CommandError(
            f"product {name} is {old.value}: it cannot become {new.value}; {_WAY_OUT[old]}"
        )


def check_capture_block(cbid: str, old: CaptureBlockState, new: CaptureBlockState) -> None:
    """Allow a transition of a capture block, or raise.

    Raises
    ------
    CommandError
        If `new` may not follow `old`.
    """
    if new not in CAPTURE_BLOCK_TRANSITIONS[old]:
        raise CommandError(f"capture block {cbid} is {old.value}: it cannot become {new.value}")
