"""Frameworks that subscribe, are cut off, come back, and end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scheduler.embedded.model import FrameworkInfo, TaskState
from scheduler.embedded.notices import master_status
from scheduler.embedded.records import Framework, FrameworkState
from scheduler.embedded.stream import EventStream
from scheduler.embedded.validation import validate_framework

if TYPE_CHECKING:
    from scheduler.embedded.master import Master

logger = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 15.0
"""Seconds between HEARTBEAT events."""
_LONGEST_FAILOVER = 10 * 365 * 86400.0


def subscribe(master: Master, call: Mapping[str, Any]) -> EventStream:
    """Open the stream of a validated SUBSCRIBE; what is wrong with it comes as an ERROR event."""
    body = call["subscribe"]
    stream = master.open_stream()
    framework_id = body["framework_info"].get("id", {}).get("value", "")
    known = master.frameworks.get(framework_id)
    suppressed = body.get("suppressed_roles", [])
    problem = validate_framework(
        body["framework_info"], suppressed, None if known is None else known.info
    )
    if problem is None and framework_id in master.completed_frameworks:
        problem = "Framework has been removed"
    if problem is not None:
        stream.send({"type": "ERROR", "error": {"message": problem}})
        stream.close()
        return stream
    info = FrameworkInfo.from_mesos(
        body["framework_info"], framework_id or master.new_framework_id()
    )
    framework = _add(master, info) if known is None else _return(master, known, info)
    if known is None and framework_id:  # a framework of an earlier master
        framework.reregistered_time = framework.registered_time
    framework.suppressed = set(suppressed)
    _connect(master, framework, stream)
    told = master.observers.framework_added if known is None else master.observers.framework_updated
    told(framework)
    return stream


def _add(master: Master, info: FrameworkInfo) -> Framework:
    logger.info("framework %s (%s) subscribes", info.id, info.name)
    framework = Framework(info, master.clock.time())
    master.frameworks[info.id] = framework
    return framework


def recover(master: Master, info: FrameworkInfo) -> Framework:
    """Enter a framework of an earlier master, of which an agent has told."""
    framework = _add(master, info)
    framework.state = FrameworkState.RECOVERED
    master.observers.framework_added(framework)
    return framework


def _return(master: Master, framework: Framework, info: FrameworkInfo) -> Framework:
    """Let a known framework subscribe again, over a live stream or after a disconnection."""
    logger.info("framework %s (%s) subscribes again", info.id, info.name)
    framework.info = framework.info.updated(info)
    unwanted = [o for o in framework.offers.values() if o.role not in info.roles]
    master.desk.withdraw(unwanted, rescind=True)
    framework.reregistered_time = master.clock.time()
    stop_timers(framework)
    master.desk.withdraw(framework.offers.values(), rescind=False)
    master.maintenance.withdraw(framework.info.id)
    if framework.stream is not None:
        framework.send("ERROR", message="Framework failed over")
        framework.stream.close()
        framework.stream = None
        framework.set_state(FrameworkState.DISCONNECTED)
    return framework


def _connect(master: Master, framework: Framework, stream: EventStream) -> None:
    framework.stream = stream
    framework.set_state(FrameworkState.CONNECTED)
    framework.send(
        "SUBSCRIBED",
        framework_id={"value": framework.info.id},
        heartbeat_interval_seconds=HEARTBEAT_INTERVAL,
        master_info=master.describe(),
    )
    _heartbeat(master, framework)
    master.desk.attention.everywhere()
    master.allocate()
    framework_id = framework.info.id
    for record in master.agents.values():
        record.post(lambda agent: agent.resume_updates(framework_id))


def _heartbeat(master: Master, framework: Framework) -> None:
    framework.heartbeat = master.clock.call_later(
        HEARTBEAT_INTERVAL, lambda: _heartbeat(master, framework)
    )
    framework.send("HEARTBEAT")


def disconnected(master: Master, stream: EventStream) -> None:
    """Note that a stream's connection is gone; its framework may come back for a while."""
    framework = next((f for f in master.frameworks.values() if f.stream is stream), None)
    stream.close()
    if framework is None or master.stopped:
        return
    logger.info("framework %s disconnected", framework.info.id)
    framework.set_state(FrameworkState.DISCONNECTED)
    framework.stream = None
    stop_timers(framework)
    master.desk.withdraw(framework.offers.values(), rescind=False)
    master.desk.clear_filters(framework.info.id)
    master.maintenance.withdraw(framework.info.id)
    timeout = min(max(0.0, framework.info.failover_timeout), _LONGEST_FAILOVER)
    if timeout == 0:
        remove(master, framework)
    else:
        framework.failover = master.clock.call_later(timeout, lambda: remove(master, framework))
        master.observers.framework_updated(framework)
    master.allocate_soon()


def remove(master: Master, framework: Framework) -> None:
    """Forget a framework for good and kill its tasks."""
    logger.info("framework %s removed", framework.info.id)
    framework_id = framework.info.id
    master.desk.withdraw(framework.offers.values(), rescind=False)
    master.desk.clear_filters(framework_id)
    master.maintenance.withdraw(framework_id)
    stop_timers(framework)
    framework.set_state(FrameworkState.REMOVED)
    framework.unregistered_time = master.clock.time()
    for task in list(framework.tasks.values()):
        if not task.state.is_terminal:
            task.remember(
                master_status(
                    task.info.id,
                    TaskState.KILLED,
                    reason="REASON_FRAMEWORK_REMOVED",
                    message=f"Framework {framework_id} removed",
                    agent_id=task.info.agent_id,
                    time=framework.unregistered_time,
                )
            )
        master.complete(framework, task)
    framework.completed.extend(framework.unreachable.values())
    framework.unreachable.clear()
    for record in master.agents.values():
        for key in [key for key in record.executors if key[0] == framework_id]:
            master.release_executor(record, key)
        record.post(lambda agent: agent.shutdown_framework(framework_id))
    if framework.stream is not None:
        framework.stream.close()
        framework.stream = None
    del master.frameworks[framework_id]
    master.completed_frameworks[framework_id] = framework
    master.trim_completed()
    master.observers.framework_removed(framework)
    master.allocate_soon()


def stop_timers(framework: Framework) -> None:
    """Let nothing happen to a framework by the lapse of time."""
    for timer in (framework.heartbeat, framework.failover):
        if timer is not None:
            timer.cancel()
    framework.heartbeat = framework.failover = None
