"""The master controller: admits commands, holds the products, tells façades what changes.

It is the :class:`~sdpcontroller.control.ControlPlane` of its process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from scheduler.crash_points import CrashPoint
from scheduler.errors import SchedulerError
from scheduler.images import ImageResolver
from scheduler.service import Scheduler
from scheduler.threads import compute
from scheduler.views import Change, LinkChanged, LinkState, TaskChanged
from sdpcontroller import config, names
from sdpcontroller.agents import agent_record
from sdpcontroller.audience import Audience
from sdpcontroller.complaints import Complaints
from sdpcontroller.control import (
    AgentRecord,
    Alarm,
    CaptureDone,
    CaptureInit,
    Command,
    ConfigureProduct,
    DeconfigureProduct,
    Listener,
    MulticastGroups,
    ProductAddress,
    ProductRecord,
    ProductState,
    QueueRecord,
    ReconfigureProduct,
    StreamRecord,
    SystemRecord,
    TaskSensor,
)
from sdpcontroller.draining import Draining
from sdpcontroller.errors import CommandError
from sdpcontroller.limits import limits
from sdpcontroller.lost_writes import LostWrites
from sdpcontroller.making_room import MakingRoom
from sdpcontroller.multicast import DEFAULT_POOL, GROUPS, MulticastPool
from sdpcontroller.operations import Handler, Operations
from sdpcontroller.overrides import OVERRIDES, Overrides, Wanted
from sdpcontroller.planning import Planning
from sdpcontroller.products.ownership import owned, owner
from sdpcontroller.products.product import Product
from sdpcontroller.products.record import BATCHES, PRODUCTS
from sdpcontroller.products.services import Figures, NoFigures, Services, Timeouts
from sdpcontroller.queues import BUILT_IN, QUEUES, Assigned, QueuesConfig
from sdpcontroller.repair import REPAIR, Repair
from sdpcontroller.store import Store
from sdpcontroller.store.journal import JOURNAL_FORMS
from sdpcontroller.store.records import Form, Table
from sdpcontroller.system import SYSTEM, Target, alarms, ordered, summed_up
from sdpcontroller.tidying import tidy
from sdpcontroller.transmissions import Transmissions

logger = logging.getLogger(__name__)

R = TypeVar("R")

_HANDED_OVER: Final = "this controller ends: ask the one that takes over how far it got"

FORMS: Final[tuple[Form[Any], ...]] = (
    *(PRODUCTS, BATCHES, GROUPS, OVERRIDES, SYSTEM, REPAIR, QUEUES),
    *JOURNAL_FORMS,
)
"""Everything that the controller keeps: what a successor must be able to read."""

_LOADED: Final = CrashPoint("recovery.loaded", "records are read, the link to Mesos is not made")
_TAKEN_UP: Final = CrashPoint("recovery.taken-up", "graphs are taken up, no product has gone on")


class _LeavingError(Exception):
    """Ends the task group of a controller that ends in order."""


class Master:
    """The controller's top; :meth:`run` is its life.

    Parameters
    ----------
    store
        The configuration database.
    scheduler
        Not started yet; its journal is in the same database.
    address
        Host and port that answer the products' requests.
    multicast
        Network of the multicast addresses for products.
    timeouts
        How long products wait.
    may_act
        Whether this controller leads at the moment; see :mod:`sdpcontroller.election`.
    end_products
        Whether products are taken down when the controller is told to end; else the next goes on with them.
    images
        Looks container images up; None where no registry is configured.
    power_off
        Program and arguments that switch a machine off, ``{host}`` for its name.
    image
        Container image of the programs; None: they run as processes on their agents.
    standbys
        The controllers that stand by; :meth:`tell_system` is to be called when they change.
    figures
        Is told of what becomes of tasks.
    queues
        Where products and their postprocessing wait for their place; the scheduler has the same.
    alarms
        What else may be wrong; :meth:`tell_system` is to be called when that changes.
    """

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        *,
        address: tuple[str, int],
        multicast: str = DEFAULT_POOL,
        timeouts: Timeouts | None = None,
        may_act: Callable[[], bool] = lambda: True,
        end_products: bool = False,
        images: ImageResolver | None = None,
        power_off: Sequence[str] = (),
        image: str | None = None,
        standbys: Callable[[], Sequence[str]] = tuple,
        figures: Figures | None = None,
        alarms: Callable[[], Sequence[Alarm]] = tuple,
        queues: QueuesConfig = BUILT_IN,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._address = address
        self._multicast = MulticastPool(store, multicast)
        self._timeouts = timeouts or Timeouts()
        self._image = image
        self._may_act = may_act
        self._standbys = standbys
        self._alarms = alarms
        self._queues = Assigned(queues)
        self._figures: Figures = figures or NoFigures()
        self._end_products = end_products
        self._products: dict[str, Product] = {}
        self._audience = Audience()
        self._link = LinkChanged(LinkState.DISCONNECTED, "", "not connected yet")
        self._services: Services | None = None
        self._stopping = False
        self._target = Target(store)
        self._overrides = Overrides(store)
        self._repair = Repair(store, self.tell_system)
        self._complaints = Complaints()
        self._lost_writes = LostWrites(self._products, self.tell_system)
        self._room = MakingRoom(self._products, self.tell_system)
        self._operations = Operations(
            store,
            products=self._products,
            hosts=lambda: [agent.host for agent in self.agents()],
            target=self._target,
            overrides=self._overrides,
            changed=self.tell_system,
            images=images,
            power_off=power_off,
        )
        self._transmissions = Transmissions(self._products, self._product)
        self._commands: set[asyncio.Task[Any]] = set()
        self._handlers = self._all_handlers()

    def _all_handlers(self) -> Mapping[type[Command[Any]], Handler]:
        """Return what does each command."""
        return {
            ConfigureProduct: self._configure,
            DeconfigureProduct: self._deconfigure,
            ReconfigureProduct: self._reconfigure,
            CaptureInit: self._capture_init,
            CaptureDone: self._capture_done,
            MulticastGroups: self._multicast_groups,
            **self._operations.handlers(),
            **self._transmissions.handlers(),
            **Draining(self._scheduler, self.agents, self.products).handlers(),
            **self._repair.handlers(),
            **Planning(self._scheduler, self._image, self._queues, self._product).handlers(),
        }

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Connect to the cluster, go on with the products there are, serve until `stop` is set.

        When it is cancelled, nothing is taken down or undone: another controller leads.

        Raises
        ------
        StoreError
            If the database cannot be read.
        """
        await self._multicast.load()
        await self._target.load()
        await self._overrides.load()
        await self._repair.load()
        try:
            async with asyncio.TaskGroup() as background:
                await self._run(background, ready, stop)
                raise _LeavingError  # ends whatever goes on in the background
        except* _LeavingError:
            pass
        finally:
            self._services = None
            # Only now that nothing goes on that could open another link.
            await asyncio.gather(*(product.leave() for product in self._products.values()))

    async def _run(
        self, background: asyncio.TaskGroup, ready: asyncio.Event, stop: asyncio.Event
    ) -> None:
        services = Services(
            scheduler=self._scheduler,
            store=self._store,
            multicast=self._multicast,
            background=background,
            product_changed=self._product_changed,
            sensor_changed=self._sensor_changed,
            timeouts=self._timeouts,
            queues=self._queues,
            image=self._image,
            may_act=self._may_act,
            may_repair=self._repair.allowed,
            note_loss=self._lost_writes.note,
            figures=self._figures,
        )
        self._products.update(await self._load_products(services))
        _LOADED.reached()
        self._scheduler.subscribe(self._scheduler_changed)
        try:
            async with self._scheduler:
                try:
                    await self._serve(services, ready, stop)
                finally:
                    services.leaving.set()
        finally:
            await self._leave()

    async def _serve(self, services: Services, ready: asyncio.Event, stop: asyncio.Event) -> None:
        self._services = services
        services.background.create_task(self._watch_scheduler())
        await self._recover(services)
        _TAKEN_UP.reached()
        self._figures.reached("taken-up")
        ready.set()
        await stop.wait()
        self._stopping = True
        if self._end_products:
            await self._operations.end_products()

    async def _load_products(self, services: Services) -> dict[str, Product]:
        products: dict[str, Product] = {}
        for name, row in (await Table(self._store, PRODUCTS).load()).items():
            document = await compute(config.parse, row.value.config)
            products[name] = Product(row.value, services, version=row.version, config=document)
        return products

    async def _recover(self, services: Services) -> None:
        """Go on with everything that an earlier controller has left; no command is taken meanwhile."""
        known = owned(self._products.values())
        for graph_id in set(self._scheduler.graphs()) - known:  # nobody begins one yet
            logger.warning("graph %s belongs to no product: taken down", graph_id)
            services.background.create_task(self._scheduler.stop(graph_id))
        recoveries = []
        for product in tuple(self._products.values()):
            recoveries.append(services.background.create_task(product.recover()))
            await asyncio.sleep(0)  # each looks at hundreds of tasks first,
            _ = product.record  # and writes down how they are: not all when somebody listens
        services.background.create_task(self._linked(recoveries))
        tidying = tidy(self._store, self._multicast, self._products)
        services.background.create_task(tidying)
        self._operations.resume()

    async def _linked(self, recoveries: Collection[asyncio.Task[None]]) -> None:
        """Take note when all products have gone on."""
        if recoveries:
            await asyncio.wait(recoveries)
        self._figures.reached("linked")

    async def _watch_scheduler(self) -> None:
        """Die with the scheduler: without it nothing here means anything."""
        if self._scheduler.failed is not None:
            await asyncio.shield(self._scheduler.failed)

    async def _leave(self) -> None:
        """End what goes on here, and undo nothing: the tasks run on."""
        await self._operations.close()
        for command in tuple(self._commands):
            command.cancel()
        await asyncio.gather(*self._commands, return_exceptions=True)

    # ControlPlane

    async def execute(self, command: Command[R]) -> R:
        """Do what the command says; it goes on when the caller is cancelled.

        Raises
        ------
        ControllerError
            If it cannot be done; nothing has changed then, or it was undone.
        """
        services = self._up()
        handler = self._handlers[type(command)]
        # A client that goes away in mid-command must not leave the command half done.
        task = asyncio.create_task(handler(command))
        self._commands.add(task)
        task.add_done_callback(self._command_done)
        try:
            return cast(R, await asyncio.shield(task))
        except (asyncio.CancelledError, SchedulerError) as exc:
            # Not the client was cancelled, but the command; or the scheduler has ended before it.
            if task.cancelled() or (isinstance(exc, SchedulerError) and services.leaving.is_set()):
                raise CommandError(_HANDED_OVER) from None
            raise

    def _up(self) -> Services:
        """Return what commands need; raise ``CommandError`` when none can be done."""
        if self._stopping:
            raise CommandError(_HANDED_OVER)
        if self._services is None:
            raise CommandError("the controller is not up")
        return self._services

    def products(self) -> Mapping[str, ProductRecord]:
        """All products that are not dead, by name."""
        return {name: product.record for name, product in self._products.items()}

    def agents(self) -> Sequence[AgentRecord]:
        """All agents known, by host."""
        return sorted(
            (agent_record(view) for view in self._scheduler.agents()), key=lambda a: a.host
        )

    def queues(self) -> Sequence[QueueRecord]:
        """Return the queues, the highest first."""
        return self._queues.records(self._scheduler.waiting())

    def streams(self) -> Sequence[StreamRecord]:
        """All streams of simulated correlators."""
        return self._transmissions.streams()

    def system(self) -> SystemRecord:
        """Return the state of the whole."""
        products = self.products()
        wrong = ordered(
            *self._alarms(),
            *self._repair.alarms(),
            *self._lost_writes.alarms(),
            *self._room.alarms(),
            *alarms(self._link, products.values(), self.agents()),
            *self._complaints.alarms(products),
        )
        return summed_up(
            self._target.state,
            self._link,
            wrong,
            up=self._services is not None,
            any_product=bool(self._products),
            standbys=self._standbys(),
        )

    def limits(self) -> Mapping[type[Command[Any]], float]:
        """Seconds after which a command has certainly been answered, of those that may take long."""
        return limits(self._timeouts)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Register a listener; it is told of what exists at once. The returned function ends it."""
        leave = self._audience.add(listener)
        listener.system_changed()
        for product in self._products.values():
            listener.product_changed(product.record)
        return leave

    # Commands

    async def _configure(self, command: ConfigureProduct) -> ProductAddress:
        document = await compute(config.parse, command.config)
        name = names.free(command.name, self._products)
        if name in self._products:
            return await self._same_product(self._products[name], document)
        self._target.check_admits()
        wanted = await compute(self._overrides.applied, name, command.config, document)
        name = names.free(command.name, self._products)  # nothing happens until it is taken
        if name in self._products:
            return await self._same_product(self._products[name], document)
        self._target.check_admits()
        await self._bring_up(name, command.config, wanted)
        return ProductAddress(name, *self._address)

    async def _bring_up(self, name: str, given: str, wanted: Wanted) -> None:
        """Configure a product that there is not, with the override that waits for it."""
        self._overrides.check_holds(name, wanted)
        before = given if wanted.override is not None else ""
        product = Product.new(name, wanted.text, self._up(), given=before, config=wanted.config)
        self._products[name] = product
        await product.configure()
        await self._overrides.forget(name)

    async def _reconfigure(self, command: ReconfigureProduct) -> ProductAddress:
        name, product = command.name, self._product(command.name)
        self._target.check_admits()
        given, document = product.given_text, product.given
        # Refused before it is taken down; and that may take so long that the override changes.
        await compute(self._overrides.applied, name, given, document)
        await product.deconfigure(force=False)
        wanted = await compute(self._overrides.applied, name, given, document)
        if name in self._products:
            raise CommandError(
                f"product {name} is down, but its postprocessing goes on: configure it later"
            )
        await self._bring_up(name, given, wanted)
        return ProductAddress(name, *self._address)

    async def _same_product(
        self, product: Product, document: config.ProductConfig
    ) -> ProductAddress:
        if document not in (product.given, product.config):
            raise CommandError(
                f"product {product.name} exists with another configuration: deconfigure it first"
            )
        if product.record.state is ProductState.CONFIGURING:
            await product.configured()
        if product.record.state not in (ProductState.IDLE, ProductState.CAPTURING):
            raise CommandError(f"product {product.name} is {product.record.state.value}")
        return ProductAddress(product.name, *self._address)

    async def _deconfigure(self, command: DeconfigureProduct) -> None:
        await self._product(command.name).deconfigure(force=command.force)

    async def _capture_init(self, command: CaptureInit) -> str:
        return await self._product(command.product).capture_init(command.override)

    async def _capture_done(self, command: CaptureDone) -> str:
        return await self._product(command.product).capture_done()

    async def _multicast_groups(self, command: MulticastGroups) -> str:
        product = self._product(command.product)
        first = await self._multicast.take(product.name, command.count)
        return f"{first}+{command.count - 1}" if command.count > 1 else first

    def _command_done(self, task: asyncio.Task[Any]) -> None:
        self._commands.discard(task)
        _ = task.cancelled() or task.exception()  # looked at, also where its caller has gone away

    def _product(self, name: str) -> Product:
        return self._operations.product(name)

    # Changes

    def _scheduler_changed(self, change: Change) -> None:
        if self._lost_writes.take(change) or self._room.take(change):
            return
        if isinstance(change, TaskChanged):
            product = owner(change.view.graph_id, self._products.values())
            if product is not None:
                product.task_changed(change.view)
            return
        if isinstance(change, LinkChanged):
            self._link = change
        if self._services is not None:
            awaited = self._scheduler.awaited_hosts()
            self._repair.look(self.agents(), awaited, self._services.background)
        self.tell_system()

    def tell_system(self) -> None:
        """Tell that something of the whole changed."""
        self._audience.tell(lambda listener: listener.system_changed())

    def _product_changed(self, record: ProductRecord) -> None:
        self._transmissions.product_changed(record)
        if record.state is ProductState.DEAD:
            self._products.pop(record.name, None)
            self._complaints.forget(record.name)
            self._audience.tell(lambda listener: listener.product_gone(record.name))
        else:
            self._audience.tell(lambda listener: listener.product_changed(record))

    def _sensor_changed(self, sensor: TaskSensor) -> None:
        self._transmissions.take(sensor)
        if self._complaints.take(sensor):
            self.tell_system()
        self._audience.tell(lambda listener: listener.sensor_changed(sensor))
