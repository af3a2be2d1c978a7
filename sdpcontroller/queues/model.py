"""What a document of queues consists of: frozen, and checked as a whole."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import Field

from scheduler.policy import Limits, Order, Queue
from scheduler.quantities import Millis, millis
from sdpcontroller.config.fields import Count, Flag, Model, Name, Positive
from sdpcontroller.config.problems import Problem, suggestion

MAX_QUEUES: Final = 32
MAX_RULES: Final = 100
_PRIORITY: Final = 1000

Role = Annotated[
    str,
    Field(
        strict=True, min_length=1, max_length=255, pattern=r"^(\*|[A-Za-z0-9_][A-Za-z0-9_./-]*)$"
    ),
]
"""A role of Mesos."""
Pattern = Annotated[
    str, Field(strict=True, min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_*?\[\]!-]+$")
]
"""Product names: ``*`` is any text, ``?`` any character, ``[ab]`` one of some."""


class Work(enum.Enum):
    """The kinds of work that wait in queues."""

    PRODUCTS = "products"
    """The real-time graph of a product, as a whole."""
    POSTPROCESSING = "postprocessing"
    """The batch graph of a capture block; each of its tasks by itself."""


def _millis(amount: float | None) -> Millis | None:
    return None if amount is None else millis(amount)


class LimitSettings(Model):
    """How much the tasks of a queue may hold at a time, together; no limit where none is given."""

    tasks: Count | None = Field(default=None, description="Tasks [count].")
    cpus: Positive | None = Field(default=None, description="CPUs, pinned cores included [CPUs].")
    mem_mib: Positive | None = Field(default=None, description="Memory [MiB].")
    gpus: Positive | None = Field(
        default=None, description="Shares of compute added up: 1.5 is one and a half [GPUs]."
    )

    def limits(self) -> Limits:
        """Return them as the scheduler has them."""
        return Limits(
            tasks=_millis(self.tasks),
            cpus=_millis(self.cpus),
            mem=_millis(self.mem_mib),
            gpus=_millis(self.gpus),
        )


class QueueSettings(Model):
    """One queue of graphs that wait for a place."""

    priority: int = Field(
        default=0,
        strict=True,
        ge=-_PRIORITY,
        le=_PRIORITY,
        description="Everybody of a higher queue is tried before all of a lower one [rank].",
    )
    order: Literal["arrival", "deadline"] = Field(
        default="arrival",
        description="Who of the queue is tried first: who came first, or whose time is up first.",
    )
    roles: tuple[Role, ...] = Field(
        default=(),
        max_length=16,
        description="Only what Mesos offers in these of the `roles` is used; in all, if none are named.",
    )
    backfill: Flag = Field(
        default=True,
        description="Whether its graphs may pass one that waits before them, on what that does not need.",
    )
    preempts: Flag = Field(
        default=False,
        description="Whether tasks of preemptible queues of lower priority are ended where that makes room.",
    )
    preemptible: Flag = Field(
        default=False,
        description="Whether its batch tasks may be ended so: to be run again, and no attempt is used up.",
    )
    limits: LimitSettings | None = Field(
        default=None,
        description="How much its tasks may hold at a time, an object. Behind one that waits for that, nobody "
        "of the queue is tried; what is restarted within a product that is up goes beyond it.",
    )

    def queue(self, name: str) -> Queue:
        """Return it as the scheduler has it."""
        return Queue(
            name=name,
            priority=self.priority,
            order=Order(self.order),
            roles=self.roles,
            backfill=self.backfill,
            preempts=self.preempts,
            preemptible=self.preemptible,
            limits=None if self.limits is None else self.limits.limits(),
        )


class WorkSettings(Model):
    """In which queue each kind of work waits, where no rule says otherwise."""

    products: Name = Field(
        default="realtime",
        description="The real-time graph of a product, as a whole; not a preemptible queue.",
    )
    postprocessing: Name = Field(
        default="batch", description="The batch graph of a capture block; each task by itself."
    )


class Rule(Model):
    """Other queues for some products."""

    product: Pattern = Field(
        description="Names of products; `*` is any text, `?` any character: `eng_*`."
    )
    products: Name | None = Field(default=None, description="As in `work`; as there, if not given.")
    postprocessing: Name | None = Field(
        default=None, description="As in `work`; as there, if not given."
    )


class QueuesConfig(Model):
    """The queues of a controller."""

    queues: Mapping[Name, QueueSettings] = Field(
        min_length=1, max_length=MAX_QUEUES, description="By name, in no order."
    )
    work: WorkSettings = Field(
        default=WorkSettings(), description="In which queue each kind of work waits, an object."
    )
    rules: tuple[Rule, ...] = Field(
        default=(),
        max_length=MAX_RULES,
        description="Other queues for some products, a list of objects; the first that names one for the work "
        "counts.",
    )
    roles: tuple[Role, ...] = Field(
        default=("sdp",),
        min_length=1,
        max_length=16,
        description="The roles of the controller at Mesos.",
    )

    def declared(self) -> tuple[Queue, ...]:
        """Return the queues, the highest first."""
        made = [settings.queue(name) for name, settings in self.queues.items()]
        return tuple(sorted(made, key=lambda queue: (-queue.priority, queue.name)))

    def queue_of(self, work: Work, product: str) -> str:
        """Return the name of the queue in which work of a product waits."""
        for rule in self.rules:
            named: str | None = getattr(rule, work.value)
            if named is not None and fnmatchcase(product, rule.product):
                return named
        chosen: str = getattr(self.work, work.value)
        return chosen

    def problems(self) -> list[Problem]:
        """Return what is wrong with it as a whole."""
        return [*self._unknown(), *self._of_roles(), *self._of_preemption()]

    def _named(self) -> Iterator[tuple[tuple[str | int, ...], Work, str]]:
        """Yield every place that names a queue, and for what."""
        for work in Work:
            yield ("work", work.value), work, getattr(self.work, work.value)
            for number, rule in enumerate(self.rules):
                if (named := getattr(rule, work.value)) is not None:
                    yield ("rules", number, work.value), work, named

    def _unknown(self) -> Iterator[Problem]:
        for path, work, name in self._named():
            if name not in self.queues:
                known = ", ".join(self.queues)
                rule = f"is not among the queues{suggestion(name, self.queues)} (queues: {known})"
                yield Problem(path, rule, name)
            elif work is Work.PRODUCTS and self.queues[name].preemptible:
                rule = "is a preemptible queue: a product's graph is never ended for others; name another"
                yield Problem(path, rule, name)

    def _of_roles(self) -> Iterator[Problem]:
        for name, settings in self.queues.items():
            for number, role in enumerate(settings.roles):
                if role not in self.roles:
                    known = ", ".join(self.roles)
                    rule = f"is not among `roles`{suggestion(role, self.roles)} (roles: {known})"
                    yield Problem(("queues", name, "roles", number), rule, role)

    def _of_preemption(self) -> Iterator[Problem]:
        """A setting that can have no effect is a mistake."""
        victims = [s.priority for s in self.queues.values() if s.preemptible]
        enders = [s.priority for s in self.queues.values() if s.preempts]
        for name, settings in self.queues.items():
            if settings.preempts and not any(n < settings.priority for n in victims):
                rule = "ends nobody: no queue of lower priority is preemptible"
                yield Problem(("queues", name, "preempts"), rule, True)
            if settings.preemptible and not any(n > settings.priority for n in enders):
                rule = "is ended for nobody: no queue of higher priority preempts"
                yield Problem(("queues", name, "preemptible"), rule, True)


BUILT_IN: Final = QueuesConfig(
    queues={"realtime": QueueSettings(priority=100), "batch": QueueSettings()}
)
"""What holds where nothing is declared: real time goes first, and nobody is ended for anybody."""
