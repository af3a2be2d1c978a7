"""Loops that end when they are cancelled, also where a library swallows it.

On Python 3.11 `asyncio.wait_for` returns the result of what ends in the same moment, and forgets that its
caller was cancelled; redis-py waits so for every answer. The task itself remembers.
"""

from __future__ import annotations

import asyncio


def going_on() -> bool:
    """Whether nobody has asked the task that runs to end."""
    task = asyncio.current_task()
    return task is None or not task.cancelling()
