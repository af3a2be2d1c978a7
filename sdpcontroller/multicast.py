"""Multicast addresses for the streams of products: none is given to two, and none is used again soon."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter

from scheduler.crash_points import CrashPoint
from sdpcontroller.errors import CommandError, ControllerError
from sdpcontroller.store import Store
from sdpcontroller.store.records import Form, Table

DEFAULT_POOL: Final = "239.192.0.0/18"
"""Organisation-local scope (RFC 2365)."""

_COUNTER: Final = "multicast"
_TAKEN: Final = CrashPoint("multicast.recorded", "addresses are recorded for a product, unused")


@dataclass(frozen=True, slots=True)
class Groups:
    """What one product has: first address, as a number, and count of each range."""

    ranges: tuple[tuple[int, int], ...]


_GROUPS: Final = TypeAdapter(Groups)
GROUPS: Final = Form(
    "multicast",
    write=lambda groups: _GROUPS.dump_python(groups, mode="json"),
    read=_GROUPS.validate_python,
)
"""The table of the addresses in use, by product."""


class MulticastPool:
    """Hands out ranges of addresses, round and round the pool, skipping what is in use.

    All that is given is recorded before. The counter is in the store too, so that addresses of a product that
    died just now, whose switches may still forward old groups, are not given to the next one, even after a
    restart.

    Raises
    ------
    ControllerError
        If `network` is not a network of multicast addresses.
    """

    def __init__(self, store: Store, network: str = DEFAULT_POOL) -> None:
        self._store = store
        self._table: Table[Groups] = Table(store, GROUPS)
        try:
            self._network = ipaddress.IPv4Network(network)
        except ValueError as exc:
            raise ControllerError(f"{network!r} is no network of addresses: {exc}") from exc
        if not self._network.is_multicast:
            raise ControllerError(f"{network} is not a network of multicast addresses")
        self._base = int(self._network.network_address)
        self._size = self._network.num_addresses - 1
        """Addresses that are given out: all but the first."""
        self._in_use: dict[str, Groups] = {}
        self._taking = asyncio.Lock()

    async def load(self) -> None:
        """Read what is in use; those of an earlier network count only as far as they are in this one.

        Raises
        ------
        StoreError
            If the store cannot be read.
        """
        self._in_use = {owner: row.value for owner, row in (await self._table.load()).items()}

    @property
    def owners(self) -> frozenset[str]:
        """Names of the products that have addresses."""
        return frozenset(self._in_use)

    async def take(self, owner: str, count: int) -> str:
        """Give `owner` `count` consecutive addresses, until they are released; return the first.

        Raises
        ------
        CommandError
            If there are not that many free ones in a row.
        StoreError
            If the store cannot be written.
        """
        if not 1 <= count <= self._size:
            raise CommandError(
                f"{count} multicast addresses asked for, the pool {self._network} has {self._size}"
            )
        async with self._taking:
            turn = await self._store.take_numbers(_COUNTER, count)
            start = 1 + turn % self._size
            offset = self._next_free(start, count)
            if offset is None:
                raise CommandError(
                    f"no {count} multicast addresses in a row are free in {self._network}"
                )
            if offset != start:  # the next turn begins behind what was skipped
                await self._store.take_numbers(_COUNTER, (offset - start) % self._size)
            await self._record(owner, self._base + offset, count)
        _TAKEN.reached()
        return str(self._network[offset])

    async def _record(self, owner: str, first: int, count: int) -> None:
        known = self._in_use.get(owner, Groups(()))
        # In use from now on, even if the store does not say that it has written it.
        self._in_use[owner] = groups = Groups((*known.ranges, (first, count)))
        event = f"{count} from {ipaddress.IPv4Address(first)}"
        await self._table.put(owner, groups, event=event)

    def _next_free(self, start: int, count: int) -> int | None:
        """Find the first free range from `start` on, round the pool."""
        taken_ranges = sorted(r for groups in self._in_use.values() for r in groups.ranges)
        used = [range(first - self._base, first - self._base + n) for first, n in taken_ranges]
        for offset in (start, 1):
            for taken in used:
                if taken.stop > offset and taken.start < offset + count:
                    offset = taken.stop
            if offset + count - 1 <= self._size:
                return offset
        return None

    async def release(self, owner: str) -> None:
        """Take back all that `owner` has.

        Raises
        ------
        StoreError
            If the store cannot be written; it has them still then.
        """
        if owner in self._in_use:
            await self._table.delete(owner, event="released")
            del self._in_use[owner]
