"""What packing reads of an agent, kept with the snapshot that it was read from.

Of a large cluster, few agents change from one attempt to the next; those that have not are not read again. An
offer pool has them read when it makes their snapshots (:func:`read_all`), so that no attempt has to.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, cast

import numpy as np

from scheduler.packing.arrays import MOST, Ints
from scheduler.packing.counting import Sets, packed
from scheduler.packing.shapes import Frame, frame_of
from scheduler.quantities import Ranges
from scheduler.topology import AgentSnapshot

_NOTHING: Final = Ranges()
_MOST_FREE: Final = MOST - 1


class Reading(NamedTuple):
    """One agent."""

    frame: Frame
    amounts: bytes
    """What is free of the scalar resources that are counted, 64 bits each, none larger than MOST - 1."""
    cores: Sets
    """One set: what is free of its cores; of its ports."""
    ports: Sets


def read(agent: AgentSnapshot) -> Reading:
    """Return what is to be known of an agent; read it, if that was not done yet."""
    try:
        return cast("Reading", agent.reading)
    except AttributeError:
        found = _read(agent)
        object.__setattr__(agent, "reading", found)
        return found


def read_all(agents: Iterable[AgentSnapshot]) -> None:
    """Read agents, if that was not done yet, so that packing need not."""
    for agent in agents:
        read(agent)


def _read(agent: AgentSnapshot) -> Reading:
    frame, free = frame_of(agent.topology), agent.free
    amounts = [free.scalars.get(name, 0) for name in frame.shape.names]
    if max(amounts) > _MOST_FREE:
        amounts = [min(amount, _MOST_FREE) for amount in amounts]
    cores, ports = (free.ranges.get(name, _NOTHING).intervals for name in ("cores", "ports"))
    return Reading(frame, array("q", amounts).tobytes(), packed(cores), packed(ports))


def amounts(readings: Sequence[Reading]) -> Ints:
    """Return what is free of the scalar resources that are counted, agent by agent."""
    return np.frombuffer(b"".join([reading.amounts for reading in readings]), np.int64)
