"""Faults as JSON documents, for the HTTP API: one model for each, checked before anything happens."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from scheduler.embedded.faults import Delay, Drop, Duplicate, Faults, Hang, Refuse, Reorder
from scheduler.embedded.faults.rules import CallAction, EventAction
from scheduler.quantities import Ranges, Resources, millis

Seconds: TypeAlias = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]
Status: TypeAlias = Annotated[int, Field(ge=400, le=599)]


class _Request(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    async def apply(self, faults: Faults) -> Any:
        """Let it happen; return what there is to tell."""
        raise NotImplementedError


class _Whom(_Request):
    kind: str | None = None
    framework: str | None = None
    task: str | None = None
    agent: str | None = None
    times: Annotated[int, Field(ge=1)] | None = None

    def selection(self) -> dict[str, Any]:
        """Return the fields of a rule."""
        names = ("framework", "task", "agent")
        times = math.inf if self.times is None else self.times
        return {name: getattr(self, name) for name in names} | {"times": times}


class Event(_Whom):
    """Events on their way to frameworks get lost, late, doubled or out of order."""

    fault: Literal["event"]
    action: Literal["drop", "delay", "duplicate", "reorder"]
    state: str | None = None
    seconds: Seconds = 5.0
    copies: Annotated[int, Field(ge=2, le=100)] = 2

    async def apply(self, faults: Faults) -> None:
        """Add the rule."""
        actions: dict[str, EventAction] = {
            "drop": Drop(),
            "delay": Delay(self.seconds),
            "duplicate": Duplicate(self.copies),
            "reorder": Reorder(),
        }
        faults.on_event(
            actions[self.action], self.kind or "UPDATE", state=self.state, **self.selection()
        )


class Call(_Whom):
    """Calls on their way to the master get lost, late, refused or stuck."""

    fault: Literal["call"]
    action: Literal["drop", "delay", "refuse", "hang"]
    seconds: Seconds = 5.0
    status: Status = 503
    text: Annotated[str, Field(max_length=1000)] = ""

    async def apply(self, faults: Faults) -> None:
        """Add the rule."""
        actions: dict[str, CallAction] = {
            "drop": Drop(),
            "delay": Delay(self.seconds),
            "refuse": Refuse(self.status, self.text),
            "hang": Hang(),
        }
        faults.on_call(actions[self.action], self.kind, **self.selection())


class Window(_Request):
    """Every request of the scheduler API is answered with an error for a while."""

    fault: Literal["window"]
    status: Status = 503
    seconds: Seconds = 5.0
    text: Annotated[str, Field(max_length=1000)] = ""

    async def apply(self, faults: Faults) -> None:
        """Open the window."""
        faults.refuse_requests(self.status, self.seconds, self.text)


class Silence(_Request):
    """Connections of frameworks are half open from now on."""

    fault: Literal["silence"]
    framework: str = "*"

    async def apply(self, faults: Faults) -> Any:
        """Return how many."""
        return {"streams": faults.silence(self.framework)}


class Error(_Request):
    """Frameworks get an ERROR event, and their streams end."""

    fault: Literal["error"]
    message: Annotated[str, Field(max_length=1000)]
    framework: str = "*"

    async def apply(self, faults: Faults) -> None:
        """Send it."""
        faults.send_error(self.message, self.framework)


class Rescind(_Request):
    """Offers of agents are rescinded."""

    fault: Literal["rescind"]
    agent: str = "*"

    async def apply(self, faults: Faults) -> Any:
        """Return how many."""
        return {"offers": faults.rescind(self.agent)}


class OnAgent(_Request):
    """Something happens to an agent, by its host name."""

    fault: Literal[
        "withhold",
        "offer-again",
        "partition",
        "heal",
        "kill-agent",
        "lose-machine",
        "restart-agent",
    ]
    agent: str
    down: Seconds = 2.5
    """For which it is away when it restarts."""

    async def apply(self, faults: Faults) -> None:
        """Let it happen."""
        if self.fault == "restart-agent":
            await faults.restart_agent(self.agent, self.down)
            return
        what = {
            "withhold": faults.withhold,
            "offer-again": faults.offer_again,
            "partition": faults.partition,
            "heal": faults.heal,
            "kill-agent": faults.kill_agent,
            "lose-machine": faults.lose_machine,
        }
        what[self.fault](self.agent)


class StartAgent(_Request):
    """An agent that has died comes back, perhaps with something else than it had."""

    fault: Literal["start-agent"]
    agent: str
    resources: dict[str, float | str] | None = None
    """Amounts of scalars, and ranges as text: ``{"cpus": 4, "ports": "[31000-31999]"}``."""
    attributes: dict[str, str] | None = None
    fresh: bool = False

    async def apply(self, faults: Faults) -> None:
        """Start it."""
        resources = None if self.resources is None else read_resources(self.resources)
        faults.start_agent(
            self.agent, resources=resources, attributes=self.attributes, fresh=self.fresh
        )


class FailOver(_Request):
    """The master dies, and another one leads."""

    fault: Literal["fail-over"]
    down: Seconds = 1.0
    recovery: Seconds = 0.5
    agents_after: Seconds = 3.0

    async def apply(self, faults: Faults) -> None:
        """Return when agents have found the new master."""
        await faults.fail_over(self.down, self.recovery, self.agents_after)


FaultRequest: TypeAlias = Annotated[
    Event | Call | Window | Silence | Error | Rescind | OnAgent | StartAgent | FailOver,
    Field(discriminator="fault"),
]
REQUEST: TypeAdapter[FaultRequest] = TypeAdapter(FaultRequest)


def read_resources(amounts: dict[str, float | str]) -> Resources:
    """Read amounts of resources.

    Raises
    ------
    QuantityError
        If one is neither a number nor ranges.
    """
    scalars = {name: millis(str(v)) for name, v in amounts.items() if not isinstance(v, str)}
    ranges = {name: Ranges.parse(v) for name, v in amounts.items() if isinstance(v, str)}
    return Resources(scalars, ranges)
