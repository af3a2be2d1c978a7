"""Ctrl-C and SIGTERM at any moment of a demonstration: it ends soon, and nothing is left anywhere."""

from __future__ import annotations

import signal
from typing import Final

import pytest

from tests.e2e.system import SDP, Run, Terminal, eventually, listens

pytestmark = pytest.mark.e2e

INTERRUPTED: Final = 130
BOUND: Final = 120.0
"""Seconds that the end may take, also on a busy machine."""

MOMENTS: Final = (
    ("Science data processor demo", signal.SIGINT),  # before the first process
    ("The cluster: Mesos master", signal.SIGTERM),  # while services start
    ("product-configure: place", signal.SIGINT),
    ("Observing Demo field", signal.SIGTERM),
    ("Imaging, as", signal.SIGINT),
    ("product-deconfigure: take", signal.SIGTERM),
)
"""Words on the terminal that begin a step, and what comes then."""


@pytest.mark.parametrize(("words", "number"), MOMENTS)
def test_nothing_is_left(run: Run, words: str, number: signal.Signals) -> None:
    output = run.folder / "output"
    command = [SDP, "demo", "--output", str(output), "--seconds", "6", "--calibrator-seconds", "2"]
    with Terminal(run, command) as terminal:
        terminal.wait_for(words, timeout=300)
        ports = run.ports()
        terminal.send(number)
        assert terminal.wait(timeout=BOUND) == INTERRUPTED, terminal.text[-4000:]
        assert "everything was taken down" in terminal.text
    assert run.left() == []
    assert [port for port in sorted(ports) if listens(port)] == []


def test_impatience_changes_nothing(run: Run) -> None:
    """Who presses Ctrl-C again and again gets the same end."""
    with Terminal(run, [SDP, "demo", "--output", str(run.folder / "output")]) as terminal:
        terminal.wait_for("product-configure: place", timeout=300)
        for _ in range(3):
            terminal.press_ctrl_c()
            terminal.send(signal.SIGTERM)
        assert terminal.wait(timeout=BOUND) == INTERRUPTED, terminal.text[-4000:]
    assert run.left() == []


def test_what_a_demonstration_has_started_ends_also_when_it_is_killed(run: Run) -> None:
    with Terminal(run, [SDP, "demo", "--output", str(run.folder / "output")]) as terminal:
        terminal.wait_for("Observing Demo field", timeout=300)
        assert len(run.left()) >= 12  # services and tasks
        terminal.send(signal.SIGKILL)
        assert terminal.wait(timeout=BOUND) == -signal.SIGKILL
        eventually("the end of all processes", lambda: run.left() == [], BOUND)
