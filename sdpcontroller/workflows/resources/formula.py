"""What a declared formula is, and what one gives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipelines.catalogue import PYTHON_MIB
from scheduler.requests import TaskRequest
from sdpcontroller.errors import ConfigError
from sdpcontroller.workflows.resources.sizes import MIB

UNITS: Final = ("CPU", "cores", "MiB", "Mbit/s")


@dataclass(frozen=True, slots=True)
class Formula:
    """How much of one resource a program needs, as a function of its streams."""

    program: str
    """Kind of program, as in the catalogue."""
    resource: str
    """``cpus``, ``pinned`` cores, ``mem``, ``NETWORK in`` or ``NETWORK out``."""
    unit: str
    why: str
    """What the amount consists of, for people."""
    source: str
    """Where it is known from: what says so, or what measured it."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount that a task asks for, and what it was computed from."""

    formula: Formula
    inputs: Mapping[str, float]
    value: float

    def __str__(self) -> str:
        inputs = ", ".join(f"{name} {value:g}" for name, value in self.inputs.items())
        amount = f"{self.formula.resource} {self.value:g} {self.formula.unit}"
        return f"{amount}: {self.formula.why}" + (f" ({inputs})" if inputs else "")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a task asks for, and why."""

    request: TaskRequest
    quantities: tuple[Quantity, ...]


FORMULAS: Final[dict[tuple[str, str], Formula]] = {}
"""All that are declared, by program and resource."""


def formula(
    program: str, resource: str, unit: str, *, why: str, source: str
) -> Callable[[Callable[..., float]], Callable[..., Quantity]]:
    """Declare a formula: the function decorated takes its inputs by name and gives a :class:`Quantity`.

    Raises
    ------
    ConfigError
        When it is called and the amount is no number of 0 or more.
    """
    if unit not in UNITS:
        raise ValueError(f"{program}.{resource}: unit {unit!r} is none of {', '.join(UNITS)}")
    declared = Formula(program, resource, unit, why, source)
    FORMULAS[program, resource] = declared

    def decorate(compute: Callable[..., float]) -> Callable[..., Quantity]:
        """Return the formula's function, which gives quantities that know what they were computed from."""

        @functools.wraps(compute)
        def evaluate(**inputs: Any) -> Quantity:
            value = float(compute(**inputs))
            if not 0 <= value < math.inf:
                raise ConfigError(f"{program} would need {value:g} {unit} of {resource}")
            return Quantity(declared, {name: float(x) for name, x in inputs.items()}, value)

        return evaluate

    return decorate


def memory(
    program: str, *, why: str, source: str, interpreter: float = PYTHON_MIB
) -> Callable[[Callable[..., float]], Callable[..., Quantity]]:
    """Declare how much memory a program needs, as :func:`formula`; the function gives the bytes of its arrays.

    Parameters
    ----------
    interpreter
        What it has resident besides, MiB.
    """

    def decorate(arrays: Callable[..., float]) -> Callable[..., Quantity]:
        """Return the formula that adds the interpreter to the bytes of arrays, rounded up to whole MiB."""

        @functools.wraps(arrays)
        def whole(**inputs: Any) -> float:
            return math.ceil(interpreter + arrays(**inputs) / MIB)

        return formula(program, "mem", "MiB", why=why, source=source)(whole)

    return decorate
