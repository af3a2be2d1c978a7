"""``sdp framework``: how Mesos stands to the controller, and the way out after it has removed it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from scheduler import removal
from scheduler.agents import basic
from scheduler.errors import SchedulerError
from scheduler.journal import TaskRecord
from scheduler.removal import Standing
from sdpcontroller.cli.controller import say
from sdpcontroller.cli.secrets import MESOS_SECRET, REDIS_PASSWORD, secret
from sdpcontroller.cli.service import fail
from sdpcontroller.cli.tls import add_mesos_ca, add_mesos_principal, add_redis_ca, mesos_link
from sdpcontroller.election import Election, ElectionTiming
from sdpcontroller.errors import ControllerError
from sdpcontroller.master import FORMS
from sdpcontroller.store import Store, schema
from sdpcontroller.store.journal import StoreJournal


def add_parser(commands: Any) -> None:
    """Add the subcommand, which has subcommands of its own."""
    parser = commands.add_parser(
        "framework",
        help="show how Mesos stands to the controller; give up an id that Mesos has removed",
        description="After Mesos has removed the framework (somebody tore it down, or no controller came "
        "back in time), the controller stops and takes no new id by itself. These commands work on "
        "the configuration database, with no controller running.",
    )
    acts = parser.add_subparsers(title="acts", metavar="ACT", required=True)
    status = acts.add_parser(
        "status",
        help="show the recorded id, what is recorded as running, and what Mesos says",
        description="Show the recorded id, what is recorded as running under it, and what Mesos says of it.",
    )
    forget = acts.add_parser(
        "forget",
        help="settle what is recorded as running as lost, and give the id up",
        description="Settle what is recorded as running as lost, and give the id up, so that the next "
        "controller registers anew. Refused while a controller leads, or while Mesos knows the framework.",
    )
    forget.add_argument(
        "--confirm",
        metavar="ID",
        help="the id that is given up; without it, it is asked for on the terminal",
    )
    for act, work in ((status, _status), (forget, _forget)):
        act.add_argument(
            "--redis",
            default="redis://127.0.0.1:6379/0",
            metavar="URL",
            help="configuration database (rediss:// for TLS); a password is taken from SDP_REDIS_PASSWORD, or "
            "from the file SDP_REDIS_PASSWORD_FILE",
        )
        add_redis_ca(act)
        add_mesos_ca(act)
        add_mesos_principal(act)
        act.add_argument(
            "--mesos",
            default="127.0.0.1:5050",
            metavar="ADDRESS",
            help="a Mesos master: HOST:PORT, or https://HOST:PORT",
        )
        act.add_argument(
            "--lease",
            type=float,
            default=ElectionTiming().lease,
            metavar="SECONDS",
            help="how long a leading controller that is silent is waited for; as the controllers have it",
        )
        act.add_argument("--json", action="store_true", help="print JSON instead of text")
        act.set_defaults(run=run, work=work)


def run(options: argparse.Namespace) -> int:
    """Run the command: 1 when it was refused."""
    try:
        asyncio.run(options.work(options))
    except (ControllerError, SchedulerError, OSError) as exc:
        return fail(exc)
    return 0


@asynccontextmanager
async def _database(options: argparse.Namespace) -> AsyncIterator[Store]:
    store = await Store.connect(
        options.redis, password=secret(REDIS_PASSWORD), authority=options.redis_ca
    )
    try:
        await schema.check(store, FORMS)
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def _alone(options: argparse.Namespace, store: Store) -> AsyncIterator[None]:
    """Hold the lease of the leadership: no controller acts meanwhile.

    Raises
    ------
    ControllerError
        If a controller leads.
    """
    timing = ElectionTiming.of(options.lease)
    election = Election(store, "sdp framework", timing)
    try:
        async with asyncio.timeout(timing.lease + 5 * timing.poll):
            leadership = await election.win()
    except TimeoutError:
        raise ControllerError(
            f"the controller at {election.leader or '?'} leads: end it and those that stand by first"
        ) from None
    keeping = asyncio.create_task(leadership.keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await leadership.resign()


async def _status(options: argparse.Namespace) -> None:
    async with _database(options) as store:
        state = await StoreJournal(store).load()
    if state.framework_id is None:
        say(
            options,
            "no framework id is recorded: the next controller registers anew",
            {"framework_id": None},
        )
        return
    stands = await _ask(options, state.framework_id)
    lost = removal.running(state)
    say(
        options,
        f"framework {state.framework_id} is {stands.value}\n{_told(lost)}",
        {
            "framework_id": state.framework_id,
            "mesos": stands.name.lower(),
            "running": sorted(record.task_id for record in lost),
        },
    )


async def _ask(options: argparse.Namespace, framework_id: str) -> Standing:
    master, tls = mesos_link(options)
    authorization = basic(options.mesos_principal, secret(MESOS_SECRET))
    return await removal.ask(master, framework_id, authorization=authorization, tls=tls)


async def _forget(options: argparse.Namespace) -> None:
    async with _database(options) as store, _alone(options, store):
        await schema.migrate(store, FORMS)
        journal = StoreJournal(store)
        state = await journal.load()
        framework_id = state.framework_id
        if framework_id is None:
            raise ControllerError("no framework id is recorded: there is nothing to give up")
        stands = await _ask(options, framework_id)
        if stands in (Standing.CONNECTED, Standing.AWAITED):
            raise ControllerError(
                f"framework {framework_id} is {stands.value}: start a controller, which goes on with it"
            )
        warning = f"framework {framework_id} is {stands.value}\n{_told(removal.running(state))}"
        await _confirm(options, framework_id, warning)
        lost = await removal.give_up(journal)
    say(
        options,
        f"framework {framework_id} is given up, {len(lost)} tasks are settled as lost: "
        "the next controller registers anew",
        {"framework_id": framework_id, "lost": sorted(record.task_id for record in lost)},
    )


def _told(records: Sequence[TaskRecord]) -> str:
    """Say what is recorded as running, by graph."""
    if not records:
        return "nothing is recorded as running under it"
    graphs = Counter(record.graph_id for record in records)
    lines = (f"  {graph_id}: {count} tasks" for graph_id, count in sorted(graphs.items()))
    return "recorded as running under it:\n" + "\n".join(lines)


async def _confirm(options: argparse.Namespace, framework_id: str, warning: str) -> None:
    """Let a person say that this is meant.

    Raises
    ------
    ControllerError
        If another id is named, or none and there is nobody to ask.
    """
    named = options.confirm
    if named is None:
        if not sys.stdin.isatty():
            raise ControllerError(f"{warning}\nsay that this is meant: --confirm {framework_id}")
        sys.stderr.write(f"{warning}\nAll of that is settled as lost. Type the id to go on: ")
        sys.stderr.flush()
        named = (await asyncio.to_thread(sys.stdin.readline)).strip()
    if named != framework_id:
        raise ControllerError(
            f"{named!r:.80} is not the recorded id {framework_id}: nothing was changed"
        )
