"""What operators do besides products and captures: repair, look into things, command the state of the whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from scheduler.errors import ImageError
from scheduler.images import ImageResolver
from sdpcontroller import names
from sdpcontroller.config.problems import suggestion
from sdpcontroller.control import (
    Command,
    LookUpImage,
    ProductEvent,
    ProductEvents,
    RestartTask,
    SetConfigOverride,
    SetTargetState,
    ShutDown,
    TaskLog,
)
from sdpcontroller.errors import CommandError
from sdpcontroller.overrides import Overrides
from sdpcontroller.products.product import Product
from sdpcontroller.products.record import PRODUCTS
from sdpcontroller.store import Store
from sdpcontroller.system import Target, TargetState

logger = logging.getLogger(__name__)

POWER_OFF_TIMEOUT: Final = 60.0
"""Seconds that switching one machine off may take."""

Handler = Callable[[Any], Coroutine[Any, Any, Any]]


class Operations:
    """Carries operators' commands out.

    Parameters
    ----------
    products
        Those that are not dead, by name.
    hosts
        Of the agents known.
    target
        The commanded state of the whole.
    changed
        Is called when it changed.
    images
        Looks images up; None where no registry is configured.
    power_off
        Program and arguments that switch a machine off, ``{host}`` for its name; empty where there is none.
    """

    def __init__(
        self,
        store: Store,
        *,
        products: Mapping[str, Product],
        hosts: Callable[[], Sequence[str]],
        target: Target,
        overrides: Overrides,
        changed: Callable[[], None],
        images: ImageResolver | None = None,
        power_off: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._products = products
        self._hosts = hosts
        self._target = target
        self._overrides = overrides
        self._changed = changed
        self._images = images
        self._power_off = tuple(power_off)
        self._ending: asyncio.Task[None] | None = None

    def handlers(self) -> dict[type[Command[Any]], Handler]:
        """Return what does each command."""
        return {
            SetConfigOverride: self._set_config_override,
            RestartTask: self._restart_task,
            TaskLog: self._task_log,
            ProductEvents: self._product_events,
            LookUpImage: self._look_up_image,
            SetTargetState: self._set_target_state,
            ShutDown: self._shut_down,
        }

    def product(self, name: str) -> Product:
        """Return a product, or raise ``CommandError`` with those there are."""
        product = self._products.get(name)
        if product is None:
            known = ", ".join(sorted(self._products)) or "none"
            guess = suggestion(name, self._products)
            raise CommandError(f"there is no product {name[:80]!r}{guess} (products: {known})")
        return product

    async def _set_config_override(self, command: SetConfigOverride) -> None:
        names.check(command.name)  # a pattern has no override: it would wait for ever
        await self._overrides.set(command.name, command.override)

    async def _restart_task(self, command: RestartTask) -> tuple[str, ...]:
        return await self.product(command.product).restart_task(command.task)

    async def _task_log(self, command: TaskLog) -> tuple[str, ...]:
        return await self.product(command.product).task_log(command.task)

    async def _product_events(self, command: ProductEvents) -> tuple[ProductEvent, ...]:
        events = await self._store.events(PRODUCTS.table, command.product, count=command.count)
        if not events:
            raise CommandError(f"nothing was ever recorded of a product {command.product[:80]!r}")
        return tuple(ProductEvent(at, text) for at, text in events)

    async def _look_up_image(self, command: LookUpImage) -> str:
        if self._images is None:
            raise CommandError("no registry is configured: see the options of 'sdp master'")
        try:
            resolved = await self._images.resolve(f"{command.repository}:{command.tag}")
        except ImageError as exc:
            raise CommandError(str(exc)) from exc
        return resolved.reference

    # The state of the whole

    async def _set_target_state(self, command: SetTargetState) -> None:
        try:
            target = TargetState(command.target)
        except ValueError:
            known = ", ".join(state.value for state in TargetState)
            raise CommandError(f"{command.target!r:.60} is no state; there are: {known}") from None
        await self._command(target)
        if target.ends_products:
            self._end_later()

    async def _command(self, target: TargetState) -> None:
        await self._target.command(target)
        logger.info("the system is commanded to %s", target.value)
        self._changed()

    def _end_later(self) -> None:
        if self._ending is None or self._ending.done():
            self._ending = asyncio.create_task(self.end_products())

    def resume(self) -> None:
        """Go on with what an earlier controller was commanded to."""
        if self._target.state.ends_products and self._products:
            self._end_later()

    async def end_products(self) -> None:
        """Take all products down, each in order; what goes wrong with one is logged."""
        products = list(self._products.values())
        results = await asyncio.gather(
            *(product.shut_down() for product in products), return_exceptions=True
        )
        for product, result in zip(products, results, strict=True):
            if isinstance(result, BaseException):
                logger.error("%s was not taken down in order: %s", product.name, result)
        self._changed()

    async def close(self) -> None:
        """Stop ending products: another controller goes on with it."""
        if self._ending is not None:
            self._ending.cancel()
            await asyncio.wait({self._ending})

    async def _shut_down(self, command: ShutDown) -> tuple[str, ...]:
        hosts = sorted(set(self._hosts()))
        await self._command(TargetState.OFF)
        await self.end_products()
        if not self._power_off:
            return ()
        results = await asyncio.gather(*(self._switch_off(host) for host in hosts))
        return tuple(host for host, off in zip(hosts, results, strict=True) if off)

    async def _switch_off(self, host: str) -> bool:
        """Switch one machine off; whether that worked."""
        arguments = [part.replace("{host}", host) for part in self._power_off]
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(POWER_OFF_TIMEOUT):
                _, words = await process.communicate()
        except (OSError, TimeoutError) as exc:
            logger.error("%s was not switched off: %s", host, exc or "it takes too long")
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
            return False
        if process.returncode:
            said = words.decode(errors="replace").strip()[-200:]
            logger.error("%s was not switched off: status %d, %s", host, process.returncode, said)
        return process.returncode == 0
