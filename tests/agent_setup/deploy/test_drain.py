"""The playbooks ask a real controller before they touch an agent."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.agent_setup.deploy.conftest import Played, Site
from tests.e2e.system import Stack

pytestmark = pytest.mark.ansible

HOST = "127.0.1.1"
"""As which the controller knows the machine: an agent of a cluster here stands for the one there."""
LATEST = "/var/lib/mesos/agent/meta/slaves/latest"


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    agent = {"hostname": HOST, "resources": {"cpus": 4, "mem": 1000, "ports": "[20000-20100]"}}
    with Stack(tmp_path_factory.mktemp("stack"), [agent]) as stack:
        yield stack


def variables(controller: Stack, **more: object) -> tuple[str, str]:
    told = {
        "sdp_software_profile": "agent",
        "sdp_controller_endpoint": f"127.0.0.1:{controller.katcp_port}",
        "mesos_agent_hostname": HOST,
        **more,
    }
    return "-e", json.dumps(told)


def test_a_machine_is_drained_and_put_back(
    applied: tuple[Played, Played], site: Site, controller: Stack
) -> None:
    drained = site.play("drain.yml", *variables(controller))
    assert drained.status == 0, drained.output
    assert f"{HOST} gets no new tasks; none is left there" in drained.output
    back = site.play("drain.yml", *variables(controller, sdp_drain=False))
    assert back.status == 0, back.output
    assert f"{HOST} gets tasks again" in back.output


def test_what_costs_an_agent_its_tasks_is_done_when_it_is_empty(
    applied: tuple[Played, Played], site: Site, controller: Stack
) -> None:
    settings = {"networks": {"cbf": ["lo"]}, "rack": "r08", "disk_mib": 1000, "mem_mib": 500}
    site.agent.run("mkdir", "-p", LATEST)
    change = {"agent_discovery_settings": settings}
    refused = site.play(
        "site.yml",
        "--tags=discovery",
        *variables(controller, **change, agent_discovery_drain=False),
    )
    assert refused.status != 0
    assert "sdp.rack was r07 and is r08" in refused.output
    site.agent.run("test", "-e", LATEST)
    done = site.play("site.yml", "--tags=discovery", *variables(controller, **change))
    assert done.status == 0, done.output
    assert "sdp.rack:r08" in site.agent.read("/etc/sdp-agent/attributes").splitlines()
    site.agent.run("test", "!", "-e", LATEST)
    again = site.play("site.yml", "--tags=discovery", *variables(controller, **change))
    assert again.changed["agent1"] == 0, again.output


def test_an_upgrade_waits_for_the_controllers_word(
    applied: tuple[Played, Played], site: Site, controller: Stack
) -> None:
    done = site.play("upgrade.yml", *variables(controller))
    assert done.status == 0, done.output
    order = [line for line in done.output.splitlines() if line.startswith("TASK")]
    assert "Drain the agent" in order[1]
    assert "Put the agent back" in order[-1]
    nowhere = variables(controller, sdp_controller_endpoint="127.0.0.1:1")
    failed = site.play("upgrade.yml", *nowhere)
    assert failed.status != 0, "without the controller's word nothing is touched"
    assert failed.changed["agent1"] == 0
