"""The example of an inventory."""

from __future__ import annotations

import base64
import json
import subprocess
import tomllib

import pytest

from agent_setup.settings import load
from tests.agent_setup.deploy.conftest import BIN, PLAYBOOKS

pytestmark = pytest.mark.ansible


def inventory() -> dict[str, dict[str, object]]:
    command = [str(BIN / "ansible-inventory"), "-i", "inventory/example", "--list"]
    done = subprocess.run(command, cwd=PLAYBOOKS, capture_output=True, text=True, check=True)
    listed: dict[str, dict[str, object]] = json.loads(done.stdout)
    return listed


def test_it_describes_fifty_machines() -> None:
    machines = inventory()["_meta"]["hostvars"]
    assert isinstance(machines, dict)
    assert len(machines) == 50


@pytest.mark.parametrize("host", ["ingest07", "gpu01", "imaging23"])
def test_what_it_says_of_an_agent_is_what_discovery_takes(host: str) -> None:
    """Rendered by the role's own template."""
    show = (
        "{{ lookup('template', 'roles/agent_discovery/templates/sdp-agent.toml.j2') | b64encode }}"
    )
    command = [str(BIN / "ansible"), host, "-i", "inventory/example", "-c", "local", "-m", "debug"]
    done = subprocess.run(
        [*command, "-a", f"msg={show}"], cwd=PLAYBOOKS, capture_output=True, text=True, check=True
    )

    text = base64.b64decode(json.loads(done.stdout.partition("=> ")[2])["msg"]).decode()
    settings = load(None, [tomllib.loads(text)])
    assert "sdp_10g" in settings.networks
    assert settings.reserved.mem_mib == 8192
    assert settings.reserved.cores
