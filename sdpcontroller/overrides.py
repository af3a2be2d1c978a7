"""Overrides of configurations: what an operator wants changed in the *next* configure of a product."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sdpcontroller.config import ProductConfig
from sdpcontroller.config.document import load, merge
from sdpcontroller.errors import CommandError, ConfigError
from sdpcontroller.store import Store
from sdpcontroller.store.records import Form, Table
from sdpcontroller.workflows import admission


@dataclass(frozen=True, slots=True)
class Override:
    """What is merged over a document."""

    changes: dict[str, Any]


OVERRIDES: Final = Form(
    "override",
    write=lambda override: {"changes": override.changes},
    read=lambda document: Override(dict(document["changes"])),
)
"""The table of the overrides that wait for their product, by its name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a product is to be configured with."""

    text: str
    config: ProductConfig
    override: Override | None
    """What was merged over what was asked for."""


class Overrides:
    """Overrides, kept in the configuration database until a product is configured with them."""

    def __init__(self, store: Store) -> None:
        self._table: Table[Override] = Table(store, OVERRIDES)
        self._waiting: dict[str, Override] = {}

    async def load(self) -> None:
        """Read what waits; nobody else changes it."""
        self._waiting = {name: row.value for name, row in (await self._table.load()).items()}

    async def set(self, product: str, text: str) -> None:
        """Keep an override; it takes the place of one that waits already, an empty one removes it.

        Raises
        ------
        ConfigError
            If it is no JSON object.
        StoreError
            If it could not be kept.
        """
        changes = load(text)
        if changes:
            override = Override(changes)
            await self._table.put(product, override, event="set-config-override")
            self._waiting[product] = override
        else:
            await self.forget(product, event="an empty override")

    def applied(self, product: str, text: str, document: ProductConfig) -> Wanted:
        """Return a document with the override that waits for the product; all of it would be done.

        It makes the product's graph to see that: of hundreds of tasks that is nothing for the event loop.

        Parameters
        ----------
        text, document
            What was asked for, as it was given and as it was read.

        Raises
        ------
        ConfigError
            If it makes no configuration of which all would be done; the override stays.
        """
        override = self._waiting.get(product)
        if override is None:
            admission.check(document)
            return Wanted(text, document, None)
        merged = merge(load(text), override.changes)
        try:
            document = ProductConfig.from_document(merged)
            admission.check(document)
        except ConfigError as exc:
            raise ConfigError(f"with the override of {product}: {exc}") from exc
        return Wanted(json.dumps(merged), document, override)

    def check_holds(self, product: str, wanted: Wanted) -> None:
        """Refuse what was made with another override than the one that waits now.

        Raises
        ------
        CommandError
            If it was.
        """
        if self._waiting.get(product) is not wanted.override:
            raise CommandError(
                f"the override of {product} was changed meanwhile; nothing was done: ask again"
            )

    async def forget(
        self, product: str, *, event: str = "a product was configured with it"
    ) -> None:
        """Forget the override of a product."""
        if product in self._waiting:
            await self._table.delete(product, event=event)
            self._waiting.pop(product, None)
