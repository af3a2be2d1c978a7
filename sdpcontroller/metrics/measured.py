"""The commands that pass through a control plane, counted."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sdpcontroller.control import (
    AgentRecord,
    Command,
    ControlPlane,
    Listener,
    ProductRecord,
    QueueRecord,
    StreamRecord,
    SystemRecord,
)
from sdpcontroller.errors import ControllerError
from sdpcontroller.metrics.counted import Metrics

R = TypeVar("R")


class MeasuredControl:
    """A control plane that counts the commands that pass through it."""

    def __init__(self, control: ControlPlane, metrics: Metrics) -> None:
        self._control = control
        self._metrics = metrics

    async def execute(self, command: Command[R]) -> R:
        """Do what the command says, and count it."""
        begin, outcome = time.monotonic(), "failed"
        try:
            reply = await self._control.execute(command)
            outcome = "ok"
        except ControllerError:
            outcome = "refused"
            raise
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        else:
            return reply
        finally:
            name = _snake(type(command).__name__)
            self._metrics.observe_command(name, outcome, time.monotonic() - begin)

    def products(self) -> Mapping[str, ProductRecord]:
        """All products that are not dead, by name."""
        return self._control.products()

    def agents(self) -> Sequence[AgentRecord]:
        """All agents known, by host."""
        return self._control.agents()

    def queues(self) -> Sequence[QueueRecord]:
        """Return the queues, the highest first."""
        return self._control.queues()

    def streams(self) -> Sequence[StreamRecord]:
        """All streams of simulated correlators."""
        return self._control.streams()

    def system(self) -> SystemRecord:
        """Return the state of the whole."""
        return self._control.system()

    def limits(self) -> Mapping[type[Command[Any]], float]:
        """Seconds after which a command has certainly been answered, of those that may take long."""
        return self._control.limits()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Register a listener."""
        return self._control.listen(listener)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
