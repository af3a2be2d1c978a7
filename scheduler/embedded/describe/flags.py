"""The flags that a Mesos master would have been started with to behave like this one."""

from __future__ import annotations

from scheduler.embedded.master import MAX_COMPLETED_FRAMEWORKS, Master
from scheduler.embedded.observers import MAX_OBSERVERS
from scheduler.embedded.records import MAX_COMPLETED_TASKS, AgentRecord

_UNITS = ((3600.0, "hrs"), (60.0, "mins"), (1.0, "secs"), (1e-3, "ms"))


def duration(seconds: float) -> str:
    """Write a time as Mesos does: ``10mins``, ``200ms``."""
    for size, unit in _UNITS:
        count = seconds / size
        if count >= 1 and abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return f"{seconds:.12g}secs"


def flags(master: Master) -> dict[str, str]:
    """Return what of Mesos' flags this master follows."""
    settings = master.settings
    shown = {
        "agent_ping_timeout": duration(settings.agent_ping_timeout),
        "agent_reregister_timeout": duration(settings.agent_reregister_timeout),
        "allocation_interval": duration(settings.allocation_interval),
        "allocator": "hierarchical",
        "authenticate_http_frameworks": str(settings.authenticate_frameworks).lower(),
        "authenticate_http_readonly": str(settings.authenticate_operators).lower(),
        "authenticate_http_readwrite": str(settings.authenticate_operators).lower(),
        "http_authenticators": "basic",
        "framework_sorter": "drf",
        "hostname": master.hostname,
        "ip": master.address[0],
        "max_agent_ping_timeouts": str(settings.max_agent_ping_timeouts),
        "max_completed_frameworks": str(MAX_COMPLETED_FRAMEWORKS),
        "max_completed_tasks_per_framework": str(MAX_COMPLETED_TASKS),
        "max_operator_event_stream_subscribers": str(MAX_OBSERVERS),
        "min_allocatable_resources": "cpus:0.01|mem:32",
        "port": str(master.address[1]),
        "registry": master.registry.kind.value,
        "role_sorter": "drf",
    }
    if settings.offer_timeout is not None:
        shown["offer_timeout"] = duration(settings.offer_timeout)
    return dict(sorted(shown.items()))


def agent_flags(record: AgentRecord, master: Master) -> dict[str, str]:
    """Return what of Mesos' flags an agent follows."""
    return {
        "default_role": record.info.spec.default_role,
        "hostname": record.info.spec.hostname,
        "hostname_lookup": "false",
        "master": "{}:{}".format(*master.address),
        "port": str(master.address[1]),
    }
