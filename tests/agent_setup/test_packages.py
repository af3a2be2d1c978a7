"""What an agent has installed is all that its command needs."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROLE = Path(__file__).parents[2] / "agent_setup/ansible/roles/sdp_software/defaults/main.yml"
LOAD = """
import json, sys
before = {*sys.modules}
import agent_setup.cli
from scheduler.topology import merge_offers
attribute = {"name": "site", "type": "TEXT", "text": {"value": "losberg"}}
offer = {"id": {"value": "O"}, "agent_id": {"value": "A"}, "hostname": "h", "attributes": [attribute]}
assert merge_offers([offer]).agents, "it does not see itself as the scheduler does"
print(json.dumps([*sys.modules.keys() - before]))
"""


def _with_requirements(names: set[str]) -> set[str]:
    """Return distributions and all that they need, by their normal names."""
    found: set[str] = set()
    waiting = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    while waiting:
        name = waiting.pop()
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for GPUs: not everybody has it
            continue
        plain = (need for need in needs if "extra ==" not in need)
        normal = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", n)[0]).lower() for n in plain}
        waiting |= normal - found
    return found


def test_nothing_else_is_loaded() -> None:
    defaults: dict[str, Any] = yaml.safe_load(ROLE.read_text(encoding="utf-8"))
    installed = _with_requirements({*defaults["sdp_software_agent_packages"]})
    told = subprocess.run([sys.executable, "-c", LOAD], check=True, capture_output=True, text=True)
    loaded = {module.partition(".")[0] for module in json.loads(told.stdout)}
    owners = metadata.packages_distributions()
    needed = {name for module in loaded for name in owners.get(module, ())}
    normal = {re.sub(r"[-_.]+", "-", name).lower() for name in needed}
    assert normal - installed - {"sdp-controller"} == set()
