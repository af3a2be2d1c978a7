"""Whoever waits as long as the limits say has been answered."""

from __future__ import annotations

import asyncio
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings

from pipelines.catalogue import CaptureStage
from scheduler.graph import EdgeKind
from sdpcontroller.config import ProductConfig
from sdpcontroller.control import CaptureDone, CaptureInit
from sdpcontroller.errors import CommandError
from sdpcontroller.limits import ENDING_STAGES, STARTING_STAGES, limits
from sdpcontroller.products import captures
from sdpcontroller.products.services import Timeouts
from sdpcontroller.workflows.plan import KILL_GRACE, LAUNCH_TIMEOUT
from tests.faults.virtual import in_virtual_time
from tests.sdpcontroller.documents import build, config_strategy, make_config

STAGES = [[stage.name] for stage in CaptureStage]
FLAGS = {
    "flags_0": {"type": "sdp.flags", "src_streams": ["l0_0", "cal_0"], "archive": True},
}


def in_a_row(config: ProductConfig, kind: EdgeKind) -> int:
    """Tasks on the longest path along edges of a kind."""
    edges = [edge for edge in build(config).graph.edges if edge.kind is kind]
    return len(nx.dag_longest_path(nx.DiGraph([(edge.source, edge.target) for edge in edges])))


@settings(max_examples=20, deadline=None)
@given(config_strategy())
def test_no_product_has_more_tasks_in_a_row_than_the_limits_count(config) -> None:
    assert in_a_row(config, EdgeKind.READY) <= STARTING_STAGES
    assert in_a_row(config, EdgeKind.KILL) <= ENDING_STAGES
    for task in build(config).graph.tasks:
        assert (task.launch_timeout, task.kill_grace) == (LAUNCH_TIMEOUT, KILL_GRACE)


def test_a_product_with_flags_has_as_many_tasks_in_a_row_as_the_limits_count() -> None:
    config = make_config(outputs=FLAGS)
    assert in_a_row(config, EdgeKind.READY) == STARTING_STAGES
    assert in_a_row(config, EdgeKind.KILL) == ENDING_STAGES


class Slow:
    """A link to a task that takes all the time that it is given, and at last refuses or not."""

    def __init__(self, *refuses: str) -> None:
        self.refuses = refuses

    async def request(self, name: str, *arguments: str, timeout: float) -> list[bytes]:
        await asyncio.sleep(timeout)
        if name in self.refuses:
            raise CommandError(f"{name} took too long")
        return []


@in_virtual_time
async def test_a_capture_of_which_every_task_is_as_slow_as_it_may_be_ends_when_the_limit_says() -> (
    None
):
    timeouts = Timeouts()
    links: Any = {stage.name: Slow("capture-done") for stage in CaptureStage}
    links[CaptureStage(0).name] = Slow("capture-init", "capture-done")
    began = asyncio.get_running_loop().time()
    with pytest.raises(CommandError):  # by the last that is told
        await captures.begin(STAGES, links, "1", timeouts.capture_init)
    ending = asyncio.get_running_loop().time()
    failures = await captures.end(STAGES, links, timeouts.capture_done)
    ended = asyncio.get_running_loop().time()
    assert len(failures) == len(STAGES)
    assert ended - ending == pytest.approx(limits(timeouts)[CaptureDone])
    assert ended - began == pytest.approx(limits(timeouts)[CaptureInit])


def test_who_gives_products_more_time_gives_clients_more() -> None:
    short, long = (
        limits(Timeouts()),
        limits(Timeouts(fit=600.0, capture_init=90.0, capture_done=400.0)),
    )
    assert short.keys() == long.keys()
    assert sum(long[command] > short[command] for command in short) == len(short) - 1  # not images
