"""A client that observes: it knows what it asked for, and brings it about whatever happens to controllers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from tests.faults.bench.bench import Bench, NobodyError, RefusedError
from tests.faults.bench.oracles import EXPENDABLE, Expectation, judge, settled
from tests.sdpcontroller.documents import make_config

IMAGE: dict[str, Any] = {
    "type": "sdp.continuum_image",
    "src_streams": ["l0_0", "cal_0"],
    "min_time": 5.0,
}
DOCUMENT = json.dumps(
    make_config(
        n_antennas=4, n_substreams=1, n_endpoints=1, outputs={"image": IMAGE},
        config={"develop": {"less_resources": True}},
    ).to_json()
)  # fmt: skip


class Observer:
    """One product of one client.

    Parameters
    ----------
    mend
        Is awaited when nobody answered any more: sees that there is a controller again.
    """

    def __init__(self, bench: Bench, name: str, mend: Callable[[], Awaitable[None]]) -> None:
        self.bench = bench
        self.name = name
        self.expected = Expectation()
        self.cbids: list[str] = []
        """Every block id that was told."""
        self._lost_before = 0
        self._mend = mend

    async def _do(self, request: str, *args: object) -> str | None:
        """Ask once; None when nobody knows whether it was done."""
        try:
            reply, _ = await self.bench.ask(request, self.name, *args)
        except NobodyError:
            await self._mend()
            return None
        return reply[0] if reply else ""

    async def _settled(self) -> dict[str, str]:
        """Wait until nothing is on its way, whoever dies meanwhile."""
        while True:
            try:
                return await settled(self.bench)
            except NobodyError:
                await self._mend()

    async def _state(self) -> str:
        return (await self._settled()).get(self.name, "absent")

    async def configure(self) -> None:
        """Bring the product up."""
        self.expected = Expectation(frozenset({"absent", "idle", *self._broken()}))
        while True:
            try:
                if await self._do("product-configure", DOCUMENT) is not None:
                    break
            except RefusedError as exc:
                # What had begun was rolled back, and says so.
                if not any(words in str(exc) for words in _ROLLED_BACK) and not self._excused:
                    raise
                await asyncio.sleep(0.05)
                if self._excused and await self._state() == "error":
                    await self._try("product-deconfigure")
        own = await self._own_tasks()
        self.expected = Expectation(frozenset({"idle", *self._broken()}), own)

    async def _own_tasks(self) -> frozenset[str]:
        graph_id = (await self.bench.table("product"))[self.name]["graph_id"]
        return frozenset(
            task_id
            for task_id in self.bench.running()
            if task_id.startswith(f"{graph_id}.") and task_id.split(".")[1] not in EXPENDABLE
        )

    async def capture_init(self) -> None:
        """Begin a block."""
        before = self.expected
        self.expected = Expectation(frozenset({"idle", "capturing"}), before.tasks)
        while True:
            cbid = await self._try("capture-init")
            if cbid:
                self.cbids.append(cbid)
            state = "capturing" if cbid else await self._state()
            if state == "capturing" or (state == "error" and self._excused):
                break
        self.expected = Expectation(frozenset({"capturing"}), before.tasks)

    async def capture_done(self) -> None:
        """End the block."""
        before = self.expected
        self.expected = Expectation(frozenset({"idle", "capturing"}), before.tasks)
        while not await self._try("capture-done") and await self._state() == "capturing":
            pass
        await self._settled()  # postprocessing included
        self.expected = Expectation(frozenset({"idle"}), before.tasks)

    async def deconfigure(self) -> None:
        """Take the product down."""
        before = self.expected
        self.expected = Expectation(before.states | {"absent"}, before.tasks)
        while await self._try("product-deconfigure") is None and await self._state() != "absent":
            pass
        self.expected = Expectation()

    async def take_stock(self, hosts: Collection[str]) -> None:
        """See what became of the product after machines went down: whatever had a task there is in error.

        A product without one must be as it was.
        """
        state = await self._state()
        if state != "error":
            self.expected = Expectation(self.expected.states - {"error"}, self.expected.tasks)
            return
        reason = (await self.bench.table("product"))[self.name]["reason"]
        assert any(f" on {host} died" in reason for host in hosts), (self.name, hosts, reason)
        self.expected = Expectation(frozenset({"error"}))

    @property
    def _excused(self) -> bool:
        """Whether a machine went down since the present act began."""
        return self.bench.machines_lost > self._lost_before

    def _broken(self) -> tuple[str, ...]:
        return ("error",) if self._excused else ()

    async def act(self, name: str) -> None:
        """Do one of the above."""
        self._lost_before = self.bench.machines_lost
        await getattr(self, name)()

    async def _try(self, request: str) -> str | None:
        """Ask; None also when the controller was about to end, or another had done it already."""
        try:
            return await self._do(request)
        except RefusedError as exc:
            if "was closed, but" in str(exc) and self._excused:
                return str(exc)
            if not any(words in str(exc) for words in _AGAIN) and not self._excused:
                raise
            await asyncio.sleep(0.05)
            return None


_ROLLED_BACK = (
    "the controller was restarted",
    "ask the one that takes over",
    "this controller ends",
    "cannot ",  # … be written, …
    "did not fit before its deadline",
    "no Mesos master since",
    "is deconfiguring",
    "busy with",
)
_AGAIN = (
    "cannot ",
    "ask the one that takes over",
    "busy with",
    "not capturing",
    "is capturing",
    "there is no product",
    "is deconfiguring",
)


async def check(bench: Bench, *observers: Observer) -> None:
    """Fail with all that is wrong."""
    await settled(bench)
    violations = await judge(bench, {o.name: o.expected for o in observers})
    assert not violations, "\n".join(violations)
    cbids = [cbid for observer in observers for cbid in observer.cbids]
    assert len(set(cbids)) == len(cbids), f"capture block ids were given twice: {cbids}"
