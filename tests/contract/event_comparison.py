"""Compares the events that come with the recorded ones: kinds, order, fields and reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.errors import QuantityError
from scheduler.quantities import Resources
from tests.contract import compare
from tests.contract.compare import Names
from tests.contract.recording import Line
from tests.contract.story import PATIENCE, SLACK, Inbox, Scene, Story


class EventComparison:
    """Finds each recorded event among ours.

    Updates of one task are compared in their order, offers one by one, everything else by kind and subject.
    What comes and was not recorded is a difference as well.

    Parameters
    ----------
    story
        How far we are.
    scene
        The cluster.
    """

    def __init__(self, story: Story, scene: Scene) -> None:
        self.story = story
        self._scene = scene
        self._came: dict[str, float] = {}
        """When offers came that were not recorded yet."""
        self._offerable_since: dict[str, float] = {}

    async def event(self, line: Line) -> None:
        event, inbox = line["event"], self.story.inboxes.get(line["stream"])
        kind = event["type"]
        if kind == "HEARTBEAT" or inbox is None:
            return
        self.story.compared += 1
        if kind == "OFFERS":
            await self._offers(event["offers"]["offers"], inbox)
            return
        if kind == "INVERSE_OFFERS" and not any(e["type"] == kind for e in inbox.events):
            await self._scene.offer_now()
        found = await self._wait_for(line, event, inbox)
        if found is None and kind == "UPDATE" and self._is_repetition(event):
            self.story.differ(f"missing repetition {self._what(event)}", "again", "nothing")
            return
        if found is None:
            shown = compare.status(event["update"]["status"]) if kind == "UPDATE" else event
            self.story.differ(f"missing event {self._what(event)}", shown, "nothing")
            return
        inbox.events.remove(found)
        self._compare_event(event, found)

    def _is_repetition(self, event: Mapping[str, Any]) -> bool:
        uuid = event["update"]["status"].get("uuid")
        return uuid is not None and self.story.names.get(uuid) is not None

    def _what(self, event: Mapping[str, Any]) -> str:
        if event["type"] != "UPDATE":
            return str(event["type"])
        status = event["update"]["status"]
        return f"UPDATE {status['task_id']['value']} {status['state']}"

    async def _wait_for(
        self, line: Line, event: Mapping[str, Any], inbox: Inbox
    ) -> dict[str, Any] | None:
        """Return the event of ours that stands for a recorded one, when it comes in time."""
        deadline = line.time + PATIENCE
        if event["type"] == "UPDATE" and self._is_repetition(event):
            deadline = line.time + 0.2
        while True:
            translated = self.story.names.translate(event)
            for candidate in inbox.events:
                if _corresponds(translated, candidate, self.story.names):
                    return candidate
            if not await self._scene.wait_a_little(deadline):
                return None

    def _compare_event(self, event: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        kind = event["type"]
        what = self._what(event)
        if kind == "SUBSCRIBED" and "framework_id" in event["subscribed"]:
            theirs = event["subscribed"]["framework_id"]["value"]
            mine = ours["subscribed"]["framework_id"]["value"]
            if not self.story.names.learn(theirs, mine):
                self.story.differ("SUBSCRIBED: framework_id", theirs, mine)
            masters = [x["subscribed"]["master_info"]["id"] for x in (event, ours)]
            self.story.names.learn(*masters)
        if kind == "UPDATE":
            self._compare_status(what, event["update"]["status"], ours["update"]["status"])
            return
        if kind == "INVERSE_OFFERS":
            pairs = zip(
                event["inverse_offers"]["inverse_offers"],
                ours["inverse_offers"]["inverse_offers"],
                strict=False,
            )
            for theirs, mine in pairs:
                self.story.names.learn(theirs["id"]["value"], mine["id"]["value"])
        for path, theirs, mine in compare.differing(self.story.names.translate(event), ours):
            self.story.differ(f"{what}: {path}", theirs, mine)

    def _compare_status(
        self, what: str, recorded: Mapping[str, Any], ours: Mapping[str, Any]
    ) -> None:
        if "uuid" in recorded and "uuid" in ours:
            known = self.story.names.get(recorded["uuid"])
            if not self.story.names.learn(recorded["uuid"], ours["uuid"]):
                self.story.differ(f"{what}: uuid", f"again {recorded['uuid']}", known)
        containers = [
            status.get("container_status", {}).get("container_id", {}).get("value")
            for status in (recorded, ours)
        ]
        if None not in containers:
            self.story.names.learn(containers[0], containers[1])
        theirs = compare.status(self.story.names.translate(recorded))
        mine = compare.status(ours)
        if theirs != mine:
            for path, a, b in compare.differing(theirs, mine):
                self.story.differ(f"{what}: {path}", a, b)

    async def _offers(self, recorded: list[dict[str, Any]], inbox: Inbox) -> None:
        """Find each recorded offer among ours, after an allocation run if need be."""
        new = [offer for offer in recorded if offer["id"]["value"] not in self.story.matched]
        left = [offer for offer in new if not self._match_offer(offer, inbox)]
        if not left:
            return
        await self._scene.offer_now()
        self._offerable_since.clear()
        for offer in left:
            if not self._match_offer(offer, inbox) and not self._match_merged(offer, inbox):
                theirs = compare.offer(self.story.names.translate(offer))
                mine = [compare.offer(o) for o in inbox.offers.values()]
                near = [o for o in mine if o["agent_id"] == theirs["agent_id"]]
                self.story.differ(f"offer of {offer['hostname']}", theirs, near)

    def _match_offer(self, recorded: Mapping[str, Any], inbox: Inbox) -> bool:
        wanted = compare.offer(self.story.names.translate(recorded))
        for offer_id, ours in list(inbox.offers.items()):
            if compare.offer(ours) == wanted:
                self.story.names.learn(recorded["id"]["value"], offer_id)
                del inbox.offers[offer_id]
                return True
        return False

    def _match_merged(self, recorded: Mapping[str, Any], inbox: Inbox) -> bool:
        """Find a recorded offer together with what was offered of the agent a moment later."""
        wanted = self.story.names.translate(recorded)
        parts = [recorded]
        total = Resources.from_mesos(recorded["resources"])
        for later in self._later_offers(recorded):
            parts.append(later)
            try:
                total += Resources.from_mesos(later["resources"])
            except QuantityError:  # offered again, not besides
                return False
            for offer_id, ours in list(inbox.offers.items()):
                same = ours["agent_id"] == wanted["agent_id"] and ours.get(
                    "allocation_info"
                ) == recorded.get("allocation_info")
                if same and Resources.from_mesos(ours["resources"]) == total:
                    for part in parts:
                        self.story.names.learn(part["id"]["value"], offer_id)
                        self.story.matched.add(part["id"]["value"])
                    del inbox.offers[offer_id]
                    return True
        return False

    def _later_offers(self, recorded: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = []
        for line in self.story.recording.after(self.story.line.number):
            if line.time > self.story.line.time + self.story.interval + SLACK:
                break
            if line.kind == "event" and line["event"]["type"] == "OFFERS":
                found += [
                    offer
                    for offer in line["event"]["offers"]["offers"]
                    if offer["agent_id"] == recorded["agent_id"]
                    and offer["framework_id"] == recorded["framework_id"]
                    and offer.get("allocation_info") == recorded.get("allocation_info")
                ]
        return found

    def check_offerable(self) -> None:
        """Complain about what could be offered for longer than a real master takes to do so."""
        now = self._scene.now
        grants = {f"{g.framework_id} {g.role} {g.agent_id}": g for g in self._scene.offerable()}
        since = self._offerable_since
        self._offerable_since = {key: since.get(key, now) for key in grants}
        for key, began in self._offerable_since.items():
            if now - began > self.story.interval + SLACK:
                shown = f"{key} {grants[key].resources.plain}"
                self.story.differ("surplus offer", "nothing", shown)
                self._offerable_since[key] = now + 1e9
        for name, inbox in self.story.inboxes.items():
            for offer_id in list(inbox.offers):
                self._check_old_offer(name, inbox, offer_id)

    def _check_old_offer(self, name: str, inbox: Inbox, offer_id: str) -> None:
        """Complain about an offer that has come and was not recorded within a while."""
        key = f"offer {offer_id}"
        now = self._scene.now
        began = self._came.setdefault(key, now)
        if now - began > self.story.interval + SLACK:
            shown = compare.offer(inbox.offers.pop(offer_id))
            self.story.differ("surplus offer", f"nothing on {name}", shown)

    def check_left(self, name: str, inbox: Inbox) -> None:
        """Complain about what has come and was never recorded."""
        for event in inbox.events:
            shown = event
            what = f"event {event['type']}"
            if event["type"] == "UPDATE":
                shown = compare.status(event["update"]["status"])
                what += f" {shown['task_id']['value']} {shown['state']}"
            self.story.differ(f"surplus {what}", f"nothing on {name}", shown)
        heard = sum(
            1
            for line in self.story.recording.lines
            if line.kind == "event"
            and line["stream"] == name
            and line["event"]["type"] == "HEARTBEAT"
            and inbox.opened < line.number <= self.story.line.number
        )
        self.story.compared += 1
        if abs(heard - inbox.heartbeats) > 1:
            self.story.differ("heartbeats", heard, inbox.heartbeats)


def _corresponds(recorded: Mapping[str, Any], ours: Mapping[str, Any], names: Names) -> bool:
    """Whether an event of ours is the one that a recorded one is to be compared with."""
    kind = recorded["type"]
    if kind != ours["type"]:
        return False
    if kind == "UPDATE":
        theirs, mine = recorded["update"]["status"], ours["update"]["status"]
        if theirs["task_id"] != mine["task_id"] or theirs["source"] != mine["source"]:
            return False
        # Of `theirs` the uuid has been translated if it was known: then it must be that one.
        return not names.knows(theirs.get("uuid")) or theirs["uuid"] == mine.get("uuid")
    if kind in ("RESCIND", "FAILURE"):
        return recorded[kind.lower()] == ours[kind.lower()]
    if kind == "TASK_UPDATED":
        theirs, mine = recorded["task_updated"]["status"], ours["task_updated"]["status"]
        return bool(theirs["task_id"] == mine["task_id"])
    if kind == "TASK_ADDED":
        return bool(
            recorded["task_added"]["task"]["task_id"] == ours["task_added"]["task"]["task_id"]
        )
    return True
