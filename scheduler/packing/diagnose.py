"""From a search that failed to an :class:`~scheduler.packing.explanation.Explanation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from scheduler.packing import solve
from scheduler.packing.circumstances import Circumstances
from scheduler.packing.combinations import together
from scheduler.packing.explanation import Binding, Explanation, Verdict, Withheld, at_least
from scheduler.packing.relaxation import Relaxation, relax
from scheduler.packing.remedies import THOROUGH, Case, Trials, remedies
from scheduler.packing.shortage import Shortage
from scheduler.placement import Placement
from scheduler.quantities import Ranges, Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot, NumaNode, Topology

ALONE: Final = Circumstances()
"""Nothing is known of what stands around."""
FIRST_STEPS: Final = 3000
"""Steps of the search before a proof is looked for that it is in vain."""
MORE_STEPS: Final = 100_000
"""Steps of the search after that, where somebody waits for the explanation."""


def diagnose(
    agents: Sequence[AgentSnapshot],
    tasks: Mapping[str, TaskRequest],
    shortage: Shortage,
    circumstances: Circumstances = ALONE,
) -> Explanation:
    """Say why tasks do not fit on agents, what binds, whether they ever can, and what would help.

    It depends on nothing but its arguments, and takes some tenths of a second: not for the event loop.

    Parameters
    ----------
    shortage
        What :func:`~scheduler.packing.pack` said of the same agents and tasks.
    """
    now = relax(agents, tasks)
    ever, fits_empty = _ever(tasks, shortage, circumstances)

    def fits(agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest], steps: int) -> bool:
        """Whether a placement is found in so many steps, from the partial one on that there is."""
        found = solve.place(
            agents,
            tasks,
            iterations=steps,
            start=shortage.partial,
            running=circumstances.running,
        )
        return found is not None

    trials = Trials(fits)
    bindings = now.bindings or ever
    case = Case(agents, tasks, shortage.unplaced, circumstances, bindings, shortage.nearest)
    found = remedies(case, trials) or together(case, trials)
    return Explanation(
        shortage=shortage,
        verdict=_verdict(shortage, now, fits_empty=fits_empty),
        left_out=max(at_least(now.left_out), len(shortage.too_big) + len(shortage.never)),
        filled=now.filled,
        bindings=now.bindings,
        ever=ever,
        fits_empty=fits_empty,
        withheld=tuple(
            Withheld(idle.host, idle.reason, idle.serves_others) for idle in circumstances.idle
        ),
        remedies=found,
        tried=trials.made,
    )


def pack_or_explain(
    agents: Sequence[AgentSnapshot],
    tasks: Mapping[str, TaskRequest],
    circumstances: Circumstances = ALONE,
) -> Placement | Explanation:
    """Place tasks like :func:`~scheduler.packing.pack`, or explain why not."""
    packing = partial(
        solve.pack,
        agents,
        tasks,
        capacity=circumstances.most,
        running=circumstances.running,
    )
    answer = packing(iterations=FIRST_STEPS)
    if isinstance(answer, Shortage) and not answer.proven and not relax(agents, tasks).infeasible:
        answer = packing(seed=1, start=answer.partial, iterations=MORE_STEPS)
    if isinstance(answer, Placement):
        return answer
    return diagnose(agents, tasks, answer, circumstances)


def _ever(
    tasks: Mapping[str, TaskRequest],
    shortage: Shortage,
    circumstances: Circumstances,
) -> tuple[tuple[Binding, ...], bool | None]:
    """Say what binds even with the cluster empty, and whether the tasks fit there, as far as it is known."""
    most = circumstances.most
    if most is None:
        return (), None
    if shortage.never:
        return (), False
    for way in circumstances.empty:
        if solve.place(way, tasks, iterations=THOROUGH) is not None:
            return (), True
    empty = relax(most, tasks)
    return (empty.bindings, False) if empty.infeasible else ((), None)


def _verdict(shortage: Shortage, now: Relaxation, *, fits_empty: bool | None) -> Verdict:
    if fits_empty is False:
        return Verdict.NEVER
    if shortage.proven or now.infeasible:
        return Verdict.NOT_NOW
    return Verdict.NOT_FOUND


def warm_up() -> None:
    """Compile and load everything: once, off the event loop, before the first graph."""
    solve.warm_up()
    topology = Topology(numa=(NumaNode(Ranges(((0, 1),))),))
    agent = AgentSnapshot(
        agent_id="1",
        host="1",
        topology=topology,
        free=Resources({"cpus": 1000}),
        address="127.0.0.1",
    )
    tasks = {"a": TaskRequest(cpus=2000)}
    shortage = solve.pack([agent], tasks)
    assert isinstance(shortage, Shortage)  # noqa: S101 - for the type checker: two do not fit on one
    diagnose([agent], tasks, shortage)
