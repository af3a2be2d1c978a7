"""Which product a graph belongs to: its own, or one of its postprocessing. No two products share one."""

from __future__ import annotations

from collections.abc import Iterable

from sdpcontroller.products.product import Product


def owner(graph_id: str, products: Iterable[Product]) -> Product | None:
    """Return the product that a graph belongs to; None where it belongs to none of these."""
    return next((product for product in products if graph_id in product.graph_ids), None)


def owned(products: Iterable[Product]) -> frozenset[str]:
    """Return the ids of all graphs that products have."""
    return frozenset[str]().union(*(product.graph_ids for product in products))
