"""The spectral imaging workflow: parts of cubes, in the order in which they need each other."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import catalogue
from scheduler import templates
from scheduler.batch import check
from scheduler.graph import EdgeKind, ReadyKind, TaskTemplate, instantiate
from sdpcontroller.cli.resources import as_data
from sdpcontroller.config import ProductConfig
from sdpcontroller.workflows import imaging
from sdpcontroller.workflows.imaging import ImagingPlan, ObservedTarget
from tests.sdpcontroller.documents import make_config

CBID = "1772382000"
VOLUME = "/mnt/data{1}"
FLAGS = {"type": "sdp.flags", "src_streams": ["l0_0", "cal_0"], "archive": True}


def with_cube(*, continuum: bool = False, **fields: Any) -> ProductConfig:
    """1024 channels of four antennas."""
    image = {"type": "sdp.continuum_image", "src_streams": ["flags"], "min_time": 60.0}
    sources = ["flags", "image"] if continuum else ["flags"]
    cube = {"type": "sdp.spectral_image", "src_streams": sources, "min_time": 60.0, **fields}
    outputs = {"flags": FLAGS, "cube": cube} | ({"image": image} if continuum else {})
    return make_config(outputs=outputs)


def target(name: str, duration: float = 100.0, *tags: str) -> ObservedTarget:
    return ObservedTarget(name, frozenset(tags), duration)


def build(config: ProductConfig, *targets: ObservedTarget) -> ImagingPlan:
    plan = imaging.build(config, "array_1", CBID, {"l0_0": targets})
    if plan.graph.tasks:
        plan.graph.validate()
        check(instantiate(plan.graph, "batch"))
    return plan


def words(task: TaskTemplate) -> list[str]:
    """Fill in the command, as the scheduler does."""
    fields = dict.fromkeys(templates.own_fields(task.request), "?")
    fields["volume[data].path"] = VOLUME
    return [templates.resolve(word, fields) for word in task.command]


def of_kind(plan: ImagingPlan, kind: str) -> list[TaskTemplate]:
    return [task for task in plan.graph.tasks if task.kind == kind]


def needs(plan: ImagingPlan, name: str) -> set[str]:
    edges = [edge for edge in plan.graph.edges if edge.source == name]
    assert all(edge.kind is EdgeKind.FINISHED for edge in edges)
    return {edge.target for edge in edges}


def options_of(task: TaskTemplate) -> Any:
    command = words(task)
    assert command[:2] == ["python3", "-m"]
    module = {"pipelines.imaging": "pipelines.imaging.options"}.get(command[2], command[2])
    return importlib.import_module(module).parser().parse_args(command[3:])


ranges = st.tuples(st.integers(0, 1023), st.integers(1, 1024)).filter(lambda r: r[0] < r[1])


@settings(max_examples=30, deadline=None)
@given(ranges)
def test_every_channel_is_imaged_once_and_joined(wanted: tuple[int, int]) -> None:
    plan = build(with_cube(output_channels=list(wanted)), target("A"), target("B/{x}"))
    joiners = of_kind(plan, "cube_joiner")
    assert [image.task for image in plan.images] == [task.name for task in joiners]
    for image, joiner in zip(plan.images, joiners, strict=True):
        joined = options_of(joiner)
        assert joined.channels == f"{wanted[0]}:{wanted[1]}"
        seen: list[int] = []
        for name in sorted(needs(plan, joiner.name), key=lambda n: int(n.rsplit(".", 1)[1])):
            options = options_of(plan.graph.task(name))
            first, end = (int(x) for x in options.channels.split(":"))
            seen += range(first, end)
            assert end - first <= catalogue.CUBE_CHANNELS
            assert (options.part, options.name, options.target) == (True, joined.name, image.target)
            assert str(options.output) == str(joined.output) == f"{VOLUME}/{image.directory}"
            assert str(options.dataset) == f"{VOLUME}/{CBID}/{CBID}_l0_0.rdb"
            assert options.applycal
        assert seen == list(range(*wanted))


def test_a_joiner_tells_its_figures_where_the_product_has_a_queue() -> None:
    observed = {"l0_0": [target("A")]}
    plan = imaging.build(with_cube(), "array_1", CBID, observed, ("10.0.0.7", 6379))
    (joiner,) = of_kind(plan, "cube_joiner")
    options = options_of(joiner)
    assert (str(options.quality_queue), options.task) == ("10.0.0.7:6379", joiner.name)


def test_the_continuum_is_imaged_before_it_is_subtracted() -> None:
    plan = build(with_cube(continuum=True), target("A"), target("B"))
    imagers = {options_of(task).target: task for task in of_kind(plan, "imager")}
    for part in of_kind(plan, "spectral_imager"):
        options = options_of(part)
        imager = imagers[options.target]
        assert needs(plan, part.name) == {imager.name}
        made = options_of(imager)
        assert str(options.subtract) == f"{made.output}/{made.name}-components.fits"


def test_a_target_without_continuum_is_left_out_and_told() -> None:
    config = with_cube(continuum=True, min_time=10.0)
    plan = build(config, target("A", 100), target("B", 20))
    assert [i.target for i in plan.images if i.stream == "cube"] == ["A"]
    assert "cube: B has no image to subtract" in plan.skipped


def test_what_is_too_short_is_told_with_the_rule() -> None:
    plan = build(with_cube(min_time=3600.0), target("A", 59.94))
    assert plan.images == () and plan.graph.tasks == ()
    assert plan.skipped == (
        "cube: A was observed for 59.9 s, images need 3600 s (min_time)",
    )  # fmt: skip


def test_what_the_document_says_in_meerkats_terms_is_said_to_the_imager() -> None:
    parameters = {
        "robustness": -0.5,
        "loop_gain": 0.2,
        "threshold": 4.0,
        "major": 5,
        "minor": 100,
        "w_slices": 8,
    }
    plan = build(with_cube(parameters=parameters), target("A"))
    options = options_of(of_kind(plan, "spectral_imager")[0])
    assert (options.robust, options.gain, options.sigmas) == (-0.5, 0.2, 4.0)
    assert (options.major_cycles, options.niter) == (5, 500)


def test_the_same_observation_gives_the_same_plan() -> None:
    config = with_cube(continuum=True)
    assert build(config, target("A")) == build(config, target("A"))


def test_every_task_ends_by_itself_and_says_what_it_asks_for() -> None:
    plan = build(with_cube(continuum=True), target("A"))
    assert set(plan.asked) == {task.name for task in plan.graph.tasks}
    for task in plan.graph.tasks:
        assert task.ready.kind is ReadyKind.EXIT and task.max_run_time
        amounts = {q.formula.resource: q.value for q in plan.asked[task.name]}
        assert task.request.mem == 1000 * amounts["mem"]
        assert all(q.formula.program == task.kind for q in plan.asked[task.name])


def test_memory_follows_what_was_observed() -> None:
    short, long = (
        of_kind(build(with_cube(), target("A", duration)), "spectral_imager")[0].request.mem
        for duration in (60.0, 36_000.0)
    )
    assert short < long


@pytest.mark.parametrize("continuum", [False, True])
def test_golden_totals(continuum: bool) -> None:
    """A change must be a decision. To renew: look at what differs, and write it here."""
    document = with_cube(continuum=continuum)
    plan = imaging.of_one_target(document, "p", imaging.least_time(document))
    cubes = {"CPUs": 16.5, "memory, MiB": 16 * 1311 + 478}
    imager = {"CPUs": 1.0, "memory, MiB": 1566} if continuum else {}
    total = as_data(plan)["total"]
    for resource, amount in cubes.items():
        assert total[resource] == amount + imager.get(resource, 0)
    assert len(plan.graph.tasks) == 17 + continuum
