"""The requests. Each docstring is the answer to ``?help``; its first line is the summary.

A handler translates arguments into a command, or records into informs; what may be done now is decided behind
the control plane.

Annotations are evaluated here, unlike in other modules: aiokatcp decodes arguments by them.
"""

from collections.abc import Iterable, Mapping

import aiokatcp
from aiokatcp.server import RequestContext

from katcp_iface.sensor_requests import SensorRequests
from sdpcontroller.config import VERSIONS
from sdpcontroller.config.problems import suggestion
from sdpcontroller.control import (
    CaptureDone,
    CaptureInit,
    ConfigureProduct,
    DeconfigureProduct,
    ExplainProduct,
    MulticastGroups,
    PlanProduct,
    ProductEvents,
    ProductRecord,
    ReconfigureProduct,
    SetConfigOverride,
    SetTransmission,
)

MAX_EVENTS = 10_000
"""Events that one request lists."""
MAX_GROUPS = 4096
"""Multicast addresses that one request can reserve."""


def _lines(text: str) -> Iterable[tuple[str]]:
    return [(line,) for line in text.splitlines()]


class ProductRequests(SensorRequests):
    """Products come and go."""

    def product(self, name: str) -> ProductRecord:
        """Return the record of a product, or fail the request with the names there are."""
        products = self.control.products()
        if name not in products:
            raise aiokatcp.FailReply(
                f"there is no product {name[:80]!r}{suggestion(name, products)} "
                f"(products: {', '.join(sorted(products)) or 'none'})"
            )
        return products[name]

    def chosen(self, name: str | None) -> Mapping[str, ProductRecord]:
        """Return one product, or all; fails as :meth:`product`."""
        return self.control.products() if name is None else {name: self.product(name)}

    async def request_product_configure(
        self, ctx: RequestContext, name: str, config: str
    ) -> tuple[str, str, int]:
        """Bring up a product; replies when every task of it is ready.

        The tasks are placed on the cluster all together or not at all. When they cannot be, the request waits
        for room until its deadline; ?product-explain says what it waits for. A request that fails has been
        undone.

        A second ?product-configure with the same name and configuration does nothing and replies the same (it
        waits, if the first has not finished); with another configuration it fails.

        Parameters
        ----------
        name : str
            Name of the product: letters, digits, _ and -, at most 63. A * is replaced by the first free number.
        config : str
            The product configuration, a JSON document; see ?product-configure-versions.

        Returns
        -------
        name : str
            Name of the product, * replaced.
        host : str
            Host that answers the product's own requests.
        port : int
            Port that answers them.
        """
        address = await self.execute(ConfigureProduct(name, config))
        return address.name, address.host, address.port

    async def request_product_configure_versions(self, ctx: RequestContext) -> None:
        """List the versions of the product configuration that are read.

        Informs
        -------
        version : str
            A value of the document's field `version`.

        Returns
        -------
        informs : int
            Number of versions.
        """
        ctx.informs((version,) for version in VERSIONS)

    async def request_product_deconfigure(
        self, ctx: RequestContext, name: str, force: bool = False
    ) -> None:
        """Take a product down; replies when all its tasks have ended.

        Parameters
        ----------
        name : str
            Name of the product.
        force : bool, optional
            1: a capture block that captures is ended first. 0 (default): the request fails while one does.
        """
        await self.execute(DeconfigureProduct(name, force))

    async def request_product_reconfigure(self, ctx: RequestContext, name: str) -> None:
        """Take a product down and bring it up again with the same configuration.

        It is refused while the product captures. An override set by ?set-config-override is merged in.

        Parameters
        ----------
        name : str
            Name of the product.
        """
        await self.execute(ReconfigureProduct(name))

    async def request_set_config_override(
        self, ctx: RequestContext, name: str, override: str
    ) -> None:
        """Merge changes into the next configuration of a product, once.

        Parameters
        ----------
        name : str
            Name that the product will have, without a *.
        override : str
            A JSON object: it is merged into the document of the next ?product-configure of that name, and then
            forgotten. An empty object forgets what was set before.
        """
        await self.execute(SetConfigOverride(name, override))

    async def request_product_list(self, ctx: RequestContext, name: str | None = None) -> None:
        """List the products and their states.

        Parameters
        ----------
        name : str, optional
            Only this product; fails if there is none of that name.

        Informs
        -------
        name : str
            Name of the product.
        state : {configuring, idle, capturing, deconfiguring, postprocessing, error}
            State of the product.

        Returns
        -------
        informs : int
            Number of products.
        """
        ctx.informs((record.name, record.state) for record in self.chosen(name).values())

    async def request_product_plan(self, ctx: RequestContext, config: str) -> None:
        """Try out a configuration: would it fit now, where, and if not, why not. Touches nothing.

        What a capture block would start when it has ended comes after that: what it asks for, and whether each
        part of it could ever run here.

        Parameters
        ----------
        config : str
            The product configuration, a JSON document.

        Informs
        -------
        line : str
            A line of text for people.

        Returns
        -------
        informs : int
            Number of lines.
        """
        ctx.informs(_lines(await self.execute(PlanProduct(config))))

    async def request_product_explain(self, ctx: RequestContext, name: str) -> None:
        """Say why a product that is being configured is still waiting.

        Parameters
        ----------
        name : str
            Name of the product.

        Informs
        -------
        line : str
            A line of text for people.

        Returns
        -------
        informs : int
            Number of lines.
        """
        ctx.informs(_lines(await self.execute(ExplainProduct(name))))

    async def request_product_events(
        self, ctx: RequestContext, name: str, count: int = 100
    ) -> None:
        """List what happened to a product, oldest first; also to one that is gone, for a month.

        Parameters
        ----------
        name : str
            Name of the product.
        count : int, optional
            The newest so many events (100; at most 10000).

        Informs
        -------
        timestamp : timestamp
            When, Unix time in seconds.
        event : str
            What happened.

        Returns
        -------
        informs : int
            Number of events.
        """
        if not 0 < count <= MAX_EVENTS:
            raise aiokatcp.FailReply(f"count is {count}: expected 1 to {MAX_EVENTS}")
        events = await self.execute(ProductEvents(name, count))
        ctx.informs((aiokatcp.Timestamp(event.at), event.text) for event in events)

    async def request_telstate_endpoint(
        self, ctx: RequestContext, name: str | None = None
    ) -> str | None:
        """Return the endpoint of a product's telescope state, or list those of all products.

        Parameters
        ----------
        name : str, optional
            Name of the product.

        Informs
        -------
        name : str
            Name of the product (only if no name was given).
        endpoint : str
            host:port; empty while it is not known.

        Returns
        -------
        endpoint : str
            host:port of the product; without a name, the number of informs.
        """
        if name is None:
            ctx.informs((r.name, _endpoint(r)) for r in self.control.products().values())
            return None
        record = self.product(name)
        if record.telstate is None:
            raise aiokatcp.FailReply(
                f"product {name} is {record.state.value}: no telescope state yet"
            )
        return _endpoint(record)

    async def request_get_multicast_groups(self, ctx: RequestContext, name: str, n: int) -> str:
        """Reserve a range of multicast addresses for a product.

        The addresses stay reserved until the product is deconfigured.

        Parameters
        ----------
        name : str
            Name of the product.
        n : int
            Number of addresses.

        Returns
        -------
        range : str
            The first address, and how many follow it: 239.192.0.8+3 stands for four.
        """
        if not 0 < n <= MAX_GROUPS:
            raise aiokatcp.FailReply(f"n must be from 1 to {MAX_GROUPS}, not {n}")
        return await self.execute(MulticastGroups(name, n))


def _endpoint(record: ProductRecord) -> str:
    return ":".join(map(str, record.telstate)) if record.telstate is not None else ""


class CaptureRequests(ProductRequests):
    """Capture blocks and simulated data."""

    async def request_capture_init(
        self, ctx: RequestContext, name: str, override: str | None = None
    ) -> str:
        """Begin a capture block; when it replies, everything is ready for data.

        Parameters
        ----------
        name : str
            Name of the product, which must be idle.
        override : str, optional
            A JSON object that is merged over the product's configuration for this block: members replace
            those of the same name, null deletes. What is made of the block afterwards can change (outputs that
            are images, config.image_tag, config.image_overrides); what runs already cannot.

        Returns
        -------
        capture_block_id : str
            Name of the capture block, for ever.
        """
        return await self.execute(CaptureInit(name, override))

    async def request_capture_done(self, ctx: RequestContext, name: str) -> str:
        """End the capture block; replies when its data is drained.

        What is made from the data afterwards goes on; the sensor NAME.capture-block-state tells how far it is.

        Parameters
        ----------
        name : str
            Name of the product.

        Returns
        -------
        capture_block_id : str
            Name of the capture block that ended.
        """
        return await self.execute(CaptureDone(name))

    async def request_capture_status(
        self, ctx: RequestContext, name: str | None = None
    ) -> str | None:
        """Return the state of a product, or list the states of all.

        Parameters
        ----------
        name : str, optional
            Name of the product.

        Informs
        -------
        name : str
            Name of the product (only if no name was given).
        state : {configuring, idle, capturing, deconfiguring, postprocessing, error}
            State of the product.

        Returns
        -------
        state : str
            State of the product; without a name, the number of informs.
        """
        if name is not None:
            return self.product(name).state.value
        ctx.informs((r.name, r.state) for r in self.control.products().values())
        return None

    async def request_capture_start(
        self, ctx: RequestContext, stream: str, product: str | None = None
    ) -> None:
        """Let a simulated correlator stream send its data.

        Parameters
        ----------
        stream : str
            Name of the stream.
        product : str, optional
            Name of the product; needed where several products have a stream of this name.
        """
        await self.execute(SetTransmission(product, stream, on=True))

    async def request_capture_stop(
        self, ctx: RequestContext, stream: str, product: str | None = None
    ) -> None:
        """Let a simulated correlator stream send no more data.

        Parameters
        ----------
        stream : str
            Name of the stream.
        product : str, optional
            Name of the product; needed where several products have a stream of this name.
        """
        await self.execute(SetTransmission(product, stream, on=False))

    async def request_capture_list(self, ctx: RequestContext, stream: str | None = None) -> None:
        """List the streams of simulated correlators.

        Parameters
        ----------
        stream : str, optional
            Only streams of this name; fails if there is none.

        Informs
        -------
        stream : str
            Name of the stream.
        endpoint : str
            Where its data is sent: ADDRESS+N:PORT.
        state : {up, down}
            Whether data is sent.

        Returns
        -------
        informs : int
            Number of streams.
        """
        records = self.control.streams()
        chosen = [record for record in records if stream in (None, record.name)]
        if stream is not None and not chosen:
            names = sorted({record.name for record in records})
            raise aiokatcp.FailReply(
                f"there is no stream {stream[:80]!r}{suggestion(stream, names)} "
                f"(streams: {', '.join(names) or 'none'})"
            )
        ctx.informs((record.name, record.endpoint, record.state) for record in chosen)
