"""The tables of docs/operations-agents.md; ``python -m tests.agent_setup.operations_tables`` renews them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agent_setup.discover import survey
from agent_setup.settings import load
from agent_setup.table import explain
from tests.agent_setup.machines import Accelerator, Card, Plan, sources

DOCUMENT: Final = Path(__file__).parents[2] / "docs/operations-agents.md"
TABLE: Final = re.compile(r"(<!-- table (\w+) -->\n```text\n)(.*?)(\n```)", re.DOTALL)

HERE: Final = "here"
"""Name of the table that shows the machine on which the document was renewed."""

NETWORKS: Final = {"cbf": ["10.100.0.0/16"], "sdp_10g": ["10.8.0.0/16"]}
PLANS: Final = {
    "ingest": Plan(
        "pack:2 [numa(memory=192GiB)] l3:1 core:12 pu:2",
        cards=(
            Card("ens1f0", "10.100.1.7", node=0, verbs=0, loopback_off=True),
            Card("ens2f0", "10.100.1.8", node=1, verbs=1, loopback_off=True),
            Card("eno1", "10.8.1.7", node=0, speed=10_000),
        ),
    ),
    "imager": Plan(
        "pack:1 numa:4(memory=128GiB) l3:2 core:8 pu:1",
        cards=(Card("enp65s0", "10.8.1.20", node=2),),
        accelerators=tuple(Accelerator(f"GPU-{n:08x}", node=3 - n) for n in range(4)),
    ),
    "old": Plan(
        "[numa(memory=16GiB)] core:4 pu:2",
        cards=(Card("eth0", "10.8.1.31", node=0, speed=1_000),),
        version=("--export-xml-flags", "v1"),
    ),
}
SETTINGS: Final[Mapping[str, dict[str, Any]]] = {
    "ingest": {"reserved": {"cores": "[0-1,24-25]", "mem_mib": 8192}, "subsystems": ["ingest"]},
    "imager": {"rack": "r07", "interfaces": {"enp65s0": {"speed_mbps": 50_000}}},
    "old": {"priority": 0.5},
}


def settings_of(name: str) -> list[dict[str, Any]]:
    """Return what an operator says of one of the machines."""
    plan = PLANS[name]
    reached = {
        network: ranges
        for network, ranges in NETWORKS.items()
        if any(card.address[:5] == ranges[0][:5] for card in plan.cards)
    }
    return [{"networks": reached, "disk_mib": 400_000}, SETTINGS[name]]


def table(name: str) -> str:
    """Return what ``--explain`` shows of one of the machines."""
    with tempfile.TemporaryDirectory() as folder:
        return explain(survey(load(None, settings_of(name)), sources(PLANS[name], Path(folder))))


def written(text: str) -> dict[str, str]:
    """Return the tables of a document by name."""
    return {match[2]: match[3] for match in TABLE.finditer(text)}


def table_here() -> str:
    """Return what ``--explain`` shows of this machine, with its loopback interface as network ``cbf``."""
    return explain(survey(load(None, [{"networks": {"cbf": ["lo"]}}])))


def rewrite() -> None:
    """Bring the document up to date."""

    def fresh(match: re.Match[str]) -> str:
        shown = table_here() if match[2] == HERE else table(match[2])
        return f"{match[1]}{shown}{match[4]}"

    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(TABLE.sub(fresh, text), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
