"""Two machines to which the whole site is applied, twice."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.agent_setup.deploy.machines import Machine, lacking, machines
from tests.conftest import free_port

ROOT: Final = Path(__file__).parents[3]
PLAYBOOKS: Final = ROOT / "agent_setup/ansible"
BUILD: Final = ROOT / "build"
BIN: Final = Path(sys.executable).parent
PASSWORD: Final = 'a "quoted" $word%'  # noqa: S105 - of a server that lives for a second

LSTOPO: Final = """#!/bin/sh
exec /usr/bin/lstopo-no-graphics -i "pack:1 [numa(memory=4GiB)] core:2 pu:1" "$@"
"""

RECAP: Final = re.compile(
    r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M
)


@dataclass(frozen=True)
class Played:
    """What came of a playbook."""

    status: int
    output: str

    @property
    def changed(self) -> dict[str, int]:
        """Number of changes by machine."""
        return {match[1]: int(match[3]) for match in RECAP.finditer(self.output)}


@dataclass(frozen=True)
class Site:
    """The machines, and how to play to them."""

    agent: Machine
    head: Machine
    folder: Path
    redis_port: int
    zookeeper_port: int

    def play(self, book: str, *options: str) -> Played:
        """Run a playbook."""
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
            "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection_plugins"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [
            str(BIN / "ansible-playbook"),
            "-i",
            str(self.folder / "hosts.yml"),
            book,
            *options,
        ]
        done = subprocess.run(
            command,
            cwd=PLAYBOOKS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1800,  # a loaded machine is no failure
        )
        return Played(done.returncode, done.stdout)


def mesos_archive(path: Path) -> Path:
    """Make an archive laid out as Mesos' own; the programs only tell how they were called."""
    with tarfile.open(path, "w:gz") as archive:
        for name in ("sbin/mesos-agent", "sbin/mesos-master", "libexec/mesos/mesos-containerizer"):
            script = b'#!/bin/sh\nprintf "%s\\n" "$@"\n'
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(script), 0o755
            archive.addfile(entry, io.BytesIO(script))
    return path


def inventory(folder: Path, made: list[Machine], ports: tuple[int, int]) -> dict[str, Any]:
    """Return the inventory of the two machines."""
    hosts = {
        machine.name: {"ansible_enclosure_prefix": " ".join(f"'{part}'" for part in machine.prefix)}
        for machine in made
    }
    return {
        "all": {
            "hosts": hosts,
            "children": {
                group: {"hosts": {name: {}}}
                for group, name in {
                    "agents": "agent1",
                    "mesos_masters": "head1",
                    "databases": "head1",
                    "controllers": "head1",
                    "monitoring": "head1",
                }.items()
            },
            "vars": {
                "ansible_connection": "enclosure",
                "ansible_become": False,
                "ansible_pipelining": True,
                "ansible_remote_tmp": "/root/.ansible/tmp",
                "sdp_address": "127.0.0.1",
                "sdp_mesos_zk": f"zk://127.0.0.1:{ports[1]}/mesos",
                "sdp_redis_host": "127.0.0.1",
                "sdp_ask_from": "localhost",
                "sdp_command": str(BIN / "sdp"),
                "sdp_controller_endpoint": "127.0.0.1:5001",
                "sdp_software_wheelhouse": str(BUILD / "wheelhouse"),
                "mesos_package_from": "archive",
                "mesos_package_archive": str(mesos_archive(folder / "mesos.tar.gz")),
                "mesos_package_libraries": [],
                "zookeeper_client_port": ports[1],
                "zookeeper_hosts": ["head1"],
                "redis_port": ports[0],
                "redis_password": PASSWORD,
                "controller_redis_password": PASSWORD,
                "monitoring_webhook": "http://127.0.0.1:9/alarms",
                "monitoring_pushgateway": "127.0.0.1:9091",
                "agent_discovery_settings": {
                    "networks": {"cbf": ["lo"], "sdp_10g": ["127.0.0.0/8"]},
                    "rack": "r07",
                    "disk_mib": 1000,
                    "mem_mib": 500,
                    "volumes": {"data": {"path": "/srv"}},
                },
                "docker_engine_nvidia": True,
                "docker_engine_nvidia_package": "ca-certificates",  # NVIDIA's is not Debian's
                "realtime_tuning_governor": "performance",
                "realtime_tuning_isolated_cpus": "1",
                "realtime_tuning_interfaces": [{"name": "ens1f0", "mtu": 9000, "irq_cpus": "0-1"}],
            },
        }
    }


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two bare machines."""
    if reason := lacking():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("site")
    wheels = [str(ROOT / "scripts/wheelhouse"), str(BUILD / "wheelhouse"), "agent"]
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(wheels, check=True, env=environment, capture_output=True)
    ports = (free_port(), free_port())
    with machines(["agent1", "head1"], BUILD) as made:
        # a virtual machine's own memory may be another a minute later
        made[0].run("sh", "-c", 'printf "%s" "$0" > /usr/local/bin/lstopo-no-graphics', LSTOPO)
        made[0].run("chmod", "755", "/usr/local/bin/lstopo-no-graphics")
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory(folder, made, ports)))
        yield Site(made[0], made[1], folder, *ports)


@pytest.fixture(scope="session")
def applied(site: Site) -> tuple[Played, Played]:
    """The site, applied twice."""
    # the whole controller is 600 MB of wheels: of it, the agents' part stands for all
    options = ("-e", '{"sdp_software_profile": "agent"}')
    return site.play("site.yml", *options), site.play("site.yml", *options)
