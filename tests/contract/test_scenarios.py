"""Every recorded scenario again, against the embedded cluster in virtual time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.compare import Difference
from tests.contract.differences import DOCUMENT, Intended, intended, split
from tests.contract.embedded_scene import EmbeddedScene
from tests.contract.recording import FOLDER, MISSING, load
from tests.contract.replay import Replay
from tests.contract.story import Story
from tests.contract.test_recorded_pymesos import COMPARED as PYMESOS

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=MISSING)

SCENARIOS = {
    "01_subscribe": 142,
    "02_errors": 185,
    "03_offers": 137,
    "03b_reserved_resources": 301,
    "03c_filters": 70,
    "04_launch": 310,
    "05_failures": 634,
    "05b_docker_executor_killed": 29,
    "06_acknowledgements": 59,
    "07_reconciliation": 178,
    "08_framework_failover": 132,
    "09_agent_loss": 223,
    "09b_agent_loss_default_timeouts": 13,
    "10_master_restart": 145,
    "10b_master_restart_agent_never_returns": 57,
    "11_operator": 206,
}
"""How many answers and events are compared in each."""


@pytest.fixture(scope="module")
def used() -> dict[str, set[Intended]]:
    """The rows of the table of intended differences that each scenario needs, once it has run."""
    return {}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_what_comes_back_is_what_a_real_master_answered(
    name: str, tmp_path: Path, used: dict[str, set[Intended]]
) -> None:
    story = Story(load(name))
    await Replay(story, EmbeddedScene(story, tmp_path)).run()
    left, needed = split(story.differences, intended())
    used[name] = set(needed)
    assert not left, f"{len(left)} differences\n" + "\n".join(map(str, left[:40]))
    assert story.compared == SCENARIOS[name]


def test_every_intended_difference_is_needed(used: dict[str, set[Intended]]) -> None:
    if used.keys() != SCENARIOS.keys():
        pytest.skip("only some of the scenarios have been run before")
    assert set().union(*used.values()) == set(intended())


def test_no_row_allows_what_it_does_not_name() -> None:
    """The table cannot swallow a state, a reason or an offer of a task."""
    for what in ("UPDATE t TASK_FAILED: state", "offer of agent1", "surplus offer", "RESCIND"):
        for scenario in SCENARIOS:
            difference = Difference(scenario, 0, what, "", "")
            assert not any(row.covers(difference) for row in intended()), difference


def test_the_document_says_how_much_is_compared() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)
    counts = {name: int(count) for name, count in rows}
    assert counts.pop("12_pymesos") == PYMESOS
    assert counts == SCENARIOS
