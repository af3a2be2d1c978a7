"""What must be equal between a recorded conversation and a repeated one: ids, times and addresses apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:-[SO]?\d+)?")
VOLATILE = frozenset(
    {
        "allocator/mesos/allocation_runs",
        "master/uptime_secs",
        "slave/uptime_secs",
        "address",
        "attributes_time",
        "container",
        "container_id",
        "data",
        "directory",
        "elected_time",
        "executor_pid",
        "gid",
        "ip",
        "ip_address",
        "leader",
        "master_hostname",
        "master_info",
        "mode",
        "mtime",
        "nanoseconds",
        "nlink",
        "path",
        "pid",
        "port",
        "registered_time",
        "reregistered_time",
        "size",
        "start_time",
        "status_update_uuid",
        "timestamp",
        "uid",
        "unreachable_time",
        "unregistered_time",
        "url",
        "uuid",
    }
)
"""Names of fields whose values are not compared, only that they are there."""


NOTHING = "(not there)"
"""In the place of what only one of both has."""


class Names:
    """Which of our ids stands for which recorded one."""

    def __init__(self) -> None:
        self._ours: dict[str, str] = {}

    def learn(self, recorded: str, ours: str) -> bool:
        """Note a pair; whether it agrees with what was known."""
        return self._ours.setdefault(recorded, ours) == ours

    def get(self, recorded: str) -> str | None:
        """Return what stands for a recorded id."""
        return self._ours.get(recorded)

    def knows(self, ours: str | None) -> bool:
        """Whether this id of ours stands for a recorded one."""
        return ours in self._ours.values()

    def forget(self, recorded: str) -> None:
        """Let a recorded id be learnt anew."""
        self._ours.pop(recorded, None)

    def translate(self, value: Any) -> Any:
        """Put our ids in the place of recorded ones, wherever they are."""
        if isinstance(value, str):
            if value in self._ours:
                return self._ours[value]
            return _TOKEN.sub(lambda match: self._ours.get(match[0], match[0]), value)
        if isinstance(value, Mapping):
            return {self.translate(k): self.translate(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.translate(item) for item in value]
        return value


@dataclass(frozen=True)
class Difference:
    """Something that was not as recorded."""

    scenario: str
    line: int
    what: str
    """The thing and its field, for people and for the list of differences that are on purpose."""
    recorded: str
    ours: str

    def __str__(self) -> str:
        return (
            f"{self.scenario}:{self.line}: {self.what}\n    recorded {self.recorded[:600]}"
            f"\n    ours     {self.ours[:600]}"
        )


def message(text: str) -> str:
    """Put a message into a form that does not depend on folders or on the order of resources."""
    text = re.sub(r"'[^' ]*/slaves/", "'/slaves/", text)
    text = _TOKEN.sub("ID", text)
    head, more, available = text.partition(" is more than available ")
    if more:
        start, _, asked = head.partition("Total resources ")
        text = f"{start}Total resources {_sorted(asked)}{more}{_sorted(available)}"
    return text


def _sorted(resources: str) -> str:
    body, _, tail = resources.partition(" required by")
    return "; ".join(sorted(body.split("; "))) + (" required by" + tail if tail else "")


def status(document: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a ``TaskStatus`` to what is compared."""
    shown: dict[str, Any] = {}
    for name, value in document.items():
        if name in ("timestamp", "uuid", "data", "unreachable_time"):
            shown[name] = "…"
        elif name == "message":
            shown[name] = message(value)
        elif name == "container_status":
            shown[name] = _container(value)
        else:
            shown[name] = value
    return shown


def _container(document: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"container_id": sorted(document.get("container_id", {}))}
    if "network_infos" in document:
        networks = document["network_infos"]
        shown["addresses"] = [len(network["ip_addresses"]) for network in networks]
    if "executor_pid" in document:
        shown["executor_pid"] = "…"
    return shown


def resources(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write ``Resource`` messages so that lists can be compared whatever their order."""
    shown = []
    for entry in entries:
        extra = {k: v for k, v in sorted(entry.items()) if k not in ("name", "type")}
        shown.append(f"{entry['name']} {extra}")
    return sorted(shown)


def offer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce an ``Offer`` to what is compared."""
    return {
        "agent_id": document["agent_id"]["value"],
        "allocation_info": document.get("allocation_info"),
        "resources": resources(document["resources"]),
        "attributes": sorted(map(str, document.get("attributes", []))),
        "unavailability": document.get("unavailability"),
        "fields": sorted(document),
    }


def differing(recorded: Any, ours: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield where two JSON documents differ: path, recorded, ours."""
    name = path.rpartition(".")[2].partition("[")[0]
    if isinstance(recorded, Mapping) and isinstance(ours, Mapping):
        for key in recorded.keys() | ours.keys():
            inner = f"{path}.{key}" if path else str(key)
            if key not in ours:
                yield inner, repr(recorded[key]), NOTHING
            elif key not in recorded:
                yield inner, NOTHING, repr(ours[key])
            elif key not in VOLATILE:
                yield from differing(recorded[key], ours[key], inner)
    elif isinstance(recorded, list) and isinstance(ours, list):
        yield from _differing_lists(recorded, ours, path)
    elif isinstance(recorded, str) and isinstance(ours, str) and name == "message":
        if message(recorded) != message(ours):
            yield path, recorded, ours
    elif isinstance(recorded, int | float) and isinstance(ours, int | float):
        if abs(recorded - ours) > 1e-6 * max(1.0, abs(recorded)):
            yield path, repr(recorded), repr(ours)
    elif recorded != ours:
        yield path, repr(recorded), repr(ours)


def _differing_lists(
    recorded: list[Any], ours: list[Any], path: str
) -> Iterator[tuple[str, str, str]]:
    mine = {_key(item, n): item for n, item in enumerate(ours)}
    for number, item in enumerate(recorded):
        key = _key(item, number)
        if key in mine:
            yield from differing(item, mine.pop(key), f"{path}[]")
        else:
            yield f"{path}[]", repr(item), NOTHING
    for item in mine.values():
        yield f"{path}[]", NOTHING, repr(item)


def _key(item: Any, number: int) -> str:
    """Return by what an item of a list is known."""
    if not isinstance(item, Mapping):
        return repr(item)
    for name in ("id", "task_id", "framework_id", "name", "type", "hostname", "principal", "role"):
        if name in item:
            rest = [item.get(n) for n in ("allocation_info", "reservations", "state") if n in item]
            return f"{name}={item[name]}{rest}"
    for name in ("agent_info", "framework_info"):
        if name in item:
            return f"{name}={item[name].get('id')}"
    return f"#{number}"
