"""A certificate in use: a new one in its files takes its place, and no connection notices."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sdpcontroller.certificates.pair import Demands, Pair, date, read_pair
from sdpcontroller.control import Alarm, Severity
from sdpcontroller.errors import ControllerError

logger = logging.getLogger(__name__)

SOON: Final = 14 * 86400.0
"""Seconds before its end from which a certificate raises an alarm: what renews itself has done it by then."""
LOOK_SECONDS: Final = 10.0
"""Between two looks at the files."""


class ServedCertificate:
    """What one or several servers show.

    Parameters
    ----------
    use
        What for, in alarms and figures.
    certificate, key
        Files (PEM): certificate with chain, and key; None: it is in the same file.
    demands
        What those who will ask want of it.

    Raises
    ------
    ControllerError
        If it is of no use; see :func:`sdpcontroller.certificates.pair.read_pair`.
    """

    def __init__(
        self, use: str, certificate: Path, key: Path | None, demands: Demands | None = None
    ) -> None:
        self.use = use
        self._certificate, self._key = certificate, key
        self._demands = demands or Demands()
        self._seen = self._state()
        self._pair = self._read()
        self._doubt = self._trouble = ""
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        """For the servers; it stays the same when the certificate changes."""
        self._pair.show(self.context)

    @property
    def ends(self) -> float:
        """Unix time."""
        return self._pair.ends

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is wrong with it."""
        name, now = f"certificate.{self.use}", time.time()
        renew = f"put a new one into {self._certificate}"
        if now >= self.ends:
            text = f"it has ended, {date(self.ends)}, and nobody believes it: {renew}"
            return (Alarm(name, Severity.ALARM, text),)
        if self._trouble:
            text = f"the new one is not taken: {self._trouble}; the old one ends {date(self.ends)}"
            return (Alarm(name, Severity.WARNING, text),)
        if self.ends - now < SOON:
            return (Alarm(name, Severity.WARNING, f"it ends {date(self.ends)}: {renew}"),)
        return ()

    async def look(self) -> None:
        """Take what is new in the files, if it is of use."""
        seen = await asyncio.to_thread(self._state)
        if seen == self._seen:
            if self._doubt:  # not because its key was about to be written, too
                logger.warning("%s", self._doubt)
                self._trouble, self._doubt = self._doubt, ""
            return
        self._seen = seen
        try:
            pair = await asyncio.to_thread(self._read)
            pair.show(self.context)  # on the loop's thread: no handshake begins meanwhile
        except (ControllerError, OSError) as exc:
            self._doubt, self._trouble = str(exc), ""
            return
        self._pair, self._doubt, self._trouble = pair, "", ""
        logger.info("a new certificate for %s: it ends %s", self.use, date(pair.ends))

    def _read(self) -> Pair:
        return read_pair(self._certificate, self._key, self._demands)

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        """Return what changes when the files do."""
        found = []
        for path in (self._certificate, self._key or self._certificate):
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
        return tuple(found)


async def watch(
    certificates: Sequence[ServedCertificate],
    asked: asyncio.Event,
    changed: Callable[[], None],
) -> None:
    """Look at files again and again, until cancelled.

    Parameters
    ----------
    asked
        Set by whoever wants that at once.
    changed
        Is called when an alarm or a certificate has changed.
    """
    known: object = None
    while True:
        for certificate in certificates:
            await certificate.look()
        now = [(certificate.ends, certificate.alarms()) for certificate in certificates]
        if now != known:
            known = now
            changed()
        asked.clear()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await asked.wait()
        except TimeoutError:
            pass
