"""The record of one product, written before anybody sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from scheduler.task import TaskState
from scheduler.views import TaskView
from sdpcontroller.control import ProductRecord, ProductState, TaskRecord
from sdpcontroller.errors import FencedError, StoreError
from sdpcontroller.products.record import PRODUCTS, KeptProduct
from sdpcontroller.products.tasks import task_record
from sdpcontroller.store import Store
from sdpcontroller.store.records import Table

logger = logging.getLogger(__name__)

_STORE_PAUSE: Final = 1.0
"""Seconds between two tries to write what nobody waits for."""
_STORE_TRIES: Final = 300
TELL_PERIOD: Final = 0.05
"""Seconds within which changes of tasks are told together: hundreds change at a time."""

Update = Callable[[KeptProduct], KeptProduct]


class Keeper:
    """Keeps one product's record: in the database first, then for everybody to see.

    Parameters
    ----------
    kept
        The record; one that is in the database has its `version` there, a new one 0.
    tell
        Is called with what everybody may know, after each change.
    soon
        Calls what tells of tasks, when others have had their turn.
    """

    def __init__(
        self,
        store: Store,
        kept: KeptProduct,
        tell: Callable[[ProductRecord], None],
        *,
        version: int = 0,
        soon: Callable[[Callable[[], None]], None] = lambda act: act(),
    ) -> None:
        self._soon = soon
        self._table: Table[KeptProduct] = Table(store, PRODUCTS)
        self._tell = tell
        self._version = version
        self._unanswered: KeptProduct | None = None
        """A record that may or may not have been written: the store did not say."""
        self._writing = asyncio.Lock()
        self._tasks: dict[str, tuple[TaskView, TaskRecord]] = {}
        """What the scheduler tells and what is shown, by the task's name."""
        self._news: dict[str, TaskView] = {}
        """Tasks that changed since they were shown, by name."""
        self._telling: asyncio.TimerHandle | None = None
        self.kept = kept
        self._shown = kept.shown({})

    @property
    def name(self) -> str:
        """Name of the product."""
        return self.kept.name

    @property
    def dead(self) -> bool:
        """Whether the record is gone."""
        return self.kept.state is ProductState.DEAD

    @property
    def shown(self) -> ProductRecord:
        """What everybody may know, up to now."""
        if self._news:
            self._take_news()
        return self._shown

    async def change(self, event: str, update: Update = lambda kept: kept) -> None:
        """Change the record.

        Raises
        ------
        StoreError
            If it could not be written, or perhaps not; nobody has seen the change then.
        """
        async with self._writing:
            await self._find_out()
            new = update(self.kept)
            self._unanswered = new
            self._version = await self._table.put(
                self.name, new, event=event, expected_version=self._version
            )
            self._unanswered = None
            self.kept = new
        logger.info("%s: %s", self.name, event, extra={"product": self.name})
        self._show()

    async def _find_out(self) -> None:
        """Look whether a record was written of which the store did not say."""
        if self._unanswered is not None:
            row = await self._table.get(self.name)
            if row is not None and row.value == self._unanswered:
                self._version = row.version
            self._unanswered = None

    async def delete(self, event: str, reason: str = "") -> None:
        """Remove the record: the product is dead. Raises as :meth:`change`."""
        async with self._writing:
            if self._version or self._unanswered:  # or the record, if there is one, is not ours
                await self._table.delete(self.name, event=f"dead: {event}")
            self.kept = self.kept.dead(reason)
        logger.info("%s: dead: %s", self.name, event, extra={"product": self.name})
        self._show()

    async def insist(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do what must be done, and record it; again for a while when the store cannot be written.

        Raises
        ------
        FencedError
            If it is another controller's to do.
        """
        for _ in range(_STORE_TRIES):
            if self.dead:
                return
            try:
                await act()
            except FencedError:
                raise
            except StoreError as exc:
                logger.error("%s: %s", self.name, exc)
                await asyncio.sleep(_STORE_PAUSE)
            else:
                return
        logger.critical("%s: its record is not what it should be", self.name)

    def show_tasks(self, views: Iterable[TaskView]) -> None:
        """Show what is known of some tasks; the scheduler's journal keeps it.

        It is told soon, with what changes meanwhile. Of postprocessing what has not ended is shown: it judges
        its tasks itself, and each block has new ones.
        """
        self._news.update({view.name: view for view in views})
        if self._telling is None and not self.dead:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(TELL_PERIOD, self._soon, self._tell_news)

    def _tell_news(self) -> None:
        if self._telling is not None:  # else it was told along with something else, or is not to be
            self._show()

    def close(self) -> None:
        """Tell nothing any more."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def _show(self) -> None:
        self.close()
        self._take_news()
        self._tell(self._shown)

    def _take_news(self) -> None:
        self._tasks.update(
            {
                name: (view, task_record(view, self._tasks.get(name)))
                for name, view in self._news.items()
            }
        )
        self._news.clear()
        batches = self.kept.batches
        self._tasks = {
            name: (view, record)
            for name, (view, record) in self._tasks.items()
            if view.graph_id == self.kept.graph_id
            or (view.graph_id in batches and record.state != TaskState.DEAD.value)
        }
        self._shown = self.kept.shown({name: record for name, (_, record) in self._tasks.items()})
