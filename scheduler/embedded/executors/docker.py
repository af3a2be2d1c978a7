"""Tasks in Docker containers, through the engine's HTTP API.

A container is called ``mesos-<container id>`` and carries a label with our work folder, so that what an
earlier run has left is found, and nobody else's. It is removed when its task has ended; its output is in the
sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer

from scheduler.embedded.executors import (
    Container,
    ContainerLaunchError,
    Launch,
    Outcome,
    ProbeError,
    Running,
)
from scheduler.embedded.executors.docker_config import (
    UsageError,
    container_config,
    container_name,
    image_of,
)
from scheduler.embedded.executors.folder import CACHE, User, open_log, prepare
from scheduler.errors import ClusterError

logger = logging.getLogger(__name__)

WORK_DIR_LABEL: Final = "sdp.cluster.work-dir"
"""Label of our containers; its value is the work folder of the cluster that they belong to."""
USAGE_STATUS: Final = 125
"""Exit status of ``docker run`` when the container cannot be made."""
_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
_KILLED: Final = 137
"""Exit status of a container that was removed while it ran: 128 + SIGKILL."""
_ENGINE_AWAY: Final = 30
"""Times, one second apart, that an engine which does not answer is asked again for a running container."""
_STDERR: Final = 2


class DockerExecutor:
    """Starts tasks in Docker containers.

    Parameters
    ----------
    work_dir
        The cluster's work folder.
    url
        Where the engine listens; None: as the ``docker`` command finds it (``DOCKER_HOST``, its contexts,
        the usual socket).
    """

    def __init__(self, work_dir: Path, url: str | None = None) -> None:
        self._work_dir = work_dir
        self._labels = {WORK_DIR_LABEL: str(work_dir)}
        self._url = url
        self._client: aiodocker.Docker | None = None

    async def launch(self, launch: Launch) -> Container:
        """Make a task's folder and image ready; see :class:`~scheduler.embedded.executors.Executor`."""
        image = image_of(launch)
        user = await asyncio.to_thread(prepare, launch, self._work_dir / CACHE)
        always = bool(launch.task.document["container"]["docker"].get("force_pull_image"))
        await self._provide(image, always=always)
        return _DockerContainer(self._engine(), launch, user, self._labels)

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """Take up containers of an earlier run, and remove the others that it has left.

        Raises
        ------
        ClusterError
            If there is no engine.
        """
        wanted = {container_name(launch.container_id): launch for launch in launches}
        found: dict[str, Container] = {}
        selection = {"label": [f"{WORK_DIR_LABEL}={self._labels[WORK_DIR_LABEL]}"]}
        try:
            left = await self._engine().containers.list(all=True, filters=json.dumps(selection))
            for handle in left:
                name = handle["Names"][0].lstrip("/")
                if (launch := wanted.get(name)) is None or handle["State"] == "created":
                    logger.warning("removing container %s, which an earlier run has left", name)
                    await _remove(handle)
                    continue
                container = _DockerContainer(self._engine(), launch, None, self._labels)
                container.take_up(handle)
                found[launch.container_id] = container
        except (aiodocker.DockerError, aiohttp.ClientError, OSError, ValueError) as exc:
            await self.close()
            raise ClusterError(
                f"cannot reach the Docker engine: {_message(exc)}. "
                "Start it, set DOCKER_HOST, or use another executor"
            ) from exc
        return found

    async def close(self) -> None:
        """Close the connections to the engine."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _engine(self) -> aiodocker.Docker:
        if self._client is None:
            self._client = aiodocker.Docker(self._url)
        return self._client

    async def _provide(self, image: str, *, always: bool) -> None:
        """Pull an image that is not there."""
        images = self._engine().images
        try:
            if not always:
                try:
                    await images.inspect(image)
                except aiodocker.DockerError as exc:
                    if exc.status != 404:
                        raise
                else:
                    return
            await images.pull(image)
        except (aiodocker.DockerError, aiohttp.ClientError, OSError) as exc:
            raise ContainerLaunchError(
                f"Failed to run 'docker pull {image}': exited with status 1; "
                f"stderr='Error response from daemon: {_message(exc)}\n'"
            ) from exc


class _DockerContainer:
    def __init__(
        self,
        engine: aiodocker.Docker,
        launch: Launch,
        user: User | None,
        labels: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._launch = launch
        self._user = user
        self._labels = labels
        self._handle: DockerContainer | None = None
        self._status: int | None = None
        """Exit status, once nothing can run any more without `wait` having to ask."""
        self._runs = False
        self._grace: float | None = None
        """Of a kill that came before the container ran."""
        self._stop_signal = "SIGTERM"
        self._escalation: asyncio.TimerHandle | None = None
        self._output: asyncio.Task[None] | None = None
        self._signals: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """None: the engine has the process."""
        return None

    def take_up(self, handle: DockerContainer) -> None:
        """Be a container that exists already."""
        self._handle = handle

    async def started(self) -> Running | None:
        """Create and start the container; what the engine says of it goes with the status update."""
        if self._grace is not None and self._handle is None:
            self._status = _KILLED
            return None
        try:
            facts = await self._start()
        except UsageError as exc:
            await self._could_not_run(f"{exc}\nSee 'docker run --help'.\n", USAGE_STATUS)
        except ContainerLaunchError as exc:
            await self._could_not_run(f"Failed to run docker container: {exc}\n", USAGE_STATUS)
        except (aiodocker.DockerError, aiohttp.ClientError, OSError) as exc:
            text = _message(exc)
            await self._could_not_run(
                f"docker: Error response from daemon: {text}.\nSee 'docker run --help'.\n",
                _start_status(text),
            )
        else:
            self._runs = True
            if self._grace is not None:
                self.kill(self._grace)
            return Running(json.dumps([facts], indent=4).encode() + b"\n", _address(facts))
        return None

    def kill(self, grace: float) -> None:
        """Send its stop signal, and SIGKILL after `grace` seconds."""
        if not self._runs:
            self._grace = grace
            return
        if self._escalation is None:
            self._send(self._stop_signal)
        elif grace > 0:
            return
        else:
            self._escalation.cancel()
        loop = asyncio.get_running_loop()
        self._escalation = loop.call_later(grace, self._send, "SIGKILL")

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        """Run a check in the container; returns its exit status, raises ``ProbeError``."""
        if self._handle is None:
            raise ProbeError("the container does not run")
        argv = ["/bin/sh", "-c", command.get("value", "")]
        if not command.get("shell", True):
            argv = list(command.get("arguments") or [command.get("value", "")])
        variables = command.get("environment", {}).get("variables", ())
        try:
            check = await self._handle.exec(
                argv, environment={v["name"]: v.get("value", "") for v in variables}
            )
            async with check.start(detach=False) as stream:
                while await stream.read_out() is not None:
                    pass
            status = (await check.inspect())["ExitCode"]
        except (aiodocker.DockerError, aiohttp.ClientError, OSError) as exc:
            raise ProbeError(_message(exc)) from exc
        return int(status)

    async def wait(self) -> Outcome:
        """Return how it ended, when the container has."""
        if self._handle is not None and self._status is None:
            self._status = await self._exit_status(self._handle)
        await self._finish()
        if self._status is None:
            return Outcome.executor_lost("Container terminated")
        return Outcome(self._status == 0, f"Container exited with status {self._status}")

    async def _start(self) -> dict[str, Any]:
        if self._handle is None:
            config = container_config(self._launch, self._labels)
            name = container_name(self._launch.container_id)
            self._handle = await self._engine.containers.create(config, name=name)
            attached = asyncio.Event()
            self._output = asyncio.create_task(self._copy_output(self._handle, attached))
            await attached.wait()  # before the start, so that no output is missed
            await self._handle.start()
        else:
            self._output = asyncio.create_task(self._copy_rest(self._handle))
        facts = await self._handle.show()
        self._stop_signal = facts["Config"].get("StopSignal") or self._stop_signal
        return facts

    async def _could_not_run(self, text: str, status: int) -> None:
        """Leave the reason in the sandbox, as the ``docker`` command does."""
        logger.warning("task %s: %s", self._launch.task.id, text.partition("\n")[0])
        self._status = status
        await self._stop_output()
        await asyncio.to_thread(self._write_error, text)

    def _write_error(self, text: str) -> None:
        with open_log(self._launch.sandbox, "stderr", self._user) as log:
            log.write(text.encode())

    async def _exit_status(self, handle: DockerContainer) -> int | None:
        """Wait for the end; None when the engine does not come back."""
        for _ in range(_ENGINE_AWAY):
            try:
                answer = await handle.wait()
            except aiodocker.DockerError as exc:
                if exc.status == 404:
                    return _KILLED
                logger.warning("container of task %s: %s", self._launch.task.id, exc)
            except (aiohttp.ClientError, OSError) as exc:
                logger.warning("container of task %s: %s", self._launch.task.id, exc)
            else:
                return int(answer["StatusCode"])
            await asyncio.sleep(1)
        return None

    async def _finish(self) -> None:
        if self._escalation is not None:
            self._escalation.cancel()
        self._runs = False
        if self._output is not None and not self._output.done():
            await asyncio.wait([self._output], timeout=5)
        await self._stop_output()
        if self._signals:
            await asyncio.wait(self._signals)
        if self._handle is not None and self._status is not None:
            await _remove(self._handle)

    async def _stop_output(self) -> None:
        if self._output is not None:
            self._output.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._output
            self._output = None

    async def _copy_output(self, handle: DockerContainer, attached: asyncio.Event) -> None:
        """Bring what the container writes into the sandbox."""
        logs = await asyncio.to_thread(self._open_logs)
        try:
            async with handle.attach(stdout=True, stderr=True) as stream:
                attached.set()
                while (message := await stream.read_out()) is not None:
                    log = logs[int(message.stream == _STDERR)]
                    await asyncio.to_thread(log.write, message.data)
        except (aiodocker.DockerError, aiohttp.ClientError, OSError) as exc:
            logger.warning("output of task %s is lost: %s", self._launch.task.id, _message(exc))
        finally:
            attached.set()
            for log in logs:
                log.close()

    async def _copy_rest(self, handle: DockerContainer) -> None:
        """Bring the output of a container that was taken up, from where an earlier run has stopped."""
        logs = await asyncio.to_thread(self._open_logs)
        try:
            async with asyncio.TaskGroup() as group:
                for name, log in zip(("stdout", "stderr"), logs, strict=True):
                    group.create_task(self._copy_stream(handle, name, log))
        finally:
            for log in logs:
                log.close()

    async def _copy_stream(self, handle: DockerContainer, name: str, log: IO[bytes]) -> None:
        known = log.tell()
        try:
            async for text in handle.log(**{name: True}, follow=True):
                data = text.encode()
                fresh = data[known:]
                known -= len(data) - len(fresh)
                await asyncio.to_thread(log.write, fresh)
        except (aiodocker.DockerError, aiohttp.ClientError, OSError, ValueError) as exc:
            logger.warning("%s of task %s is lost: %s", name, self._launch.task.id, _message(exc))

    def _open_logs(self) -> list[IO[bytes]]:
        return [open_log(self._launch.sandbox, name, self._user) for name in ("stdout", "stderr")]

    def _send(self, name: str) -> None:
        """Send a signal, without waiting for the engine."""
        if self._runs and self._handle is not None:
            task = asyncio.create_task(self._signal(self._handle, name))
            self._signals.add(task)
            task.add_done_callback(self._signals.discard)

    async def _signal(self, handle: DockerContainer, name: str) -> None:
        try:
            await handle.kill(signal=name)
        except (aiodocker.DockerError, aiohttp.ClientError, OSError) as exc:
            logger.info("%s to task %s: %s", name, self._launch.task.id, _message(exc))


async def _remove(handle: DockerContainer) -> None:
    try:
        await handle.delete(force=True, v=True)
    except aiodocker.DockerError as exc:
        if exc.status not in (404, 409):  # gone, or somebody is removing it
            logger.warning("container %s stays behind: %s", handle.id[:12], exc.message)
    except (aiohttp.ClientError, OSError) as exc:
        logger.warning("container %s stays behind: %s", handle.id[:12], exc)


def _message(error: Exception) -> str:
    return error.message if isinstance(error, aiodocker.DockerError) else str(error)


def _start_status(text: str) -> int:
    """Tell the exit status of ``docker run`` from what the engine says, as that command does itself."""
    if "executable file not found" in text or "no such file or directory" in text:
        return _NOT_FOUND
    if "permission denied" in text.lower() or "is a directory" in text:
        return _NOT_EXECUTABLE
    return USAGE_STATUS


def _address(facts: Mapping[str, Any]) -> str | None:
    """Return the container's own address; None when it uses its host's."""
    networks = facts.get("NetworkSettings", {}).get("Networks") or {}
    return next((net["IPAddress"] for net in networks.values() if net.get("IPAddress")), None)
