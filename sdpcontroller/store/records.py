"""Records with a type: frozen data in Python, a JSON document of a known form in the database.

Each record carries the version of its form. One of an earlier version is migrated when it is read, one that
cannot be read is refused: then the whole table is, because half a table is not the truth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from scheduler.errors import SchedulerError
from scheduler.threads import compute
from sdpcontroller.errors import StoreError
from sdpcontroller.store.redis_store import Store, Stored, stored, translated

T = TypeVar("T")

Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns a document of one version into one of the next."""


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """A record as it was read."""

    value: T
    version: int


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How the records of one table are written and read."""

    table: str
    write: Callable[[T], dict[str, Any]]
    read: Callable[[dict[str, Any]], T]
    """Raises an exception of Python's, or a ``SchedulerError``, for what is no such document."""
    schema: int = 1
    """Version of what is written."""
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    """By the version from which each leads to the next."""
    large: bool = False
    """Whether one record is so much that it is not written on the event loop."""

    def migrated(self, key: str, stored: Stored) -> dict[str, Any]:
        """Return a document in the form that is written now.

        Raises
        ------
        StoreError
            If it comes from a later program, or from one too old.
        """
        document = stored.value
        if stored.schema > self.schema:
            raise StoreError(
                f"{self.table} {key} was written by a later program (form {stored.schema}, this one "
                f"reads up to {self.schema}): start that version"
            )
        for schema in range(stored.schema, self.schema):
            if schema not in self.migrations:
                raise StoreError(f"{self.table} {key} has form {schema}, which nothing migrates")
            with self._reading(key):
                document = self.migrations[schema](document)
        with self._reading(key):
            return dict(document)

    def value(self, key: str, stored: Stored) -> T:
        """Return the record; raises as :meth:`migrated`, also for a document that is none."""
        document = self.migrated(key, stored)
        with self._reading(key):
            return self.read(document)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, SchedulerError) as exc:
            raise StoreError(f"{self.table} {key} cannot be read by this program: {exc!r}") from exc


class Table(Generic[T]):
    """The records of one form in a :class:`~sdpcontroller.store.Store`."""

    def __init__(self, store: Store, form: Form[T]) -> None:
        self._store = store
        self._form = form

    async def put(
        self, key: str, value: T, *, event: str, expected_version: int | None = None
    ) -> int:
        """Write a record; see :meth:`sdpcontroller.store.Store.put`."""
        document: dict[str, Any] | str
        if self._form.large:
            document = await compute(lambda: json.dumps(self._form.write(value)))
        else:
            document = self._form.write(value)
        return await self._store.put(
            self._form.table,
            key,
            document,
            event=event,
            expected_version=expected_version,
            schema=self._form.schema,
        )

    async def delete(self, key: str, *, event: str, expected_version: int | None = None) -> None:
        """Remove a record; see :meth:`sdpcontroller.store.Store.delete`."""
        await self._store.delete(
            self._form.table, key, event=event, expected_version=expected_version
        )

    async def get(self, key: str) -> Row[T] | None:
        """Read one record; None if there is none.

        Raises
        ------
        StoreError
            If it cannot be read.
        """
        found = await self._store.get(self._form.table, key)
        return None if found is None else self._row(key, found)

    async def load(self) -> dict[str, Row[T]]:
        """Read all records, by key; raises as :meth:`get`."""
        rows = await self._store.rows(self._form.table)
        # Off the loop: of ten products it is a second, and a leader must go on telling that it lives.
        async with translated(f"read {self._form.table}"):
            return await compute(self._read, rows)

    def _read(self, rows: Mapping[str, Mapping[str, str]]) -> dict[str, Row[T]]:
        if (known := self._store.recollection) is not None:
            for place in [p for p in known if p[0] == self._form.table and p[1] not in rows]:
                del known[place]
        return {key: self._recollected(key, row) for key, row in rows.items()}

    def _recollected(self, key: str, row: Mapping[str, str]) -> Row[T]:
        """Return a record; what was made out of the same before, if that is known."""
        known = self._store.recollection
        if known is None:
            return self._row(key, stored(row))
        place = self._form.table, key
        before = known.get(place)
        if before is None or before[0] != row:
            before = known[place] = row, self._row(key, stored(row))
        found: Row[T] = before[1]
        return found

    def _row(self, key: str, stored: Stored) -> Row[T]:
        return Row(self._form.value(key, stored), stored.version)
