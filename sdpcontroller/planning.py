"""What would become of a configuration, and what one under way waits for: nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from scheduler.packing import Explanation
from scheduler.placement import Placement
from scheduler.service import Scheduler
from sdpcontroller.control import Command, ExplainProduct, PlanProduct, ProductState
from sdpcontroller.products.product import Product
from sdpcontroller.queues import Assigned, Work
from sdpcontroller.workflows.dry_run import PlannedImaging, in_words, planned

FITS = "it would fit now:"
"""First line of a plan that would."""
FITS_NOT = "it would not fit now:"


class Planning:
    """Answers for people.

    Parameters
    ----------
    image
        Container image of the programs; None: they run as processes.
    queues
        Where a product would wait.
    product
        Returns a product by its name, or raises ``CommandError``.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        image: str | None,
        queues: Assigned,
        product: Callable[[str], Product],
    ) -> None:
        self._scheduler = scheduler
        self._image = image
        self._queues = queues
        self._product = product

    def handlers(self) -> Mapping[type[Command[Any]], Callable[[Any], Coroutine[Any, Any, Any]]]:
        """Return what does each command."""
        return {PlanProduct: self._plan, ExplainProduct: self._explain}

    async def _plan(self, command: PlanProduct) -> str:
        graphs = await asyncio.to_thread(planned, command.config, self._image)
        queue = self._queues.to(Work.PRODUCTS, "")  # of what name it would be is not said
        plan = await self._scheduler.plan(graphs.realtime, queue=queue)
        lines = [FITS if isinstance(plan, Placement) else FITS_NOT, str(plan)]
        for images in graphs.imaging:
            homeless = await self._scheduler.homeless(images.graph)
            lines += ["", *_offline(images, homeless)]
        return "\n".join(lines)

    async def _explain(self, command: ExplainProduct) -> str:
        product = self._product(command.name)
        explained = (self._scheduler.explain(graph_id) for graph_id in sorted(product.graph_ids))
        waits = "; ".join(filter(None, explained))
        state, reason = product.record.state, product.record.reason
        if state is ProductState.CONFIGURING:
            return waits
        return f"{product.name} is {state.value}: {reason or 'no complaint'}\n{waits}".rstrip()


def _offline(images: PlannedImaging, homeless: Mapping[str, Explanation] | None) -> Iterator[str]:
    """Say what a capture block would start, and whether each part of it could ever find a place."""
    yield f"when a capture block has ended, for each target observed for {images.seconds:g} s:"
    yield from in_words(images.graph)
    if homeless is None:
        yield "whether they could run is not known yet: the agents are being looked at"
    elif not homeless:
        yield "each of them could run here"
    else:
        for explanation in {id(why): why for why in homeless.values()}.values():
            names = [name for name, why in homeless.items() if why is explanation]
            yield f"no agent here could ever run {len(names)} of them, such as {names[0]}:"
            yield str(explanation)
