from __future__ import annotations

import importlib
import re
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import templates
from scheduler.graph import ReadyKind
from scheduler.requests import VolumeRequest
from sdpcontroller.config import ProductConfig
from sdpcontroller.errors import ConfigError
from sdpcontroller.workflows import imaging, resources
from sdpcontroller.workflows.imaging import ObservedTarget
from tests.sdpcontroller.documents import make_config

CBID = "1772382000"
VOLUME = "/mnt/data{1}"


def with_images(**parameters: Any) -> ProductConfig:
    image = {"type": "sdp.continuum_image", "src_streams": ["l0_0", "cal_0"], "min_time": 60.0}
    return make_config(outputs={"image": {**image, **parameters}})


CONFIG = with_images()

hostile = st.text(
    st.sampled_from("ab/{}\"'-. |;$`\\\n\té*") | st.characters(exclude_characters="\0"),
    min_size=1,
    max_size=300,
)
calibrators = st.sampled_from(["bpcal", "gaincal", "delaycal"])
targets = st.builds(
    ObservedTarget,
    name=hostile,
    tags=st.sampled_from([frozenset({"radec"}), frozenset({"radec", "target"})])
    | calibrators.map(lambda tag: frozenset({"radec", tag})),
    duration=st.floats(0.5, 1e5),
)
observations = st.lists(targets, max_size=6, unique_by=lambda target: target.name)


def words(plan: imaging.ImagingPlan, name: str) -> list[str]:
    """Fill in the command, as the scheduler does."""
    task = plan.graph.task(name)
    fields = dict.fromkeys(templates.own_fields(task.request), "?")
    fields["volume[data].path"] = VOLUME
    return [templates.resolve(word, fields) for word in task.command]


@settings(max_examples=100, deadline=None)
@given(observations)
def test_names_come_out_as_they_are_and_folders_are_safe(observed: list[ObservedTarget]) -> None:
    plan = imaging.build(CONFIG, "array_1", CBID, {"l0_0": observed})
    if plan.images:
        plan.graph.validate()
    parser = importlib.import_module("pipelines.imaging.options").parser()
    folders = set()
    for image in plan.images:
        command = words(plan, image.task)
        assert command[:3] == ["python3", "-m", "pipelines.imaging"]
        options = parser.parse_args(command[3:])
        assert options.target == image.target
        assert str(options.output) == f"{VOLUME}/{image.directory}"
        assert str(options.dataset) == f"{VOLUME}/{CBID}/{CBID}_l0_0.rdb"
        parts = PurePosixPath(image.directory).parts
        assert parts[0] == CBID and len(parts) == 2
        assert re.fullmatch(r"image-[A-Za-z0-9_+.-]+", parts[1]) and len(parts[1]) < 200
        folders.add(image.directory)
    assert len(folders) == len(plan.images)


@settings(max_examples=100, deadline=None)
@given(observations)
def test_every_target_is_imaged_or_is_accounted_for(observed: list[ObservedTarget]) -> None:
    plan = imaging.build(CONFIG, "array_1", CBID, {"l0_0": observed})
    science = [t for t in observed if not any(tag.endswith("cal") for tag in t.tags)]
    candidates = science or observed  # calibrators only when there is nothing else
    assert [i.target for i in plan.images] == [t.name for t in candidates if t.duration >= 60]
    assert len(plan.images) + len(plan.skipped) == len(candidates)
    assert [task.name for task in plan.graph.tasks] == [image.task for image in plan.images]


def test_images_tell_their_figures_where_the_product_has_a_queue() -> None:
    observed = [ObservedTarget("field", frozenset(), 100.0)]
    plan = imaging.build(CONFIG, "p", CBID, {"l0_0": observed}, ("10.0.0.7", 6379))
    (image,) = plan.images
    parser = importlib.import_module("pipelines.imaging.options").parser()
    options = parser.parse_args(words(plan, image.task)[3:])
    assert (str(options.quality_queue), options.task) == ("10.0.0.7:6379", image.task)


def test_the_same_observation_gives_the_same_plan() -> None:
    observed = [ObservedTarget(name, frozenset({"radec"}), 100.0) for name in "abc"]
    plans = [imaging.build(CONFIG, "p", CBID, {"l0_0": observed}) for _ in range(2)]
    assert plans[0] == plans[1]


def test_what_is_too_short_is_told_with_the_rule() -> None:
    observed = {"l0_0": [ObservedTarget("PKS", frozenset(), 59.94)]}
    plan = imaging.build(CONFIG, "p", CBID, observed)
    assert plan.images == ()
    assert plan.skipped == (
        "image: PKS was observed for 59.9 s, images need 60 s (min_time)",
    )  # fmt: skip


def test_each_image_stream_is_made_from_its_own_visibilities() -> None:
    """Two data sets of one block hold the same targets: each is imaged once for each stream."""
    product = make_config(
        factors=(1, 8),
        outputs={
            f"image_{i}": {
                "type": "sdp.continuum_image",
                "src_streams": [f"l0_{i}", f"cal_{i}"],
                "min_time": 1.0,
            }
            for i in range(2)
        },
    )
    targets = [ObservedTarget("a", frozenset(), 100.0), ObservedTarget("b", frozenset(), 100.0)]
    plan = imaging.build(product, "p", CBID, {"l0_0": targets, "l0_1": targets[:1]})
    made = [(i.stream, i.target, words(plan, i.task)[-1]) for i in plan.images]
    first, second = (f"{VOLUME}/{CBID}/{CBID}_l0_{i}.rdb" for i in range(2))
    assert made == [
        ("image_0", "a", first), ("image_0", "b", first), ("image_1", "a", second),
    ]  # fmt: skip
    assert len({i.directory for i in plan.images}) == 3
    # A stream without a data set is not imaged.
    assert imaging.build(product, "p", CBID, {"l0_1": targets}).images[0].stream == "image_1"


@pytest.mark.parametrize("name", ["output", "target", "applycal", "task", "quality_queue"])
def test_a_document_cannot_take_what_the_workflow_decides(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"parameters\.{name}: is not a setting"):
        with_images(parameters={name: "/etc/cron.d", "niter": 7})


def test_parameters_are_options_and_braces_in_them_are_text() -> None:
    product = with_images(parameters={"major_cycles": 3, "weighting": "{host}"}, max_realtime=90)
    observed = {"l0_0": [ObservedTarget("PKS", frozenset(), 100.0)]}
    plan = imaging.build(product, "p", CBID, observed)
    (task,) = plan.graph.tasks
    assert {"--major-cycles=3", "--weighting={host}"} <= set(words(plan, task.name))
    assert task.max_run_time == 90
    assert task.ready.kind is ReadyKind.EXIT
    assert task.request.volumes == (VolumeRequest.of(resources.DATA_VOLUME),)
