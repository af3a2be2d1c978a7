"""The data of simulated correlators: which streams there are, and whether they are sent."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from sdpcontroller.config.problems import suggestion
from sdpcontroller.control import (
    Command,
    ProductRecord,
    ProductState,
    SetTransmission,
    StreamRecord,
    TaskSensor,
)
from sdpcontroller.errors import CommandError
from sdpcontroller.products.product import Product

_TRANSMITTING: Final = "transmitting"
"""Sensor by which a simulator tells whether it sends."""


class Transmissions:
    """What simulated correlators send.

    A stream is sent while its product captures, unless it was stopped: what was commanded counts at once, and
    what the simulators tell of themselves, which another controller may have commanded.

    Parameters
    ----------
    products
        All, by name.
    product
        Returns a product by its name, or raises ``CommandError``.
    """

    def __init__(self, products: Mapping[str, Product], product: Callable[[str], Product]) -> None:
        self._products = products
        self._product = product
        self._silent: set[tuple[str, str]] = set()
        """Product and task of those that send nothing although their product captures."""

    def handlers(self) -> Mapping[type[Command[Any]], Callable[[Any], Coroutine[Any, Any, Any]]]:
        """Return what does each command."""
        return {SetTransmission: self._set}

    def streams(self) -> Sequence[StreamRecord]:
        """Return all streams of simulated correlators."""
        return [
            StreamRecord(
                name,
                stream.name,
                stream.endpoint,
                "up"
                if self._captures(name) and (name, stream.task) not in self._silent
                else "down",
            )
            for name, product in self._products.items()
            for stream in product.simulated
        ]

    def take(self, sensor: TaskSensor) -> None:
        """Take what a simulator tells of itself."""
        if sensor.name == _TRANSMITTING and sensor.status == "nominal":
            self._note(sensor.product, sensor.task, on=sensor.value is not False)

    def product_changed(self, record: ProductRecord) -> None:
        """Forget what was stopped in a capture that is over: the next one begins with all streams."""
        if record.state is not ProductState.CAPTURING:
            self._silent = {task for task in self._silent if task[0] != record.name}

    def _captures(self, product: str) -> bool:
        found = self._products.get(product)
        return found is not None and found.record.state is ProductState.CAPTURING

    def _note(self, product: str, task: str, *, on: bool) -> None:
        if on:
            self._silent.discard((product, task))
        elif self._captures(product):
            self._silent.add((product, task))

    async def _set(self, command: SetTransmission) -> None:
        owner = self._owner(command)
        task = next(stream.task for stream in owner.simulated if stream.name == command.stream)
        await owner.set_transmission(command.stream, on=command.on)
        self._note(owner.name, task, on=command.on)

    def _owner(self, command: SetTransmission) -> Product:
        """Return the product whose stream is meant."""
        if command.product is not None:
            candidates = [self._product(command.product)]
        else:
            candidates = list(self._products.values())
        owners = [p for p in candidates if command.stream in {s.name for s in p.simulated}]
        if len(owners) > 1:
            found = ", ".join(sorted(product.name for product in owners))
            raise CommandError(
                f"{len(owners)} products have a simulated stream {command.stream!r} ({found}): name one"
            )
        if not owners:
            known = {stream.name for product in candidates for stream in product.simulated}
            whose = "no product has a" if command.product is None else f"{command.product} has no"
            raise CommandError(
                f"{whose} simulated stream {command.stream[:80]!r}{suggestion(command.stream, known)} "
                f"(streams: {', '.join(sorted(known)) or 'none'})"
            )
        return owners[0]
