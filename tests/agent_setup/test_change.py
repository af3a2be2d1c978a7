"""What an agent keeps its tasks over, as Mesos decides it."""

from __future__ import annotations

import pytest

from agent_setup.change import not_additive
from agent_setup.forms import Form

OLD = {
    "attributes/sdp.rack": "r07\n",
    "attributes/sdp.priority": "2\n",
    "attributes/sdp.numa.0.cores": "[0-3]\n",
    "resources/cpus": "4\n",
    "resources/cores": "[0-3]\n",
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"attributes/sdp.island": "a\n"},
        {"attributes/sdp.numa.0.cores": "[0-7]\n"},
        {"resources/cpus": "8\n"},
        {"resources/cores": "[0-7]\n"},
        {"resources/mem": "1\n"},
        {"resources/cpus": "4.000\n"},
    ],
)
def test_more_is_no_reason_to_drain(change: dict[str, str]) -> None:
    assert not_additive(Form.DIRECTORY, OLD, OLD | change) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attributes/sdp.rack": "r08\n"}, "sdp.rack was r07 and is r08"),
        ({"attributes/sdp.rack": "8\n"}, "sdp.rack was r07 and is 8.0"),
        ({"attributes/sdp.priority": "3\n"}, "sdp.priority was 2.0 and is 3.0"),
        ({"attributes/sdp.numa.0.cores": "[1-7]\n"}, "sdp.numa.0.cores was [0-3] and is [1-7]"),
        ({"resources/cpus": "3.5\n"}, "cpus was 4.0 and is 3.5"),
        ({"resources/cores": "[0-2]\n"}, "cores was [0-3] and is [0-2]"),
    ],
)
def test_less_or_other_is(change: dict[str, str], reason: str) -> None:
    assert not_additive(Form.DIRECTORY, OLD, OLD | change) == [reason]


@pytest.mark.parametrize("gone", OLD)
def test_what_is_gone_is(gone: str) -> None:
    left = {name: text for name, text in OLD.items() if name != gone}
    assert not_additive(Form.DIRECTORY, OLD, left) == [
        f"{gone.partition('/')[2]} is no longer there"
    ]


def test_a_new_agent_has_nothing_to_lose() -> None:
    assert not_additive(Form.DIRECTORY, {}, OLD) == []


def test_what_cannot_be_read_is_not_taken_for_nothing() -> None:
    (reason,) = not_additive(Form.ENVIRONMENT, {"": "MESOS_RESOURCES=\n"}, {"": ""})
    assert reason.startswith("what is there cannot be read, so it cannot be compared: ")
