"""The lease on the leadership: at most one controller has it, for a bounded time.

Three keys: ``leader`` (who has the lease, with a count of its renewals), ``fence`` (fencing number of the
newest lease, which every write of a :class:`~sdpcontroller.store.Store` is checked against), ``candidates``
(who waits).

No wall clock decides. Who waits watches the count of renewals: when it stood still for the lease's time by the
*watcher's* monotonic clock, the watcher takes the lease, if the count still stands there. Who leads stops
acting some time after it *began* its last renewal that was granted, by its own monotonic clock: before any
watcher that saw that renewal can be through. What is sent before and arrives later is refused by the fencing
number.

A leader whose lease ran out because Redis was away goes on under the same number when nobody else had one in
between: nobody else can have written anything then.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Final

from sdpcontroller.store.redis_store import Store, translated, uncut

_TAKE: Final = """
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[2] then
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[3], now[1] + ARGV[3], ARGV[1])
  return {0, found}
end
redis.call('ZREM', KEYS[3], ARGV[1])
local number = tonumber(string.match(redis.call('GET', KEYS[2]) or '0', '^%d+')) + 1
local fence = string.format('%.0f', number) .. ' ' .. ARGV[1]
redis.call('SET', KEYS[2], fence)
redis.call('SET', KEYS[1], '0 ' .. ARGV[1])
return {1, fence}
"""

_RENEW: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return false end
redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', redis.call('TIME')[1])
return redis.call('ZRANGE', KEYS[3], 0, -1)
"""

_RESIGN: Final = """
if redis.call('GET', KEYS[2]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_CANDIDATE_SECONDS: Final = 5
"""How long a candidate that does not ask again counts as one."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The lease is ours."""

    fence: str
    """Fencing number and owner: no two leases ever have the same."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Somebody else has it."""

    leader: str
    """The name that it gave."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who waits for it."""

    name: str
    terms: str = ""
    """What it would lead on, as a short text; empty where it does not say."""


class Lease:
    """One controller's part in the lease.

    Parameters
    ----------
    store
        The database; its fencing number is set when the lease is taken.
    name
        Of this controller, for people: ``host:port``.
    seconds
        How long a lease lasts that is not renewed.
    """

    def __init__(self, store: Store, name: str, *, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._owner = f"{name} {secrets.token_hex(8)}"
        self.terms = ""
        self._keys = [store.key(key) for key in ("leader", "fence", "candidates")]
        self._take, self._renew, self._resign = map(
            store.client.register_script, (_TAKE, _RENEW, _RESIGN)
        )
        self._renewals = 0
        self._seen = ""
        self._seen_at = 0.0

    def lead_on(self, terms: str) -> None:
        """Say on which terms we would lead, before the lease is asked for: a word of letters and digits."""
        self._owner, self.terms = f"{self._owner}.{terms}", terms

    async def take(self) -> Taken | Refused:
        """Take the lease if nobody has it, or its holder does not renew it; else be known as a candidate.

        To be called again and again: a holder that died is found out by what was seen before.

        Raises
        ------
        StoreError
            If the database does not answer. The lease may be ours then; it ends by itself.
        """
        late = self._seen and time.monotonic() - self._seen_at >= self._seconds
        args = [self._owner, self._seen if late else "nobody", _CANDIDATE_SECONDS]
        async with translated("take the lease"):
            done, text = await uncut(self._take(keys=self._keys, args=args))
        if done:
            self._store.fence = str(text)
            return Taken(self._store.fence)
        if text != self._seen:
            self._seen, self._seen_at = str(text), time.monotonic()
        return Refused(_name(self._seen))

    @property
    def silence(self) -> float:
        """Seconds since when the holder has not renewed it, as far as we have seen; 0 where nobody has it."""
        return time.monotonic() - self._seen_at if self._seen else 0.0

    async def look(self) -> None:
        """See who has the lease, without asking for it: how long it is silent counts from now.

        Raises
        ------
        StoreError
            If the database does not answer.
        """
        async with translated("look at the lease"):
            found = await uncut(self._store.client.get(self._keys[0]))
        self._seen, self._seen_at = str(found or ""), time.monotonic()

    async def renew(self) -> list[Candidate] | None:
        """Keep the lease for another term, which begins when this is called.

        Returns
        -------
        list of Candidate, or None
            The controllers that wait for it, by name; None when somebody else has taken it.

        Raises
        ------
        StoreError
            If the database does not answer.
        """
        self._renewals += 1
        args = [self._owner, self._store.fence, self._renewals]
        async with translated("renew the lease"), self._store.timing("lease"):
            waiting = await uncut(self._renew(keys=self._keys, args=args))
        if waiting is None:
            return None
        return sorted(map(_candidate, waiting), key=lambda candidate: candidate.name)

    async def resign(self) -> None:
        """Give the lease back, so that another need not wait for its end; one that is not ours stays.

        Raises
        ------
        StoreError
            If the database does not answer.
        """
        async with translated("give the lease back"):
            await uncut(self._resign(keys=self._keys, args=[self._store.fence]))


def _candidate(owner: str) -> Candidate:
    """Return who it is that waits: name, token and terms."""
    name, _, token = owner.rpartition(" ")
    return Candidate(name, token.partition(".")[2])


def _name(leader: str) -> str:
    """Return the name in what stands in ``leader``: count, name, token."""
    return leader.partition(" ")[2].rpartition(" ")[0]
