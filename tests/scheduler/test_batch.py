"""Run-to-completion graphs: what is skipped, what is excused, what makes room and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler import batch, conditions
from scheduler.embedded import Cluster
from scheduler.errors import GraphError, ImageError, SchedulerError
from scheduler.graph import Edge, EdgeKind
from scheduler.images import ResolvedImage
from scheduler.journal import MemoryJournal
from scheduler.policy import BATCH, REALTIME, Queue
from scheduler.requests import TaskRequest
from scheduler.service import Scheduler
from scheduler.task import Outcome, TaskState
from scheduler.views import LinkState
from tests.conftest import PATIENCE
from tests.scheduler.programs import eventually, physical, scheduler_on, shell

FINISHED, ENDED = EdgeKind.FINISHED, EdgeKind.ENDED


async def test_what_follows_a_failure_is_skipped_or_not_as_its_edge_says(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    graph = physical(
        "b",
        shell("broken", "exit 3"),
        shell("fine", "true"),
        shell("needs", f"touch {tmp_path}/needs"),
        shell("after", f"touch {tmp_path}/after"),
        shell("only.if.fine", f"touch {tmp_path}/any", run_if="any finished"),
        shell("alarm", f"touch {tmp_path}/alarm", run_if="any failed"),
        shell("no.alarm", f"touch {tmp_path}/no", run_if="any failed"),
        shell("of.no.alarm", f"touch {tmp_path}/no"),
        edges=(
            Edge("needs", "broken", FINISHED),
            Edge("after", "broken", ENDED),
            Edge("only.if.fine", "broken", ENDED),
            Edge("only.if.fine", "fine", ENDED),
            Edge("alarm", "broken", ENDED),
            Edge("no.alarm", "fine", ENDED),
            Edge("of.no.alarm", "no.alarm", FINISHED),
        ),
    )
    result = await scheduler.run_batch(graph, attempts=1, timeout=PATIENCE)
    ran = await asyncio.to_thread(lambda: {path.name for path in tmp_path.iterdir()})
    assert ran - {"cluster"} == {"after", "any", "alarm"}
    nodes = result.nodes
    assert nodes["needs"].skipped == "broken did not finish"
    assert not nodes["needs"].excused
    assert "any failed" in nodes["no.alarm"].skipped
    assert nodes["no.alarm"].excused
    assert nodes["of.no.alarm"].excused, "what follows from that is as it should be"
    assert set(result.failed) == {"broken", "needs"}
    assert nodes["needs"].attempts == 0
    assert nodes["needs"].history == ()


async def test_results_tell_of_every_attempt(scheduler: Scheduler, tmp_path: Path) -> None:
    count = tmp_path / "count"
    graph = physical("b", shell("flaky", f"echo x >> {count}; [ $(grep -c x {count}) -ge 2 ]"))
    (node,) = (await scheduler.run_batch(graph, attempts=3, timeout=PATIENCE)).nodes.values()
    first, second = node.history
    assert (first.task_id, second.task_id) == ("b.flaky.0", "b.flaky.1")
    assert first.host.startswith("agent")
    assert node.host == second.host
    assert first.death is not None
    assert (first.death.outcome, first.death.exit_status) == (Outcome.FAILED, 1)
    assert (node.attempts, node.exit_status, node.finished) == (2, 0, True)
    assert first.placed_at is not None
    assert first.placed_at <= first.ended_at <= (second.placed_at or 0) <= second.ended_at


def test_a_condition_that_there_is_not_is_refused() -> None:
    graph = physical("b", shell("t", "true", run_if="the moon is full"))
    with pytest.raises(GraphError, match=r"'the moon is full' of t.*any finished"):
        batch.check(graph)


@pytest.fixture
def moon() -> Iterator[None]:
    conditions.register("the moon is full", lambda needs: not needs)
    yield
    del conditions._REGISTERED["the moon is full"]


@pytest.mark.usefixtures("moon")
async def test_a_condition_can_be_registered_once(scheduler: Scheduler) -> None:
    with pytest.raises(SchedulerError, match="already"):
        conditions.register("the moon is full", lambda needs: True)
    graph = physical("b", shell("t", "true", run_if="the moon is full"))
    assert (await scheduler.run_batch(graph, timeout=PATIENCE)).succeeded


async def test_a_queue_that_there_is_not_is_refused(scheduler: Scheduler) -> None:
    await eventually(lambda: scheduler.link().state is LinkState.CONNECTED)
    graph = physical("g", shell("t", "true"))
    with pytest.raises(GraphError, match="no queue 'express', only realtime, batch"):
        await scheduler.launch(graph, timeout=1, queue="express")
    with pytest.raises(GraphError, match="no queue 'express'"):
        await scheduler.run_batch(graph, timeout=1, queue="express")
    assert scheduler.graphs() == ()


async def test_batch_nodes_make_room_and_come_back_without_using_up_an_attempt(
    cluster: Cluster, journal: MemoryJournal, tmp_path: Path
) -> None:
    """Where the queues say so: an observation comes while images are made."""
    queues = (
        Queue(name="realtime", priority=100, preempts=True),
        Queue(name="batch", preemptible=True),
    )
    big = TaskRequest.of(cpus=1.5, mem_mib=16)
    go = tmp_path / "go"
    images = physical(
        "images",
        *(
            shell(f"image.{n}", f"while [ ! -e {go} ]; do sleep 0.1; done", request=big)
            for n in range(3)
        ),
    )
    async with scheduler_on(cluster, journal, teardown=True, queues=queues) as scheduler:
        making = asyncio.create_task(scheduler.run_batch(images, attempts=1, timeout=60))
        await eventually(
            lambda: (
                bool(scheduler.tasks("images"))
                and all(v.mesos_state == "TASK_RUNNING" for v in scheduler.tasks("images").values())
            )
        )
        observation = physical("observation", shell("t", "sleep 1000", request=big))
        await scheduler.launch(observation, timeout=PATIENCE)
        went = [v for v in scheduler.tasks("images").values() if v.task_id.endswith(".1")]
        assert len(went) == 1, "one node makes room for one task"
        assert scheduler.tasks("observation")["t"].state is TaskState.READY
        await eventually(lambda: bool(scheduler.explain("images")))
        await scheduler.stop("observation")
        go.touch()
        result = await making
    assert result.succeeded
    assert all(node.attempts == 1 for node in result.nodes.values())
    (node,) = (node for node in result.nodes.values() if len(node.history) == 2)
    assert [attempt.preempted for attempt in node.history] == [True, False]
    assert node.history[0].death is not None
    assert node.history[0].death.outcome is Outcome.KILLED


def test_real_time_goes_before_batch_and_nobody_is_ended_by_default() -> None:
    assert REALTIME.priority > BATCH.priority
    assert not (REALTIME.preempts or BATCH.preemptible)


async def test_a_graph_runs_with_the_digests_of_its_images(
    cluster: Cluster, journal: MemoryJournal
) -> None:
    """Without them it does not run at all; what it was launched with is in the journal."""
    digest = "sha256:" + "ab" * 32

    class Images:
        async def resolve(self, name: str) -> ResolvedImage:
            if name == "gone":
                raise ImageError("there is no image gone")
            return ResolvedImage(name, f"{name}@{digest}", digest)

    async with scheduler_on(cluster, journal, teardown=True, images=Images()) as scheduler:
        await eventually(lambda: scheduler.link().state is LinkState.CONNECTED)
        with pytest.raises(ImageError, match="no image gone"):
            await scheduler.launch(physical("g", shell("t", "true", image="gone")), timeout=5)
        assert scheduler.graphs() == ()
        huge = TaskRequest.of(cpus=1.9, mem_mib=2000)
        waiting = asyncio.create_task(
            scheduler.run_batch(
                physical("b", shell("t", "true", image="cal", request=huge)), timeout=30
            )
        )
        await eventually(lambda: "b" in scheduler.graphs())
        state = await journal.load()
        assert state.graphs["b"].tasks["t"].template.image == f"cal@{digest}"
        waiting.cancel()
        await eventually(lambda: scheduler.graphs() == ())
