"""The recorded scenes with a master in real time: any, with ``--mesos-master=HOST:PORT``; else an embedded one.

``docs/embedded-cluster.md`` says how a master and its agents have to be started for each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.embedded import AgentSpec, Cluster
from scheduler.quantities import Ranges, Resources
from tests.contract.differences import intended, split
from tests.contract.recording import FOLDER, MISSING, load
from tests.contract.remote_scene import RemoteScene, repeatable_part
from tests.contract.replay import Replay
from tests.contract.story import Story
from tests.contract.test_scenarios import SCENARIOS

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=MISSING)

ATTRIBUTES = (
    {"rack": "r1", "weight": "2.5", "sdp.numa.0.cores": "[0-7]", "note": "a:b=c"},
    {"rack": "r2", "weight": "1", "sdp.numa.0.cores": "[0-3,8-11]", "zone": "east-1"},
    {"rack": "r3", "weight": "0.125", "sdp.numa.0.cores": "[0-7]"},
)


def agents() -> list[AgentSpec]:
    """Agents like the recorded ones."""
    gigabit = 10**11 * 1000
    resources = Resources(
        {
            "cpus": 4000,
            "mem": 4_096_000,
            "disk": 10_000_000,
            "gpu.0.compute": 1000,
            "gpu.0.mem": 8_192_000,
            "nic.0.in": gigabit,
            "nic.0.out": gigabit,
        },
        {"ports": Ranges.parse("[31000-32000]"), "cores": Ranges.parse("[0-7]")},
    )
    roles = ("*", "*", "sdp")
    return [
        AgentSpec(f"agent{n}", resources, attributes, default_role=role)
        for n, (attributes, role) in enumerate(zip(ATTRIBUTES, roles, strict=True), start=1)
    ]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_real_master_answers_as_recorded(name: str, request: pytest.FixtureRequest) -> None:
    master = request.config.getoption("--mesos-master")
    if master is None:
        pytest.skip("no --mesos-master=HOST:PORT is given")
    addresses = request.config.getoption("--mesos-agents") or ""
    story = Story(repeatable_part(load(name)))
    story.interval = 0.2
    await Replay(story, RemoteScene(story, master, addresses.split(","))).run()
    assert not story.differences, "\n".join(map(str, story.differences[:40]))


async def test_the_same_way_leads_to_an_embedded_master(tmp_path: Path) -> None:
    """Time plays no part in the first acts of this scene, so that its pauses need not be waited for."""
    recording = load("02_errors")
    act = next(n for n, x in enumerate(recording.lines) if x.get("text", "").startswith("E: "))
    story = Story(repeatable_part(replace(recording, lines=recording.lines[:act])))
    story.interval = 0.2
    cluster = Cluster(agents(), work_dir=tmp_path, port=0, allocation_interval=0.2)
    async with cluster:
        address = "{}:{}".format(*cluster.address)
        await Replay(story, RemoteScene(story, address, longest_pause=0.02)).run()
    left, _ = split(story.differences, intended())
    assert not left, "\n".join(map(str, left[:40]))
    assert story.compared > 100
