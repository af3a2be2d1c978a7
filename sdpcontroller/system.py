"""The state of the whole: what it is commanded to be, what is wrong, and what is reported.

States and commands are those of the SDP Integration Prototype (report, section 7.4): a *target* is commanded,
the reported state follows it, and alarms and faults show through.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Final

from scheduler.views import LinkChanged, LinkState
from sdpcontroller.control import (
    AgentRecord,
    Alarm,
    ProductRecord,
    ProductState,
    Severity,
    SystemRecord,
)
from sdpcontroller.errors import CommandError
from sdpcontroller.repair import LOST_TOGETHER
from sdpcontroller.store import Store
from sdpcontroller.store.records import Form, Table

_KEY: Final = "target"


class TargetState(enum.Enum):
    """What the system can be commanded to be."""

    ON = "ON"
    """Takes products."""
    DISABLE = "DISABLE"
    """Takes no new products; those that run may finish."""
    STANDBY = "STANDBY"
    """Runs no products: those that run are aborted."""
    OFF = "OFF"
    """As STANDBY, and the machines that can be switched off are."""

    @property
    def ends_products(self) -> bool:
        """Whether products that run are aborted."""
        return self in (TargetState.STANDBY, TargetState.OFF)


def _read(document: dict[str, str]) -> TargetState:
    return TargetState(document["target"])


SYSTEM: Final = Form("system", write=lambda target: {"target": target.value}, read=_read)
"""One record: the target state."""


class Target:
    """The commanded state, kept in the configuration database."""

    def __init__(self, store: Store) -> None:
        self._table: Table[TargetState] = Table(store, SYSTEM)
        self.state = TargetState.ON

    async def load(self) -> None:
        """Read what was commanded before; ON where nothing ever was."""
        row = await self._table.get(_KEY)
        if row is not None:
            self.state = row.value

    async def command(self, state: TargetState) -> None:
        """Record a new target.

        Raises
        ------
        StoreError
            If it could not be recorded; the target is what it was.
        """
        await self._table.put(_KEY, state, event=f"commanded to {state.value}")
        self.state = state

    def check_admits(self) -> None:
        """Raise ``CommandError`` unless new products are taken."""
        if self.state is not TargetState.ON:
            raise CommandError(
                f"the system is commanded to {self.state.value}: it takes no new products until "
                "set-target-state ON"
            )


_WAY_OUT: Final = "an operator must act: sdp framework status"


def alarms(
    link: LinkChanged, products: Iterable[ProductRecord], agents: Iterable[AgentRecord]
) -> tuple[Alarm, ...]:
    """Return what is wrong, the gravest first."""
    found = []
    if link.state is LinkState.LOST:
        found.append(
            Alarm("mesos", Severity.FAULT, f"Mesos has removed us: {link.reason}; {_WAY_OUT}")
        )
    elif link.state is not LinkState.CONNECTED:
        found.append(Alarm("mesos", Severity.ALARM, f"no Mesos master: {link.reason}"))
    found += [
        Alarm(f"product.{record.name}", Severity.ALARM, record.reason)
        for record in products
        if record.state is ProductState.ERROR
    ]
    found += _of_agents(list(agents))
    return ordered(*found)


def ordered(*found: Alarm) -> tuple[Alarm, ...]:
    """Return alarms, the gravest first."""
    return tuple(sorted(found, key=lambda alarm: (alarm.severity.value, alarm.name)))


def _of_agents(agents: list[AgentRecord]) -> list[Alarm]:
    found = [
        Alarm(f"agent.{agent.host}", Severity.WARNING, agent.reason or f"it is {agent.state}")
        for agent in agents
        if agent.state in ("quarantined", "lost")
    ]
    lost = sum(agent.state == "lost" for agent in agents)
    if lost > 1 and lost >= LOST_TOGETHER * len(agents):
        text = f"{lost} of {len(agents)} agents are lost"
        found.append(Alarm("agents", Severity.ALARM, text))
    return found


def reported(target: TargetState, *, up: bool, any_product: bool, wrong: Iterable[Alarm]) -> str:
    """Return the reported state.

    Parameters
    ----------
    up
        Whether the controller can do commands.
    any_product
        Whether there is a product: DISABLE becomes STANDBY when the last one has finished, and STANDBY and
        OFF are reached only then.
    wrong
        See :func:`alarms`; warnings do not show here.
    """
    severities = {alarm.severity for alarm in wrong}
    if not up:
        return "INIT"
    if Severity.FAULT in severities:
        return "FAULT"
    if Severity.ALARM in severities:
        return "ALARM"
    if target is TargetState.ON:
        return "ON"
    if any_product:
        return "DISABLE"
    return "OFF" if target is TargetState.OFF else "STANDBY"


def summed_up(
    target: TargetState,
    link: LinkChanged,
    wrong: Sequence[Alarm],
    *,
    up: bool,
    any_product: bool,
    standbys: Iterable[str],
) -> SystemRecord:
    """Return the record of the whole; parameters as for :func:`reported`, and the controllers that stand by."""
    state = reported(target, up=up, any_product=any_product, wrong=wrong)
    return SystemRecord(
        state, target.value, link.state.value, link.master, tuple(wrong), tuple(standbys)
    )
