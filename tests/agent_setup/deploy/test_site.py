"""The roles, applied to bare machines: what comes of them, and that a second run changes nothing."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from sdpcontroller.cli.main import make_parser
from tests.agent_setup.deploy.conftest import BIN, PASSWORD, PLAYBOOKS, Played, Site
from tests.agent_setup.deploy.mesos_flags import AGENT, MASTER

pytestmark = pytest.mark.ansible


def command_line(unit: str) -> list[str]:
    """Return the program and arguments of a unit."""
    found = re.search(r"^ExecStart=(.*?[^\\])$", unit, re.MULTILINE | re.DOTALL)
    assert found
    return found[1].replace("\\\n", " ").replace("%%", "%").split()


def flags(unit: str) -> dict[str, str]:
    """Return the options of a unit's program by name."""
    pairs = (word.removeprefix("--").partition("=") for word in command_line(unit)[1:])
    return {name: value for name, _, value in pairs}


def test_playbooks_and_roles_are_clean() -> None:
    command = [str(BIN / "ansible-lint"), "--offline", "--nocolor", "--profile", "production"]
    done = subprocess.run(command, cwd=PLAYBOOKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_site_is_applied_and_a_second_run_changes_nothing(
    applied: tuple[Played, Played],
) -> None:
    first, second = applied
    assert first.status == 0, first.output
    assert min(first.changed.values()) > 10, "there was something to do"
    assert second.status == 0, second.output
    assert second.changed == {"agent1": 0, "head1": 0}, second.output


def test_units_are_such_as_systemd_takes(applied: tuple[Played, Played], site: Site) -> None:
    for machine, names in (
        (site.agent, ["mesos-agent", "sdp-realtime"]),
        (site.head, ["mesos-master", "sdp-master"]),
    ):
        for name in names:
            said = machine.run(
                "systemd-analyze",
                "verify",
                "--man=no",
                f"/etc/systemd/system/{name}.service",
                check=False,
            )
            ours = [line for line in said.splitlines() if name in line]
            # the agents' part of the software has no sdp
            assert [
                line for line in ours if "/opt/sdp/current/bin/sdp is not exec" not in line
            ] == []


def test_mesos_is_started_with_flags_that_it_has(
    applied: tuple[Played, Played], site: Site
) -> None:
    agent = site.agent.read("/etc/systemd/system/mesos-agent.service")
    assert set(flags(agent)) <= AGENT
    assert flags(agent)["reconfiguration_policy"] == "additive"
    assert flags(agent)["docker_remove_delay"] == "10mins"
    assert flags(agent)["master"] == "file:///etc/mesos/zk"
    master = site.head.read("/etc/systemd/system/mesos-master.service")
    assert set(flags(master)) <= MASTER
    assert flags(master)["quorum"] == "1"
    assert flags(master)["recovery_agent_removal_limit"] == "20%"
    for machine, unit in ((site.agent, agent), (site.head, master)):
        program, *arguments = command_line(unit)
        assert machine.run(program, *arguments).split() == arguments
    assert site.agent.run("stat", "-c", "%a", "/etc/mesos/zk").strip() == "600"


def test_the_agent_advertises_what_was_found_out(
    applied: tuple[Played, Played], site: Site
) -> None:
    resources = json.loads(site.agent.read("/etc/sdp-agent/resources.json"))
    amounts = {r["name"]: r["scalar"]["value"] for r in resources if r["type"] == "SCALAR"}
    assert amounts["mem"] == 500
    assert "sdp.rack:r07" in site.agent.read("/etc/sdp-agent/attributes").splitlines()
    command = ["sdp-agent-config", "--config=/etc/sdp-agent/settings.toml", "--form=json"]
    assert site.agent.run(*command, "--output=/etc/sdp-agent", "--check") == ""


def test_the_controller_is_started_with_options_that_it_has(
    applied: tuple[Played, Played], site: Site
) -> None:
    unit = site.head.read("/etc/systemd/system/sdp-master.service")
    options = make_parser().parse_args(command_line(unit)[1:])
    assert options.redis == "redis://127.0.0.1:6379/0"
    assert options.mesos.startswith("zk://")
    assert PASSWORD not in unit
    assert site.head.run("stat", "-c", "%a", "/etc/sdp/controller.env").strip() == "600"


def test_secrets_are_not_shown(applied: tuple[Played, Played]) -> None:
    assert "quoted" not in applied[0].output


def test_redis_runs_with_its_settings(applied: tuple[Played, Played], site: Site) -> None:
    script = (
        "redis-server /etc/redis/redis-sdp.conf --supervised no --daemonize yes --logfile /tmp/redis.log;"
        f'ask() {{ redis-cli --no-auth-warning -p {site.redis_port} "$@"; }};'
        "for i in $(seq 100); do ask ping >/dev/null 2>&1 && break; sleep 0.2; done;"
        'ask config get appendonly; export REDISCLI_AUTH="$0";'
        "ask config get appendonly; ask config get maxmemory-policy; ask shutdown nosave"
    )
    said = site.head.run("sh", "-c", script, PASSWORD)
    assert "NOAUTH" in said.splitlines()[0]
    assert said.splitlines()[-4:] == ["appendonly", "yes", "maxmemory-policy", "noeviction"]


def test_zookeeper_runs_with_its_settings(applied: tuple[Played, Played], site: Site) -> None:
    script = (
        "/usr/share/zookeeper/bin/zkServer.sh start >/dev/null 2>&1;"
        "for i in $(seq 50); do"
        f" exec 3<>/dev/tcp/127.0.0.1/{site.zookeeper_port} && printf ruok >&3 && cat <&3 && break;"
        " sleep 0.2; done 2>/dev/null; /usr/share/zookeeper/bin/zkServer.sh stop >/dev/null 2>&1"
    )
    assert site.head.run("bash", "-c", script) == "imok"
    assert site.head.read("/var/lib/zookeeper/myid").strip() == "1"


def test_docker_gets_nvidias_runtime_where_there_is_a_gpu(
    applied: tuple[Played, Played], site: Site
) -> None:
    settings = json.loads(site.agent.read("/etc/docker/daemon.json"))
    assert settings["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
    assert settings["live-restore"] is True
    assert settings["log-opts"] == {"max-size": "100m", "max-file": "3"}


def test_tuning_is_what_was_asked_for_and_no_more(
    applied: tuple[Played, Played], site: Site
) -> None:
    lines = site.agent.read("/etc/sdp-realtime.conf").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "governor performance",
        "mtu ens1f0 9000",
        "irq_cpus ens1f0 0-1",
    ]
    boot = site.agent.read("/etc/default/grub.d/60-sdp-realtime.cfg")
    assert "isolcpus=domain,managed_irq,1 nohz_full=1 rcu_nocbs=1" in boot
    assert "unified_cgroup_hierarchy" not in boot
    parameters = site.agent.read("/etc/sysctl.d/60-sdp-realtime.conf")
    assert "net.core.rmem_max = 268435456" in parameters
    site.agent.run("sysctl", "--dry-run", "--load=/etc/sysctl.d/60-sdp-realtime.conf")


@pytest.mark.parametrize(
    "name", ["prometheus", "prometheus-alertmanager", "prometheus-node-exporter"]
)
def test_figures_are_taken_with_options_that_there_are(
    name: str, applied: tuple[Played, Played], site: Site
) -> None:
    script = f". /etc/default/{name}; exec {name} $ARGS --version"
    assert "version" in site.head.run("sh", "-c", script)
