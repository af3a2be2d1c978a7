"""Several executors as one: each task goes to the one that its ``ContainerInfo`` asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler.embedded.executors import Container, Executor, Launch


class ComposingExecutor:
    """Docker tasks go to one executor, all others to another, as with ``--containerizers=docker,mesos``.

    Parameters
    ----------
    docker
        For tasks with a container of type DOCKER.
    other
        For all others.
    """

    def __init__(self, *, docker: Executor, other: Executor) -> None:
        self._docker = docker
        self._other = other

    async def launch(self, launch: Launch) -> Container:
        """Start a task; see :class:`~scheduler.embedded.executors.Executor`."""
        return await self._of(launch).launch(launch)

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """Take up what an earlier run has left."""
        docker = await self._docker.recover([x for x in launches if self._of(x) is self._docker])
        other = await self._other.recover([x for x in launches if self._of(x) is self._other])
        return {**docker, **other}

    async def close(self) -> None:
        """Close both."""
        await self._docker.close()
        await self._other.close()

    def _of(self, launch: Launch) -> Executor:
        return self._docker if launch.containerizer == "DOCKER" else self._other
