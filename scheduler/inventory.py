"""The tasks of a framework, as the master knows them: read from its ``/tasks``, with their labels.

Reconciliation tells states only; labels, and what has ended, are on this page.
"""

from __future__ import annotations

import logging
import ssl
from typing import Final
from urllib.parse import urlencode

from scheduler.agents import fetch
from scheduler.labels import Found, read_page
from scheduler.threads import compute

logger = logging.getLogger(__name__)

PAGE: Final = 1000
"""Tasks that are asked for at a time."""
MAX_PAGES: Final = 50
SECONDS: Final = 5.0
"""How long the master may take for a page."""


async def inventory(
    master: str,
    authorization: str,
    framework_id: str,
    tls: ssl.SSLContext | None = None,
) -> list[Found] | None:
    """Ask the master for all tasks of a framework, also those that have ended and that it remembers.

    Parameters
    ----------
    authorization, tls
        As for :func:`scheduler.agents.fetch`.

    Returns
    -------
    list of Found
        None when it does not tell.
    """
    found: list[Found] = []
    for page in range(MAX_PAGES):
        query = {"framework_id": framework_id, "limit": PAGE, "offset": page * PAGE}
        path = f"/tasks?{urlencode(query)}"
        document = await fetch(master, authorization, SECONDS, path=path, tls=tls)
        read = await compute(read_page, document, framework_id)
        if read is None:
            return None
        found += read[0]
        if read[1] < PAGE:
            return found
    logger.warning("the master at %s knows more than %d tasks", master, MAX_PAGES * PAGE)
    return found
