"""A framework on an unmodified pymesos, run by the test as a process of its own.

``python pymesos_program.py HOST:PORT STORY [FRAMEWORK_ID]`` prints one line of JSON for each callback. STORY is
``launch`` (start one task that ends and one that stays, and leave as for a failover) or ``return`` (come back,
find the task by reconciliation, kill it, and go for good).
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import pymesos

TASKS = {"short": "echo from-pymesos", "long": "sleep 600"}


def tell(callback: str, **what: Any) -> None:
    print(json.dumps({"callback": callback, **what}), flush=True)


class Story(pymesos.Scheduler):
    def __init__(self, story: str) -> None:
        self.story = story
        self.launched = False
        self.done = threading.Event()
        self.states: dict[str, list[str]] = {}

    def registered(self, driver: Any, framework_id: Any, master_info: Any) -> None:
        tell("registered", id=framework_id["value"], version=master_info["version"])

    def reregistered(self, driver: Any, master_info: Any) -> None:
        tell("reregistered", id=driver.framework_id)
        driver.reconcileTasks([{"task_id": {"value": "long"}}, {"task_id": {"value": "other"}}])

    def resourceOffers(self, driver: Any, offers: Any) -> None:
        tell("resourceOffers", hostnames=sorted({offer["hostname"] for offer in offers}))
        if self.story == "launch" and not self.launched:
            self.launched = True
            offer = offers.pop(0)
            tasks = [self.task(name, command, offer) for name, command in TASKS.items()]
            driver.launchTasks(offer["id"], tasks, {"refuse_seconds": 0})
            driver.suppressOffers()
        for offer in offers:
            driver.declineOffer(offer["id"], {"refuse_seconds": 3600})

    def task(self, name: str, command: str, offer: Any) -> dict[str, Any]:
        core = {"begin": len(name) % 4, "end": len(name) % 4}
        return {
            "task_id": {"value": name},
            "name": name,
            "agent_id": offer["agent_id"],
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
                {"name": "cores", "type": "RANGES", "ranges": {"range": [core]}},
            ],
            "command": {"shell": True, "value": command},
        }

    def statusUpdate(self, driver: Any, update: Any) -> None:
        name, state = update["task_id"]["value"], update["state"]
        tell("statusUpdate", task=name, state=state, message=update.get("message"))
        self.states.setdefault(name, []).append(state)
        if self.story == "launch":
            ended = "TASK_FINISHED" in self.states.get("short", [])
            if ended and "TASK_RUNNING" in self.states.get("long", []):
                self.done.set()
        elif (name, state) == ("long", "TASK_RUNNING"):
            driver.killTask({"value": "long"})
        elif state == "TASK_KILLED":
            self.done.set()

    def error(self, driver: Any, message: str) -> None:
        tell("error", message=message)
        self.done.set()


def main() -> None:
    address, story = sys.argv[1:3]
    framework: dict[str, Any] = {
        "user": "",
        "name": "pymesos",
        "roles": ["sdp"],
        "failover_timeout": 30.0,
        "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}],
    }
    if len(sys.argv) > 3:
        framework["id"] = {"value": sys.argv[3]}
    scheduler = Story(story)
    driver = pymesos.MesosSchedulerDriver(scheduler, framework, address, timeout=10)
    driver.start()
    finished = scheduler.done.wait(30)
    driver.stop(failover=story == "launch")
    driver.join()
    sys.exit(0 if finished else 1)


if __name__ == "__main__":
    main()
