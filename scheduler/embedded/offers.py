"""Offers: made by the allocator, held by frameworks, ended by them or withdrawn.

The desk keeps the books of what is used and offered on each agent, and the filters that frameworks set.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from scheduler.embedded.allocator import Claimant, Grant, Refusal, allocate
from scheduler.embedded.attention import Attention
from scheduler.embedded.clock import Clock
from scheduler.embedded.maintenance import Maintenance
from scheduler.embedded.model import Offer, attribute_message, resource_messages
from scheduler.embedded.pool import Pool
from scheduler.embedded.records import AgentRecord, Framework

DEFAULT_REFUSE = 5.0
"""Seconds of a filter when a call names none, or a negative number."""
LONGEST_REFUSE = 365 * 86400.0
MAX_REFUSALS = 100
"""Filters kept for one framework, role and agent; the oldest goes first."""
_SPARE_ENDS = 1000
"""Ends of filters that are kept beyond what is needed, before they are tidied up."""


class InvalidOffersError(ValueError):
    """Offers of an ACCEPT that cannot be used; the message is Mesos'."""


class OfferDesk:
    """The offers of one master.

    Parameters
    ----------
    clock
        For filters.
    agents, frameworks
        The master's own books; the desk changes their resources and offers.
    prefix
        The master's id, with which offer ids begin.
    maintenance
        Knows which agents will not be available.
    """

    def __init__(
        self,
        clock: Clock,
        agents: Mapping[str, AgentRecord],
        frameworks: Mapping[str, Framework],
        prefix: str,
        maintenance: Maintenance,
    ) -> None:
        self._clock = clock
        self._agents = agents
        self._frameworks = frameworks
        self._prefix = prefix
        self._maintenance = maintenance
        self._count = 0
        self.arrange: Callable[[dict[str, Pool]], dict[str, Pool]] = lambda free: free
        """Puts agents in the order in which they are offered. Mesos shuffles them; here they come as they
        registered, and a test may want another order."""
        self.offers: dict[str, Offer] = {}
        self.refusals: dict[tuple[str, str, str], list[Refusal]] = {}
        self.withheld: Collection[str] = ()
        """Host names of agents of which nothing is offered; a fault."""
        self.attention = Attention()
        """What an allocation run has to look at."""

    @property
    def settled(self) -> bool:
        """Whether an allocation run would find nothing."""
        return self.attention.settled(self._clock.monotonic())

    def grants(self) -> list[Grant]:
        """Return what an allocation run would offer now."""
        wanted = self.attention.wanted(self._clock.monotonic())
        if next(self._claimants(), None) is None:
            return []
        agents = self._agents.values() if wanted is None else self._among(wanted)
        free = {a.info.id: a.free for a in agents if self._may_offer(a)}
        return self.grants_of(self.arrange(free))

    def grants_of(self, free: Mapping[str, Pool]) -> list[Grant]:
        """Return what would be offered if just this were free, agents in this order."""
        now = self._clock.monotonic()
        claimants = list(self._claimants())
        totals = self._totals() if len(claimants) > 1 else {}  # they decide whose turn it is
        return allocate(free, claimants, self.refusals, totals, now)

    def run(self) -> list[Offer]:
        """Allocate, send the OFFERS events, and return the new offers."""
        made: dict[str, list[Offer]] = {}
        for grant in self.grants():
            offer = self._make(grant.framework_id, grant.agent_id, grant.role, grant.resources)
            made.setdefault(grant.framework_id, []).append(offer)
        for framework_id, offers in made.items():
            framework = self._frameworks[framework_id]
            framework.send("OFFERS", offers=[self.message(framework, o) for o in offers])
        self.attention.done()
        return [offer for offers in made.values() for offer in offers]

    def _among(self, agent_ids: Collection[str]) -> list[AgentRecord]:
        """Return agents in the order in which they were numbered."""
        found = [self._agents[agent_id] for agent_id in agent_ids if agent_id in self._agents]
        return sorted(found, key=lambda agent: (agent.info.number, agent.info.id))

    def _may_offer(self, agent: AgentRecord) -> bool:
        return agent.active and agent.info.spec.hostname not in self.withheld

    def message(self, framework: Framework, offer: Offer) -> dict[str, Any]:
        """Write an ``Offer`` message for its framework."""
        record = self._agents[offer.agent_id]
        info = record.info
        message: dict[str, Any] = {
            "id": {"value": offer.id},
            "framework_id": {"value": offer.framework_id},
            "agent_id": {"value": offer.agent_id},
            "hostname": info.spec.hostname,
            "url": info.url,
            "resources": resource_messages(offer.resources, offer.role, framework.info),
            "attributes": [attribute_message(n, v) for n, v in info.spec.attributes.items()],
        }
        if framework.info.can("MULTI_ROLE"):
            message["allocation_info"] = {"role": offer.role}
        executors = [i for framework_id, i in record.executors if framework_id == framework.info.id]
        if executors:
            message["executor_ids"] = [{"value": executor_id} for executor_id in executors]
        unavailability = self._maintenance.unavailability(record)
        if unavailability is not None:
            message["unavailability"] = unavailability
        return message

    def new_id(self) -> str:
        """Return an id for an offer or inverse offer; they share their numbers."""
        number = self._count
        self._count += 1
        return f"{self._prefix}-O{number}"

    def accept(self, framework_id: str, offer_ids: Sequence[str]) -> list[Offer]:
        """Return the offers of an ACCEPT, which are used up, whether they are valid together or not.

        Raises
        ------
        InvalidOffersError
            If they cannot be used; what was valid of them is free again.
        """
        mine = [o for i in dict.fromkeys(offer_ids) if (o := self._find(framework_id, i))]
        problem = self._invalid(framework_id, offer_ids, mine)
        for offer in mine:
            self.remove(offer)
        if problem is not None:
            raise InvalidOffersError(problem)
        return mine

    def decline(
        self, framework_id: str, offer_ids: Iterable[str], filters: Mapping[str, Any]
    ) -> None:
        """Take offers back; ids that are not (any more) the framework's are ignored."""
        for offer_id in offer_ids:
            if (offer := self._find(framework_id, offer_id)) is not None:
                self.remove(offer)
                self.refuse(offer, offer.resources, filters)

    def refuse(self, offer: Offer, resources: Pool, filters: Mapping[str, Any]) -> None:
        """Set the filter for resources that a framework did not use."""
        wanted = filters.get("refuse_seconds", DEFAULT_REFUSE)
        duration = DEFAULT_REFUSE if wanted < 0 else min(wanted, LONGEST_REFUSE)
        if duration == 0 or not resources:
            return
        until = self._clock.monotonic() + duration
        key = (offer.framework_id, offer.role, offer.agent_id)
        others = self.refusals.get(key, [])
        kept = [r for r in others if r.until > until or not resources.contains(r.resources)]
        kept = [refusal for refusal in kept if refusal.until > self._clock.monotonic()]
        self.refusals[key] = [*kept, Refusal(resources, until)][-MAX_REFUSALS:]
        self.attention.later(until, offer.agent_id)
        if len(self.attention) > 2 * len(self.refusals) + _SPARE_ENDS:
            self._tidy()

    def _tidy(self) -> None:
        """Forget filters that have ended, and ends of filters that have been replaced."""
        now = self._clock.monotonic()
        for key, refusals in list(self.refusals.items()):
            if all(refusal.until <= now for refusal in refusals):
                del self.refusals[key]
        self.attention.forget(
            (refusal.until, key[2]) for key, kept in self.refusals.items() for refusal in kept
        )

    def clear_filters(self, framework_id: str, roles: Iterable[str] | None = None) -> None:
        """Forget filters of a framework, of all its roles or of some."""
        wanted = None if roles is None else set(roles)
        for key in list(self.refusals):
            if key[0] == framework_id and (wanted is None or key[1] in wanted):
                del self.refusals[key]
                self.attention.at(key[2])

    def withdraw(self, offers: Iterable[Offer], *, rescind: bool) -> None:
        """Take offers back on the master's own decision, with or without a RESCIND event."""
        for offer in list(offers):
            if offer.id in self.offers:
                self.remove(offer)
                if rescind:
                    framework = self._frameworks[offer.framework_id]
                    framework.send("RESCIND", offer_id={"value": offer.id})

    def remove(self, offer: Offer) -> None:
        """End an offer; its resources are free."""
        self.attention.at(offer.agent_id)
        del self.offers[offer.id]
        self._frameworks[offer.framework_id].offers.pop(offer.id, None)
        agent = self._agents[offer.agent_id]
        agent.offers.pop(offer.id, None)
        agent.offered -= offer.resources

    def _make(self, framework_id: str, agent_id: str, role: str, resources: Pool) -> Offer:
        offer = Offer(self.new_id(), framework_id, agent_id, role, resources)
        self.offers[offer.id] = offer
        self._frameworks[framework_id].offers[offer.id] = offer
        agent = self._agents[agent_id]
        agent.offers[offer.id] = offer
        agent.offered += resources
        return offer

    def _find(self, framework_id: str, offer_id: str) -> Offer | None:
        offer = self.offers.get(offer_id)
        return offer if offer is not None and offer.framework_id == framework_id else None

    def _invalid(
        self, framework_id: str, offer_ids: Sequence[str], mine: Sequence[Offer]
    ) -> str | None:
        """Say why offers cannot be accepted together."""
        seen: set[str] = set()
        for offer_id in offer_ids:
            if offer_id in seen:
                return f"Duplicate offer {offer_id} in offer list"
            seen.add(offer_id)
        for offer_id in offer_ids:
            if self._find(framework_id, offer_id) is None:
                return f"Offer {offer_id} is no longer valid"
        for offer in mine:
            if offer.agent_id != mine[0].agent_id:
                return (
                    f"Aggregated offers must belong to one single agent. Offer {offer.id} "
                    f"uses agent {offer.agent_id} and agent {mine[0].agent_id}"
                )
        for offer in mine:
            if offer.role != mine[0].role:
                return (
                    f"Aggregated offers must be allocated to the same role. Offer {offer.id} "
                    f"uses role '{offer.role} but another is using role '{mine[0].role}"
                )
        return "No offers specified" if not mine else None

    def _claimants(self) -> Iterator[Claimant]:
        wanting = [
            (framework, role)
            for framework in self._frameworks.values()
            if framework.connected
            for role in framework.info.roles
            if role not in framework.suppressed
        ]
        for framework, role in wanting:
            shares = allocated(framework, role) if len(wanting) > 1 else {}
            yield Claimant(framework.info.id, role, shares)

    def _totals(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for agent in self._agents.values():
            for name, amount in agent.total.plain.scalars.items():
                totals[name] = totals.get(name, 0) + amount
        return totals


def allocated(framework: Framework, role: str) -> dict[str, int]:
    """Return the scalars that a framework uses or holds as offers in a role."""
    sums: dict[str, int] = {}
    held = [o.resources.plain for o in framework.offers.values() if o.role == role]
    held += [
        t.info.resources for t in framework.tasks.values() if not t.released and t.info.role == role
    ]
    for resources in held:
        for name, amount in resources.scalars.items():
            sums[name] = sums.get(name, 0) + amount
    return sums
