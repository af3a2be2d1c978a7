"""What dead products have left in the database, and nobody needs any more."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sdpcontroller.errors import StoreError
from sdpcontroller.multicast import MulticastPool
from sdpcontroller.products.product import Product
from sdpcontroller.products.record import BATCHES, KeptBatch
from sdpcontroller.store import Store
from sdpcontroller.store.records import Table

logger = logging.getLogger(__name__)


async def tidy(store: Store, multicast: MulticastPool, products: Mapping[str, Product]) -> None:
    """Remove what a product has left that died with its controller."""
    try:
        for owner in multicast.owners - products.keys():
            await multicast.release(owner)
        batches: Table[KeptBatch] = Table(store, BATCHES)
        for graph_id, row in (await batches.load()).items():
            product = products.get(row.value.product)
            if product is None or row.value.cbid not in product.record.capture_blocks:
                await batches.delete(graph_id, event="no capture block needs it")
    except StoreError as exc:  # the next start tries again
        logger.warning("what dead products have left stays: %s", exc)
