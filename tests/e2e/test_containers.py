"""The demonstration's product in real containers, which hold what the scheduler chose."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scheduler.packing.solve import warm_up
from scheduler.quantities import Ranges
from tests.e2e.system import SDP, Run

pytestmark = pytest.mark.e2e


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    return done.stdout


def has_engine() -> bool:
    return shutil.which("docker") is not None and docker("info", "--format", "{{.ID}}") != ""


def seen(work_dir: Path) -> dict[str, dict[str, Any]]:
    """What ``docker inspect`` shows of the containers of a cluster, by the task that runs in each."""
    ids = docker("ps", "--quiet", "--filter", f"label=sdp.cluster.work-dir={work_dir}").split()
    facts = json.loads(docker("inspect", *ids) or "[]") if ids else []
    return {task_name(fact): fact for fact in facts}


def task_name(fact: dict[str, Any]) -> str:
    return variables(fact)["SDP_TASK_NAME"]


def variables(fact: dict[str, Any]) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in fact["Config"]["Env"])


def held(text: str) -> dict[str, str]:
    """What a task held, by name, from ``cpus:1.5; cores:[0-0]``."""
    return dict(part.split(":", 1) for part in text.split("; "))


@pytest.mark.skipif(not has_engine(), reason="no Docker engine answers")
def test_the_product_runs_in_containers_that_hold_what_was_chosen(tmp_path: Path) -> None:
    warm_up()  # compiles on a fresh machine, which takes longer than our deadlines
    run = Run(tmp_path)
    output = tmp_path / "out"
    command = [SDP, "demo", "--executor", "docker", "--output", str(output)]
    containers: dict[str, dict[str, Any]] = {}
    with (tmp_path / "said").open("w") as said:
        demo = subprocess.Popen(command, env=run.environment, stdout=said, stderr=said)
        try:
            while demo.poll() is None:
                containers |= seen(output / "cluster")
                try:
                    demo.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            demo.terminate()
            demo.wait(60)
    text = (tmp_path / "said").read_text()
    assert demo.returncode == 0, text
    assert seen(output / "cluster") == {}, "none is left"
    tasks = {
        task["name"]: held(task["resources"])
        for task in json.loads((output / "summary.json").read_text())["tasks"]
    }
    assert set(containers) == set(tasks)
    for name, fact in containers.items():
        host, amounts = fact["HostConfig"], tasks[name]
        cores = Ranges.parse(amounts["cores"]) if "cores" in amounts else Ranges()
        assert host["CpusetCpus"] == ",".join(map(str, cores)), name
        assert host["CpusetMems"] == ("0" if cores else ""), name
        assert host["Memory"] == int(amounts["mem"]) << 20, name
        assert host["CpuShares"] == int(float(amounts["cpus"]) * 1024), name
        assert host["NetworkMode"] == "host"
        assert not host["Privileged"]
        assert fact["Config"]["Image"] == "sdp-pipelines:local"
        assert variables(fact)["SDP_MEM_MIB"] == amounts["mem"]
    pinned = [name for name in tasks if "cores" in tasks[name]]
    assert len(pinned) == 2, "both ingests"
    data = f"{output / 'data'}:{output / 'data'}"
    writers = [n for n, f in containers.items() if data in " ".join(f["HostConfig"]["Binds"])]
    # Calibration writes its report there.
    assert {n.split(".")[0] for n in writers} == {"vis_writer", "meta_writer", "cal", "imager"}
    owner = next((output / "data").glob("*/*.rdb")).stat().st_uid
    assert owner == output.stat().st_uid, "what containers write belongs to whoever started it"
