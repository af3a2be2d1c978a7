"""What the Docker engine is asked for on behalf of a task: a pure function of its launch.

As Mesos' Docker containerizer writes its ``docker run``: read from recorded tasks of a Mesos 1.12 agent and
the command line that it had made of them. Parameters are the long options of ``docker run``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

from scheduler.embedded.executors import ContainerLaunchError, Launch

MAPPED_SANDBOX: Final = "/mnt/mesos/sandbox"
"""Where a container finds its sandbox."""
MIN_MEMORY: Final = 32 << 20
"""Bytes that a container gets at least, as with Mesos."""
MIN_CPU_SHARES: Final = 2
_SHARES_PER_CPU: Final = 1024
_NETWORKS: Final = {"HOST": "host", "BRIDGE": "bridge", "NONE": "none"}
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

Config: TypeAlias = dict[str, Any]


class UsageError(ValueError):
    """What ``docker run`` itself would refuse, in its words; its exit status is 125."""


def container_name(container_id: str) -> str:
    """Return the name of a task's container."""
    return f"mesos-{container_id}"


def image_of(launch: Launch) -> str:
    """Return the image, with a tag.

    Raises
    ------
    ContainerLaunchError
        If the task names none.
    """
    image = str(_docker(launch).get("image", ""))
    if not image:
        raise ContainerLaunchError("the container names no Docker image")
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def container_config(launch: Launch, labels: Mapping[str, str]) -> Config:
    """Return the body of the engine's ``POST /containers/create``.

    Parameters
    ----------
    launch
        The task.
    labels
        Labels of our own.

    Raises
    ------
    UsageError
        If a parameter is unknown or malformed.
    ContainerLaunchError
        If Mesos would refuse it before anything is run.
    """
    config: Config = {
        "Image": image_of(launch),
        "Env": _environment(launch),
        "Labels": dict(labels),
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "Binds": _binds(launch),
            "NetworkMode": _network(launch),
            "CpuShares": _cpu_shares(launch),
            "Privileged": bool(_docker(launch).get("privileged", False)),
        },
    }
    if launch.memory:
        config["HostConfig"]["Memory"] = max(MIN_MEMORY, launch.memory)
    if hostname := launch.task.document["container"].get("hostname"):
        config["Hostname"] = hostname
    if driver := _docker(launch).get("volume_driver"):
        config["HostConfig"]["VolumeDriver"] = driver
    for mapping in _docker(launch).get("port_mappings") or ():
        _map_port(config, mapping, launch)
    for parameter in _docker(launch).get("parameters", ()):
        apply_parameter(config, parameter["key"], parameter["value"])
    _set_command(config, launch)
    return config


def apply_parameter(config: Config, key: str, value: str) -> None:
    """Add one ``--key=value``.

    Raises
    ------
    UsageError
        If there is no such option here, or the value does not fit it.
    """
    apply = PARAMETERS.get(key)
    if apply is None:
        raise UsageError(f"unknown flag: --{key}")
    try:
        apply(config, value)
    except (ValueError, InvalidOperation) as exc:
        raise UsageError(f'invalid argument "{value}" for "--{key}" flag: {exc}') from exc


def _docker(launch: Launch) -> Mapping[str, Any]:
    found: Mapping[str, Any] = launch.task.document["container"].get("docker", {})
    return found


def _environment(launch: Launch) -> list[str]:
    variables = launch.command.get("environment", {}).get("variables", ())
    own = {
        "MESOS_SANDBOX": MAPPED_SANDBOX,
        "MESOS_CONTAINER_NAME": container_name(launch.container_id),
        "MESOS_ALLOCATION_ROLE": launch.task.role,
    }
    given = {variable["name"]: variable.get("value", "") for variable in variables}
    return [f"{name}={value}" for name, value in (given | own).items()]


def _cpu_shares(launch: Launch) -> int:
    cpus = launch.task.resources.scalars.get("cpus")
    return 0 if cpus is None else max(MIN_CPU_SHARES, cpus * _SHARES_PER_CPU // 1000)


def _network(launch: Launch) -> str:
    kind = _docker(launch).get("network", "HOST")
    if kind in _NETWORKS:
        return _NETWORKS[kind]
    infos = launch.task.document["container"].get("network_infos") or ()
    name = next((info["name"] for info in infos if info.get("name")), None)
    if kind != "USER" or name is None:
        raise ContainerLaunchError(f"Unsupported Network mode: {kind}")
    return str(name)


def _binds(launch: Launch) -> list[str]:
    volumes = launch.task.document["container"].get("volumes") or ()
    binds = [text for volume in volumes if (text := _bind(volume, launch)) is not None]
    return [*binds, f"{launch.sandbox}:{MAPPED_SANDBOX}"]


def _bind(volume: Mapping[str, Any], launch: Launch) -> str | None:
    """Write a volume as ``docker run --volume`` takes it; relative paths are the sandbox'."""
    target = str(PurePosixPath(MAPPED_SANDBOX, volume["container_path"]))
    named = volume.get("source", {}).get("docker_volume", {}).get("name")
    source = named or volume.get("host_path")
    if source is None:
        raise ContainerLaunchError(f"Volume '{target}' has no host path")
    if named is None and not PurePosixPath(source).is_absolute():
        if ".." in PurePosixPath(source).parts:
            raise ContainerLaunchError(f"Host path '{source}' of a volume leaves the sandbox")
        source = str(launch.sandbox / source)
    mode = ":ro" if volume.get("mode") == "RO" else ""
    return f"{source}:{target}{mode}"


def _map_port(config: Config, mapping: Mapping[str, Any], launch: Launch) -> None:
    if config["HostConfig"]["NetworkMode"] in ("host", "none"):
        raise ContainerLaunchError(
            "Port mappings are only supported for bridge and user-defined networks"
        )
    port = int(mapping["host_port"])
    if port not in (launch.task.resources.ranges.get("ports") or ()):
        raise ContainerLaunchError(f"Port [{port}] not included in resources")
    protocol = str(mapping.get("protocol", "tcp")).lower()
    _publish(config, f"{port}:{mapping['container_port']}/{protocol}")


def _set_command(config: Config, launch: Launch) -> None:
    """Say what runs: a shell command replaces the image's entry point, arguments are given to it."""
    command = launch.command
    value = command.get("value")
    arguments = list(command.get("arguments", ()))
    if command.get("shell", True):
        if value is None:
            raise ContainerLaunchError("Shell specified but no command value provided")
        config["Entrypoint"] = ["/bin/sh"]
        config["Cmd"] = ["-c", value]
    elif value is not None or arguments:
        config["Cmd"] = ([] if value is None else [value]) + arguments


# Parameters


def parse_size(text: str) -> int:
    """Read a size as Docker does: ``64m`` are mebibytes; -1 means without limit."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?) ?([bkmgt]?)i?b?", text.strip().lower())
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    return int(Decimal(match[1]) * _UNITS[match[2]])


def _boolean(text: str) -> bool:
    known = {"": True, "true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if (value := known.get(text.lower())) is None:
        raise ValueError(f'parsing "{text}": invalid syntax')
    return value


def _nano_cpus(text: str) -> int:
    return int(Decimal(text) * 1_000_000_000)


def _host(name: str, read: Callable[[str], Any] = str) -> Callable[[Config, str], None]:
    """Set a field of ``HostConfig``."""

    def apply(config: Config, value: str) -> None:
        config["HostConfig"][name] = read(value)

    return apply


def _own(name: str, read: Callable[[str], Any] = str) -> Callable[[Config, str], None]:
    """Set a field of the configuration itself."""

    def apply(config: Config, value: str) -> None:
        config[name] = read(value)

    return apply


def _append(name: str) -> Callable[[Config, str], None]:
    """Add to a list of ``HostConfig``."""

    def apply(config: Config, value: str) -> None:
        config["HostConfig"].setdefault(name, []).append(value)

    return apply


def _entry(name: str, separator: str = "=") -> Callable[[Config, str], None]:
    """Add to a mapping of ``HostConfig``."""

    def apply(config: Config, value: str) -> None:
        key, _, rest = value.partition(separator)
        config["HostConfig"].setdefault(name, {})[key] = rest

    return apply


def _label(config: Config, value: str) -> None:
    key, _, rest = value.partition("=")
    config["Labels"][key] = rest


def _env(config: Config, value: str) -> None:
    if "=" not in value:
        raise ValueError("the agent's own environment is not passed on; write NAME=VALUE")
    config["Env"].append(value)


def _log_option(config: Config, value: str) -> None:
    key, _, rest = value.partition("=")
    log = config["HostConfig"].setdefault("LogConfig", {"Type": "json-file"})
    log.setdefault("Config", {})[key] = rest


def _log_driver(config: Config, value: str) -> None:
    config["HostConfig"].setdefault("LogConfig", {})["Type"] = value


def _ulimit(config: Config, value: str) -> None:
    match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", value)
    if match is None:
        raise ValueError(f"invalid ulimit argument: {value}")
    soft, hard = int(match[2]), int(match[3] or match[2])
    if soft > hard >= 0:
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {value}")
    limits = config["HostConfig"].setdefault("Ulimits", [])
    limits.append({"Name": match[1], "Soft": soft, "Hard": hard})


def _device(config: Config, value: str) -> None:
    source, _, rest = value.partition(":")
    target, _, mode = rest.partition(":")
    if not source:
        raise ValueError("invalid device specification")
    device = {"PathOnHost": source, "PathInContainer": target or source}
    device["CgroupPermissions"] = mode or "rwm"
    config["HostConfig"].setdefault("Devices", []).append(device)


def _gpus(config: Config, value: str) -> None:
    """``all``, a number, or ``device=0,1``."""
    request: Config = {"Driver": "", "Capabilities": [["gpu"]]}
    text = value.strip('"')
    if text.startswith("device="):
        request["DeviceIDs"] = text.removeprefix("device=").split(",")
    else:
        request["Count"] = -1 if text == "all" else int(text)
    config["HostConfig"].setdefault("DeviceRequests", []).append(request)


def _publish(config: Config, value: str) -> None:
    match = re.fullmatch(r"(?:(?:([\d.]+):)?(\d*):)?(\d+)(?:/(tcp|udp|sctp))?", value)
    if match is None:
        raise ValueError(f"invalid containerPort: {value}")
    port = f"{match[3]}/{match[4] or 'tcp'}"
    config.setdefault("ExposedPorts", {})[port] = {}
    bound = {"HostIp": match[1] or "", "HostPort": match[2] or ""}
    config["HostConfig"].setdefault("PortBindings", {}).setdefault(port, []).append(bound)


PARAMETERS: Mapping[str, Callable[[Config, str], None]] = {
    "add-host": _append("ExtraHosts"),
    "cap-add": _append("CapAdd"),
    "cap-drop": _append("CapDrop"),
    "cgroup-parent": _host("CgroupParent"),
    "cpu-period": _host("CpuPeriod", int),
    "cpu-quota": _host("CpuQuota", int),
    "cpu-rt-period": _host("CpuRealtimePeriod", int),
    "cpu-rt-runtime": _host("CpuRealtimeRuntime", int),
    "cpu-shares": _host("CpuShares", int),
    "cpus": _host("NanoCpus", _nano_cpus),
    "cpuset-cpus": _host("CpusetCpus"),
    "cpuset-mems": _host("CpusetMems"),
    "device": _device,
    "dns": _append("Dns"),
    "dns-search": _append("DnsSearch"),
    "domainname": _own("Domainname"),
    "entrypoint": _own("Entrypoint", lambda text: [text]),
    "env": _env,
    "expose": lambda config, value: config.setdefault("ExposedPorts", {}).update(
        {value if "/" in value else f"{value}/tcp": {}}
    ),
    "gpus": _gpus,
    "group-add": _append("GroupAdd"),
    "hostname": _own("Hostname"),
    "init": _host("Init", _boolean),
    "ipc": _host("IpcMode"),
    "label": _label,
    "log-driver": _log_driver,
    "log-opt": _log_option,
    "memory": _host("Memory", parse_size),
    "memory-reservation": _host("MemoryReservation", parse_size),
    "memory-swap": _host("MemorySwap", parse_size),
    "memory-swappiness": _host("MemorySwappiness", int),
    "net": _host("NetworkMode"),
    "network": _host("NetworkMode"),
    "oom-kill-disable": _host("OomKillDisable", _boolean),
    "oom-score-adj": _host("OomScoreAdj", int),
    "pid": _host("PidMode"),
    "pids-limit": _host("PidsLimit", int),
    "privileged": _host("Privileged", _boolean),
    "publish": _publish,
    "read-only": _host("ReadonlyRootfs", _boolean),
    "runtime": _host("Runtime"),
    "security-opt": _append("SecurityOpt"),
    "shm-size": _host("ShmSize", parse_size),
    "stop-signal": _own("StopSignal"),
    "storage-opt": _entry("StorageOpt"),
    "sysctl": _entry("Sysctls"),
    "tmpfs": _entry("Tmpfs", ":"),
    "ulimit": _ulimit,
    "user": _own("User"),
    "userns": _host("UsernsMode"),
    "uts": _host("UTSMode"),
    "volume": _append("Binds"),
    "volumes-from": _append("VolumesFrom"),
    "workdir": _own("WorkingDir"),
}
"""Options of ``docker run`` that a task's parameters may use, and what each does to the configuration."""
