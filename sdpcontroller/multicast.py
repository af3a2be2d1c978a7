"""Multicast addresses for the streams of products: none is given to two, and none is used again soon."""

from __future__ import annotations

import ipaddress
from typing import Final

from sdpcontroller.errors import CommandError, ControllerError
from sdpcontroller.store import Store

DEFAULT_POOL: Final = "239.192.0.0/18"
"""Organisation-local scope (RFC 2365)."""

_COUNTER: Final = "multicast"


class MulticastPool:
    """Hands out ranges of addresses, round and round the pool, skipping what is in use.

    The counter is in the store, so that addresses of a product that died just now, whose switches may still
    forward old groups, are not given to the next one, even after a restart.

    Raises
    ------
    ControllerError
        If `network` is not a network of multicast addresses.
    """

    def __init__(self, store: Store, network: str = DEFAULT_POOL) -> None:
        self._store = store
        try:
            self._network = ipaddress.IPv4Network(network)
        except ValueError as exc:
            raise ControllerError(f"{network!r} is no network of addresses: {exc}") from exc
        if not self._network.is_multicast:
            raise ControllerError(f"{network} is not a network of multicast addresses")
        self._size = self._network.num_addresses - 1
        """Addresses that are given out: all but the first."""
        self._in_use: dict[str, list[range]] = {}

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
        turn = await self._store.take_numbers(_COUNTER, count)
        start = 1 + turn % self._size
        offset = self._next_free(start, count)
        if offset is None:
            raise CommandError(
                f"no {count} multicast addresses in a row are free in {self._network}"
            )
        wanted = range(offset, offset + count)
        self._in_use.setdefault(owner, []).append(wanted)
        if offset != start:  # the next turn begins behind what was skipped
            await self._store.take_numbers(_COUNTER, (offset - start) % self._size)
        return str(self._network[offset])

    def _next_free(self, start: int, count: int) -> int | None:
        """Find the first free range from `start` on, round the pool."""
        used = sorted(
            (r for ranges in self._in_use.values() for r in ranges), key=lambda r: r.start
        )
        for offset in (start, 1):
            for taken in used:
                if taken.stop > offset and taken.start < offset + count:
                    offset = taken.stop
            if offset + count - 1 <= self._size:
                return offset
        return None

    def release(self, owner: str) -> None:
        """Take back all that `owner` has."""
        self._in_use.pop(owner, None)
