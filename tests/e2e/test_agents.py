"""Agents that advertise what was found out of machines, as the controller shows, drains and restores them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_setup.advertise import Advertisement, advertise
from agent_setup.discover import Survey, survey
from agent_setup.settings import load
from tests.agent_setup.machines import sources
from tests.agent_setup.operations_tables import PLANS, settings_of
from tests.conftest import PATIENCE
from tests.e2e.system import SDP, Stack, eventually

pytestmark = pytest.mark.e2e


def surveyed(name: str) -> Survey:
    with tempfile.TemporaryDirectory() as folder:
        return survey(load(None, settings_of(name)), sources(PLANS[name], Path(folder)))


def agent(host: str, advertisement: Advertisement, **attributes: str) -> dict[str, Any]:
    resources = {
        name: value if value.startswith("[") else float(value)
        for name, value in advertisement.resource_pairs()
    }
    told = dict(advertisement.attribute_pairs()) | {
        k.replace("__", "."): v for k, v in attributes.items()
    }
    return {"hostname": host, "resources": resources, "attributes": told}


MACHINES = {f"127.0.1.{n}": name for n, name in enumerate(PLANS, 1)}
BROKEN = "127.0.1.9"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    spec = [agent(host, advertise(surveyed(name))) for host, name in MACHINES.items()]
    spec.append(agent(BROKEN, advertise(surveyed("old")), sdp__nic__0__numa="7"))
    with Stack(tmp_path_factory.mktemp("agents"), spec) as stack:
        yield stack


def sdp(cluster: Stack, *words: str) -> str:
    command = [SDP, *words, "--controller", f"127.0.0.1:{cluster.katcp_port}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def agents(cluster: Stack) -> Mapping[str, Mapping[str, str]]:
    return {entry["host"]: entry for entry in json.loads(sdp(cluster, "agents", "--json"))}


def all_seen(cluster: Stack) -> Mapping[str, Mapping[str, str]]:
    def seen() -> Mapping[str, Mapping[str, str]] | None:
        found = agents(cluster)
        return found if len(found) == len(MACHINES) + 1 else None

    found: Mapping[str, Mapping[str, str]] = eventually(
        "every agent is shown", seen, timeout=PATIENCE
    )
    return found


def test_the_controller_has_what_the_machines_were_found_to_have(cluster: Stack) -> None:
    shown = all_seen(cluster)
    for host, name in MACHINES.items():
        found = surveyed(name)
        assert shown[host]["state"] == "up"
        assert shown[host]["free"] == str(found.host + found.topology.resources())


def test_one_whose_facts_contradict_each_other_is_quarantined_alone(cluster: Stack) -> None:
    broken = all_seen(cluster)[BROKEN]
    assert broken["state"] == "quarantined"
    assert "sdp.nic.0.numa=7" in broken["reason"]


def test_a_drained_host_stays_so_until_it_is_put_back(cluster: Stack) -> None:
    host = next(iter(MACHINES))
    all_seen(cluster)
    said = sdp(cluster, "drain", host, "--reason", "a new fan", "--wait", "10")
    assert said == f"{host} gets no new tasks; none is left there\n"
    assert (agents(cluster)[host]["state"], agents(cluster)[host]["reason"]) == (
        "draining",
        "a new fan",
    )
    cluster.kill_master()
    cluster.start_master()
    assert all_seen(cluster)[host]["state"] == "draining", "over a restart"
    sdp(cluster, "undrain", host, "--wait", "10")
    assert agents(cluster)[host]["state"] == "up"
