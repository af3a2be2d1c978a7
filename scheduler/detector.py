"""Which Mesos master leads, by what ZooKeeper says: in place of pymesos' detector.

pymesos 0.3.15 waits fifteen seconds for ZooKeeper and then fails; it looks for masters once, and for ever in
vain where none has registered before; and it leaves a master when its registration goes, though it may lead on.
Here ZooKeeper is waited for, looked at whenever it says that something has changed, and now and then in any
case; the last master that led is kept until another one does.

Mesos masters register below the path of ``zk://HOST:PORT,…/PATH`` as ``json.info_N``, with a ``MasterInfo`` in
JSON; the one with the smallest ``N`` leads.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.retry import KazooRetry

logger = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.kazoo")
_quiet.setLevel(logging.ERROR)  # it tells of every try

SESSION: Final = 10.0
"""Seconds of silence after which ZooKeeper takes us for dead."""
ANSWER: Final = 5.0
"""Seconds for one question."""
LOOK_AGAIN: Final = 10.0
"""Seconds after which is looked again, though nothing seems to have changed."""
MAX_PAUSE: Final = 5.0
"""Seconds between two tries to reach ZooKeeper."""
MAX_INFO: Final = 64 * 1024
_REGISTRATION: Final = "json.info_"


class Detector:
    """Watches, on threads of its own, who leads.

    Parameters
    ----------
    address
        ``[USER:PASSWORD@]HOST:PORT,…/PATH``.
    tell
        Is called with ``HOST:PORT`` of each new leader, on a thread.
    """

    def __init__(self, address: str, tell: Callable[[str], None]) -> None:
        user, _, hosts = address.rpartition("@")
        self._where = hosts
        self._tell = tell
        self._told = ""
        self._wake = threading.Event()
        self._stopping = False
        self.trouble = f"ZooKeeper at {hosts} has not answered yet"
        """Why nobody is known to lead, for people; empty when somebody is."""
        self._client = KazooClient(
            hosts=hosts,
            timeout=SESSION,
            connection_retry=KazooRetry(max_tries=-1, max_delay=MAX_PAUSE),
            auth_data=[("digest", user)] if user else None,
            logger=_quiet,
        )
        self._thread = threading.Thread(target=self._run, name="Mesos detector", daemon=True)

    def start(self) -> None:
        """Begin to watch; waits for nothing."""
        self._client.add_listener(lambda _: self._wake.set())
        self._client.start_async()
        self._thread.start()

    def stop(self) -> None:
        """Begin to end."""
        self._stopping = True
        self._wake.set()

    def join(self) -> None:
        """Wait for the end."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            self._look()
            self._wake.wait(LOOK_AGAIN)
        self._client.stop()
        self._client.close()

    def _look(self) -> None:
        try:
            leader = self._leader() if self._client.connected else None
        except NoNodeError:  # no master was ever there, or it goes just now
            leader = ""
        except Exception as exc:  # whatever it is, the next look may go better
            logger.debug("ZooKeeper was not read", exc_info=True)
            self.trouble = f"ZooKeeper at {self._where} does not tell: {exc!r:.200}"
            return
        if leader is None:
            self.trouble = f"ZooKeeper at {self._where} does not answer"
        elif not leader:
            self.trouble = f"no Mesos master has registered at ZooKeeper {self._where}"
        else:
            self.trouble = ""
            self._lead(leader)

    def _lead(self, leader: str) -> None:
        if leader != self._told:
            logger.info("ZooKeeper says that the Mesos master at %s leads", leader)
            self._told = leader
            self._tell(leader)

    def _leader(self) -> str:
        """Return where the leader is; empty if there is none."""
        watched = self._client.get_children_async("/", watch=lambda _: self._wake.set())
        name = first(watched.get(timeout=ANSWER))
        if not name:
            return ""
        data, _ = self._client.get_async(f"/{name}").get(timeout=ANSWER)
        return address_of(data)


def first(children: Iterable[str]) -> str:
    """Return the name under which the leader is registered; empty if nobody is."""
    return min((name for name in children if name.startswith(_REGISTRATION)), default="")


def address_of(info: bytes) -> str:
    """Return ``HOST:PORT`` of a master, out of its ``MasterInfo``.

    Raises
    ------
    ValueError
        If it does not say.
    """
    document = json.loads(info) if len(info) <= MAX_INFO else None
    address = document.get("address") if isinstance(document, dict) else None
    ip, port = (address.get("ip"), address.get("port")) if isinstance(address, dict) else (None, 0)
    if not isinstance(ip, str) or not ip or not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(f"a master's registration names no address: {info[:100]!r}")
    return f"{ip}:{port}"
