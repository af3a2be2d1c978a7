"""What would change nothing, or could not be made, is refused by path, value and suggestion."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest

from sdpcontroller.errors import ConfigError
from sdpcontroller.workflows import admission, imaging, refusals
from sdpcontroller.workflows.dry_run import planned
from tests.sdpcontroller.documents import make_config

FLAGS: Final = {"type": "sdp.flags", "src_streams": ["l0_0", "cal_0"], "archive": True}
IMAGE: Final = {"type": "sdp.continuum_image", "src_streams": ["flags"]}
CUBE: Final = {"type": "sdp.spectral_image", "src_streams": ["flags", "image"]}
OUTPUTS: Final = {"flags": FLAGS, "image": IMAGE, "cube": CUBE}
IMAGED: Final = make_config(outputs=OUTPUTS)


@pytest.mark.parametrize(
    "read", [admission.check, lambda c: planned(json.dumps(c.to_json()), None)]
)
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"service_overrides": {"ingest.l0_0.7": {"host": "sdp-7"}, "ingest.l0_0.1": {}}},
            r"config\.service_overrides\.ingest\.l0_0\.7: {\"host\": \"sdp-7\"}: there is no task of this "
            r"name; did you mean 'ingest\.l0_0\.\d'\? \(tasks: cal\.cal_0, display\.l0_0, .*\)$",
        ),
    ],
)
def test_an_override_of_what_there_is_not(read: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^{problem}"):
        read(make_config(config=options))


@pytest.mark.parametrize(
    ("images", "notes"),
    [
        ({"ingest": "mine:1", "imager": "mine:1"}, [r"\.imager: "]),
        (
            {"ingets": "mine:1"},
            [
                r"config\.image_overrides\.ingets: \"mine:1\": it has no program of this kind; did you mean "
                r"'ingest'\? \(kinds: cal, correlator, .*\)$"
            ],
        ),
        ({"katsdpcal": "mine:1", "ingest": "mine:2"}, [r"\.katsdpcal: "]),
        ({"ingest": "mine:2"}, []),
    ],
)
def test_an_image_for_no_program_is_told(images: dict[str, str], notes: list[str]) -> None:
    document = make_config(config={"image_overrides": images})
    workflow = admission.checked_workflow(document, "p")
    told = admission.without_effect(document, workflow)
    assert len(told) == len(notes)
    assert all(re.search(note, text) for note, text in zip(notes, told, strict=True))


def test_an_override_of_what_there_is() -> None:
    kinds = ("ingest", "cal", "telstate", "imager", "spectral_imager", "cube_joiner")
    options = {
        "service_overrides": {"ingest.l0_0.1": {"config": {"window": 4}}},
        "image_overrides": dict.fromkeys(kinds, "mine:1"),
    }
    document = make_config(outputs=OUTPUTS, config=options)
    assert not admission.without_effect(document, admission.checked_workflow(document, "p"))


def test_of_many_tasks_some_are_listed() -> None:
    many = make_config(n_antennas=16, factors=(1,) * 10, config={"service_overrides": {"x": {}}})
    with pytest.raises(ConfigError, match=r"cal\.cal_0, .* and \d+ more\)$"):
        admission.check(many)


def test_kinds_of_what_comes_afterwards_are_those_of_its_graph() -> None:
    graph = imaging.of_one_target(IMAGED, "p", 3600.0).graph
    assert {task.kind for task in graph.tasks} <= refusals.offline_kinds(IMAGED)
    assert refusals.offline_kinds(make_config()) == frozenset()


@pytest.mark.parametrize(
    "override",
    [
        {},
        {"outputs": {"image": {"min_time": 1}}},
        {"outputs": {"cube": None}},
        {"outputs": {"second": IMAGE}},
        {"config": {"image_tag": "2", "image_overrides": {"imager": "mine:1"}}},
        {"outputs": {"image": None, "cube": {"src_streams": ["flags"]}}},
        {"config": {"shutdown_delay": 0.0}},
        {"outputs": {"l0_0": {"continuum_factor": 1}}},
    ],
)
def test_a_block_can_change_its_images_and_say_again_what_holds(override: dict[str, Any]) -> None:
    assert admission.of_block(IMAGED, override) == IMAGED.merged(override)


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ({"version": "3.0"}, r"version: \"3\.0\""),
        ({"simulation": {"seed": 2}}, "simulation: "),
        ({"config": {"shutdown_delay": 1.0}}, r"config\.shutdown_delay: 1\.0"),
        ({"config": {"service_overrides": {"telstate": {}}}}, r"config\.service_overrides: "),
        ({"outputs": {"l0_0": {"excise": False}}}, r"outputs\.l0_0: "),
        ({"outputs": {"more": FLAGS}}, r"outputs\.more: "),
        ({"outputs": {"flags": None, "image": None, "cube": None}}, r"outputs\.flags: null"),
    ],
)
def test_it_cannot_change_what_runs(override: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=f"^{path}.*: cannot change for one capture block"):
        admission.of_block(IMAGED, override)


def test_nor_ask_for_what_is_not_made() -> None:
    with pytest.raises(ConfigError, match="only Stokes I is imaged"):
        admission.of_block(IMAGED, {"outputs": {"cube": {"parameters": {"clean_mode": "IQUV"}}}})
