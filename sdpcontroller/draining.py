"""Agents taken out of service and put back."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from sdpcontroller.config.problems import suggestion
from sdpcontroller.control import AgentRecord, Command, DrainAgent, ProductRecord, UndrainAgent
from sdpcontroller.errors import CommandError


class Drains(Protocol):
    """What can close hosts to new tasks, and remembers it: the scheduler."""

    async def drain(self, host: str, reason: str = "") -> None:
        """Let a host get no new tasks."""

    async def undrain(self, host: str) -> None:
        """Let it get new tasks again."""


def tasks_on(host: str, products: Mapping[str, ProductRecord]) -> list[str]:
    """Return the tasks that are on a host and not dead, as PRODUCT.TASK."""
    return [
        f"{record.name}.{task.name}"
        for record in products.values()
        for task in record.tasks.values()
        if task.host == host and task.state != "dead"
    ]


class Draining:
    """Carries out what operators say of agents.

    Parameters
    ----------
    scheduler
        Closes hosts and opens them.
    agents, products
        What there is at the moment.
    """

    def __init__(
        self,
        scheduler: Drains,
        agents: Callable[[], Sequence[AgentRecord]],
        products: Callable[[], Mapping[str, ProductRecord]],
    ) -> None:
        self._scheduler = scheduler
        self._agents = agents
        self._products = products

    def handlers(self) -> dict[type[Command[Any]], Callable[[Any], Coroutine[Any, Any, Any]]]:
        """Return what does each command."""
        return {DrainAgent: self._drain, UndrainAgent: self._undrain}

    async def _drain(self, command: DrainAgent) -> tuple[str, ...]:
        hosts = {agent.host for agent in self._agents()}
        if command.host not in hosts:
            raise CommandError(
                f"there is no agent on {command.host[:80]!r}{suggestion(command.host, hosts)} "
                f"(hosts: {', '.join(sorted(hosts)) or 'none'})"
            )
        await self._scheduler.drain(command.host, _printable(command.reason))
        return tuple(tasks_on(command.host, self._products()))

    async def _undrain(self, command: UndrainAgent) -> None:
        # an agent that has gone for good may be forgotten, too: no question whether it is there
        await self._scheduler.undrain(command.host)


def _printable(text: str) -> str:
    """Take out what would do something to the terminal of whoever reads it."""
    return "".join(character if character.isprintable() else "�" for character in text)
