"""What becomes of a database that another version of the program has written: read whole, or refused whole.

A program asks :func:`check` before it takes the leadership: the controller that leads goes on with its
observations when its successor could not. Once it leads, :func:`migrate` writes everything in its own form, in
one step; from then on earlier programs are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sdpcontroller.errors import StoreError
from sdpcontroller.store.records import Form, Table
from sdpcontroller.store.redis_store import SCHEMA_VERSION, Store

logger = logging.getLogger(__name__)


async def check(store: Store, forms: Sequence[Form[Any]]) -> None:
    """Read everything there is, without changing anything.

    Raises
    ------
    StoreError
        Naming the first record that this program cannot read.
    """
    for form in forms:
        await Table(store, form).load()


async def migrate(store: Store, forms: Sequence[Form[Any]]) -> None:
    """Bring the database to this program's schema; nothing happens where it is there already.

    Raises
    ------
    StoreError
        If a record cannot be migrated, or the database cannot be written; nothing has changed then.
    """
    found = await store.schema()
    if found == SCHEMA_VERSION:
        return
    if found > SCHEMA_VERSION:  # a later program has led since we looked
        raise StoreError(
            f"the database has schema version {found} now, this program reads {SCHEMA_VERSION}"
        )
    records = [
        (form.table, key, form.migrated(key, stored), form.schema)
        for form in forms
        for key, stored in (await store.load(form.table)).items()
    ]
    await store.migrate(records)
    logger.warning(
        "the database was migrated from schema %d to %d: %d records",
        found,
        SCHEMA_VERSION,
        len(records),
    )
