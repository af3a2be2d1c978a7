"""Multicast addresses for the streams of products: none is given to two, and none is used again soon."""

from __future__ import annotations

import ipaddress
from typing import Final

from sdpcontroller.errors import CommandError
from sdpcontroller.store import Store

DEFAULT_POOL: Final = "239.192.0.0/18"
"""Organisation-local scope (RFC 2365)."""

_COUNTER: Final = "multicast"


class MulticastPool:
    """Hands out ranges of addresses, round and round the pool, skipping what is in use.

    The counter is in the store, so that addresses of a product that died just now, whose switches may still
    forward old groups, are not given to the next one, even after a restart.
    """

    def __init__(self, store: Store, network: str = DEFAULT_POOL) -> None:
        self._store = store
        self._network = ipaddress.IPv4Network(network)
        if not self._network.is_multicast:
            raise ValueError(f"{network} is not a multicast network")
        self._in_use: dict[str, list[range]] = {}

    async def take(self, owner: str, count: int) -> str:
        """Give `owner` `count` consecutive addresses; return the first.

        Raises
        ------
        CommandError
            If there are not that many free ones in a row.
        StoreError
            If the store cannot be written.
        """
        if not 1 <= count <= self._network.num_addresses - 1:
            raise CommandError(
                f"{count} multicast addresses asked for, the pool {self._network} has "
                f"{self._network.num_addresses - 1}"
            )
        for _ in range(self._network.num_addresses):
            first = await self._store.take_numbers(_COUNTER, count)
            offset = 1 + first % (self._network.num_addresses - 1)
            wanted = range(offset, offset + count)
            if wanted.stop <= self._network.num_addresses and self._is_free(wanted):
                self._in_use.setdefault(owner, []).append(wanted)
                return str(self._network[offset])
        raise CommandError(f"no {count} multicast addresses in a row are free in {self._network}")

    def _is_free(self, wanted: range) -> bool:
        return not any(
            used.start < wanted.stop and wanted.start < used.stop
            for ranges in self._in_use.values()
            for used in ranges
        )

    def release(self, owner: str) -> None:
        """Take back all that `owner` has."""
        self._in_use.pop(owner, None)
