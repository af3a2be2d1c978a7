"""What an agent advertises is read back exactly, or that one agent is set aside with the reason."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.errors import TopologyError
from scheduler.quantities import Ranges, Resources
from scheduler.topology import Gpu, Nic, NumaNode, Topology, Volume, keeps, legacy, merge_offers

RECORDINGS = Path(__file__).parents[2] / "../shared/data/mesos"

# ---- strategies

words = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,8}", fullmatch=True).filter(keeps)
paths = words.map(lambda word: f"/mnt/{word}")
sizes = st.none() | st.integers(0, 10**9)
addresses = st.ip_addresses(v=4).map(str)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Any machine that does not contradict itself."""
    cpus = draw(st.lists(st.integers(0, 200), unique=True, max_size=12))
    n_nodes = draw(st.integers(1, 3))
    owner = [draw(st.integers(0, n_nodes - 1)) for _ in cpus]
    numa = tuple(
        NumaNode(
            Ranges.of_values(cpu for cpu, node in zip(cpus, owner, strict=True) if node == n),
            draw(sizes),
        )
        for n in range(n_nodes)
    )
    pairs = [list(node.cores)[i : i + 2] for node in numa for i in range(0, len(node.cores), 2)]
    smt = tuple(Ranges.of_values(pair) for pair in pairs)
    where = st.none() | st.integers(0, n_nodes - 1)
    gpus = draw(
        st.lists(
            st.builds(
                Gpu,
                name=st.text(min_size=1, max_size=12) | st.just("NVIDIA A100-SXM4-80GB"),
                uuid=st.none() | words,
                device=st.none() | paths,
                numa=where,
                compute_capability=st.none() | st.tuples(st.integers(1, 12), st.integers(0, 9)),
                driver=st.none() | words,
                mem_mib=sizes,
            ),
            max_size=3,
            unique_by=lambda gpu: gpu.uuid or object(),
        )
    )
    nics = st.builds(
        Nic,
        name=words,
        networks=st.lists(words, min_size=1, max_size=3, unique=True).map(tuple),
        address=addresses,
        numa=where,
        infiniband=st.lists(paths, max_size=2).map(tuple),
        multicast_loopback=st.booleans(),
        speed_mbps=sizes,
    )
    volumes = st.builds(Volume, name=words, path=paths, numa=where, disk_mib=sizes)
    return Topology(
        numa=numa,
        smt=smt,
        l3=tuple(node.cores for node in numa if node.cores),
        gpus=tuple(gpus),
        nics=tuple(draw(st.lists(nics, max_size=3, unique_by=lambda nic: nic.name))),
        volumes=tuple(draw(st.lists(volumes, max_size=2, unique_by=lambda v: v.name))),
        subsystems=tuple(draw(st.lists(words, max_size=2, unique=True))),
        priority=draw(st.none() | st.integers(0, 10**6)),
        rack=draw(st.none() | words),
        island=draw(st.none() | words),
    )


def mesos_attribute(name: str, text: str) -> dict[str, Any]:
    """Type an attribute as Mesos' agent does when it parses its command line."""
    if text.startswith("["):
        pairs = [{"begin": b, "end": e} for b, e in Ranges.parse(text).intervals]
        return {"name": name, "type": "RANGES", "ranges": {"range": pairs}}
    try:
        return {"name": name, "type": "SCALAR", "scalar": {"value": float(text)}}
    except ValueError:
        return {"name": name, "type": "TEXT", "text": {"value": text}}


def offer(
    topology: Topology | Mapping[str, str],
    free: Resources,
    *,
    agent: str = "agent-S0",
    number: int = 0,
) -> dict[str, Any]:
    attributes = topology.to_attributes() if isinstance(topology, Topology) else topology
    return {
        "id": {"value": f"offer-O{number}"},
        "agent_id": {"value": agent},
        "hostname": "host",
        "url": {
            "scheme": "http",
            "address": {"hostname": "host", "ip": "127.0.1.1", "port": 5051},
            "path": "/slave(1)",
        },
        "resources": free.to_mesos(),
        "attributes": [mesos_attribute(name, text) for name, text in attributes.items()],
    }


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


# ---- our schema


@settings(max_examples=40, deadline=None)
@given(topologies())
def test_what_is_advertised_is_read_back_exactly(topology: Topology) -> None:
    attributes = topology.to_attributes()
    assert Topology.parse(attributes, topology.resources()) == topology
    assert all(re.fullmatch(r"[A-Za-z0-9_/.\-\[\],]+", text) for text in attributes.values())


@settings(max_examples=40, deadline=None)
@given(topologies(), st.data())
def test_the_machine_does_not_depend_on_what_is_free(
    topology: Topology, data: st.DataObject
) -> None:
    everything = topology.resources()
    kept = data.draw(st.sets(st.sampled_from(sorted(everything.scalars) or ["none"])))
    free = Resources({k: v for k, v in everything.scalars.items() if k in kept})
    assert Topology.parse(topology.to_attributes(), free) == topology


@settings(max_examples=40, deadline=None)
@given(topologies())
def test_the_machine_survives_the_way_through_mesos(topology: Topology) -> None:
    everything = topology.resources()
    merged = merge_offers([json.loads(json.dumps(offer(topology, everything)))])
    assert not merged.quarantined
    (agent,) = merged.agents
    assert agent.free == everything
    assert agent.topology == topology
    assert agent.address == "127.0.1.1"
    assert agent.url == "http://127.0.1.1:5051/slave(1)"


@pytest.mark.parametrize(("text", "shown"), [("560.30", "v560.30"), ("560.35", "560.35")])
def test_what_mesos_would_take_for_another_number_is_told_apart(text: str, shown: str) -> None:
    assert Gpu(name="gpu", driver=text).driver == shown
    assert keeps(shown)


@pytest.mark.parametrize("rack", ["007", "1e3", "inf", "0x1F", "NaN", "1.0"])
def test_a_name_that_mesos_would_change_is_refused(rack: str) -> None:
    with pytest.raises(TopologyError, match="Mesos takes this for a number"):
        Topology(rack=rack)
    assert Topology(rack="7").rack == "7"


def test_memory_by_node_counts_where_only_resources_tell_of_it() -> None:
    attributes = {
        "sdp.schema": "1",
        "sdp.numa.0.cores": "[0-1]",
        "sdp.numa.1.cores": "[2-3]",
    }
    assert Topology.parse(attributes, Resources()).numa[0].mem_mib is None
    some = Topology.parse(attributes, Resources({"numa.1.mem": 4000}))
    assert [node.mem_mib for node in some.numa] == [0, 4], (
        "node 0 has none left, not an unknown amount"
    )


def test_a_plain_agent_has_no_parts() -> None:
    assert Topology.parse({"rack": "r1"}, Resources({"gpu.0.mem": 1})) == Topology()


GOOD = {
    "sdp.schema": "1",
    "sdp.numa.0.cores": "[0-3]",
    "sdp.numa.1.cores": "[4-7]",
    "sdp.gpu.0.name": "A100",
    "sdp.nic.0.name": "ens3",
    "sdp.nic.0.network": "cbf",
    "sdp.nic.0.address": "10.0.0.1",
    "sdp.nic.0.speed": "40000",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sdp.schema": "2"}, "sdp.schema=2: this controller knows version 1"),
        ({"sdp.schema": None}, "sdp.schema is missing"),
        ({"sdp.numa.1.cores": "[3-7]"}, "sdp.numa.1.cores=[3-7]: [3-3] is also in another node"),
        ({"sdp.numa.1.cores": "[4-"}, "sdp.numa.1.cores=[4-: '[4-' is not a range list"),
        ({"sdp.numa.1.cores": "[4-70000]"}, "the largest CPU number is 65535"),
        ({"sdp.numa.0.cores": None}, "numbers must run from 0"),
        ({"sdp.numa.01.cores": "[8-9]"}, "sdp.numa.01.cores=[8-9]: schema 1 has no such attribute"),
        ({"sdp.numa.0.mem": "-1"}, "sdp.numa.0.mem=-1: expected a whole number"),
        ({"sdp.smt.0": "[0-0,4-4]"}, "sdp.smt.0=[0-0,4-4]: the siblings of a core are on one"),
        ({"sdp.smt.0": "[9-9]"}, "sdp.smt.0=[9-9]: [9-9] is in no NUMA node"),
        ({"sdp.l3.0": "[0-1]", "sdp.l3.1": "[1-2]"}, "sdp.l3.1=[1-2]: [1-1] is also in another"),
        ({"sdp.gpu.0.numa": "2"}, "sdp.gpu.0.numa=2: there are 2 NUMA nodes, from 0"),
        ({"sdp.gpu.0.name": None, "sdp.gpu.0.numa": "0"}, "sdp.gpu.0.name is missing"),
        ({"sdp.gpu.0.colour": "red"}, "sdp.gpu.0.colour=red: schema 1 has no such attribute"),
        ({"sdp.gpu.0.compute_capability": "x"}, "expected e.g. 8.0"),
        ({"sdp.gpu.0.device": "nvidia0"}, "sdp.gpu.0.device=nvidia0: expected an absolute path"),
        ({"sdp.nic.0.network.1": "sdp"}, "either this or network.0, not both"),
        ({"sdp.nic.0.network": None, "sdp.nic.0.network.1": "a"}, "numbers run from 0"),
        ({"sdp.nic.0.network": None}, "sdp.nic.0.network=: expected one or more"),
        ({"sdp.nic.0.address": "fe80::1"}, "sdp.nic.0.address=fe80::1: expected an IPv4 address"),
        ({"sdp.nic.0.multicast_loopback": "no"}, "multicast_loopback=no: expected true or false"),
        ({"sdp.priority": "high"}, "sdp.priority=high"),
        ({"sdp.rack": ""}, "sdp.rack=: expected 1 to 255"),
        ({"sdp.colour": "red"}, "sdp.colour=red: schema 1 has no such attribute"),
    ],
)
def test_contradictions_are_refused_with_attribute_value_and_rule(
    changes: Mapping[str, str | None], said: str
) -> None:
    assert Topology.parse(GOOD, Resources())
    attributes = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    with pytest.raises(TopologyError, match=re.escape(said)):
        Topology.parse(attributes, Resources())


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (Resources({"gpu.1.mem": 1}), "gpu.1.mem=0.001: there is no such device or node"),
        (Resources({"gpu.0.compute": 1001}), "gpu.0.compute=1.001: more than its capacity 1"),
        (Resources({"nic.0.in": 40_000_001}), "nic.0.in=40000.001: more than its capacity 40000"),
        (Resources({}, {"cores": Ranges(((7, 9),))}), "cores=[8-9]: in no NUMA node"),
        (Resources({"cores": 8000}), "cores=8: expected ranges, as [0-7]"),
        (Resources({}, {"cpus": Ranges(((0, 7),))}), "cpus=[0-7]: expected a number"),
    ],
)
def test_free_resources_that_the_machine_cannot_have_are_refused(
    free: Resources, said: str
) -> None:
    with pytest.raises(TopologyError, match=re.escape(said)):
        Topology.parse(GOOD, free)


names = st.from_regex(
    r"(sdp\.(numa|smt|l3|gpu|nic|volume|subsystem|x)\.[0-9]{1,2}(\.(cores|mem|name|network|network\.0"
    r"|network\.\.|address|numa|speed|path|disk))?)|sdp\.(priority|rack|schema)"
    r"|katsdpcontroller\.(numa|gpus|interfaces|volumes|subsystems|priority)",
    fullmatch=True,
)
texts = (
    st.text(max_size=12)
    | st.sampled_from(["1", "0", "[0-3]", "[]", "cbf", "/a", "10.0.0.1", "true"])
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=4) | st.floats(),
        lambda children: (
            st.lists(children, max_size=3) | st.dictionaries(words, children, max_size=3)
        ),
    ).map(encoded)
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(names, texts, max_size=8), st.booleans())
@example({"katsdpcontroller.numa": "W1tb" * 5000}, False)
@example({"katsdpcontroller.numa": encoded("x")[:-1] + "é"}, False)
def test_any_attributes_are_a_machine_or_refused(attributes: dict[str, str], ours: bool) -> None:
    if ours:
        attributes["sdp.schema"] = "1"
    try:
        topology = Topology.parse(attributes, Resources())
    except TopologyError as exc:
        assert str(exc)
    else:
        assert Topology.parse(topology.to_attributes(), Resources()) == topology


# ---- katsdpcontroller's form

LEGACY = {
    "katsdpcontroller.numa": encoded([[0, 2], [1, 3]]),
    "katsdpcontroller.gpus": encoded(
        [
            {
                "name": "GeForce GTX TITAN X",
                "devices": ["/dev/nvidia0", "/dev/nvidiactl"],
                "driver_version": "396.26",
                "compute_capability": [5, 2],
                "device_attributes": {},
                "numa_node": 1,
            }
        ]
    ),
    "katsdpcontroller.interfaces": encoded(
        [
            {
                "name": "ens3",
                "network": ["cbf", "sdp_10g"],
                "ipv4_address": "10.100.1.7",
                "numa_node": 0,
                "infiniband_devices": ["/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs0"],
                "infiniband_multicast_loopback": False,
            }
        ]
    ).rstrip("="),
    "katsdpcontroller.volumes": encoded([{"name": "data", "host_path": "/mnt/data"}]),
    "katsdpcontroller.subsystems": encoded(["sdp"]),
    "katsdpcontroller.priority": "8.5",
}
LEGACY_FREE = Resources(
    {
        "cpus": 8000,
        "katsdpcontroller.gpu.0.compute": 500,
        "katsdpcontroller.gpu.0.mem": 12_000_000,
        "katsdpcontroller.interface.0.bandwidth_in": 9_500_000_000 * 1000,
        "katsdpcontroller.interface.0.bandwidth_out": 1_234_567 * 1000,
    },
    {"cores": Ranges(((0, 3),))},
)


def test_an_agent_of_katsdpcontroller_is_understood() -> None:
    (agent,) = merge_offers([offer(LEGACY, LEGACY_FREE)]).agents
    topology = agent.topology
    assert agent.legacy
    assert [node.cores for node in topology.numa] == [Ranges.parse("[0,2]"), Ranges.parse("[1,3]")]
    assert topology.gpus[0].name == "GeForce-GTX-TITAN-X"
    assert (topology.gpus[0].numa, topology.gpus[0].compute_capability) == (1, (5, 2))
    assert topology.nics[0].networks == ("cbf", "sdp_10g")
    assert not topology.nics[0].multicast_loopback
    assert len(topology.nics[0].infiniband) == 2
    assert topology.volumes[0].path == "/mnt/data"
    assert (topology.subsystems, topology.priority) == (("sdp",), 8500)
    assert agent.free.scalars["nic.0.in"] == 9_500_000  # 9.5 Gbit/s, in thousandths of Mbit/s
    assert agent.free.scalars["nic.0.out"] == 1234, "rounded down: never more than there is"
    assert agent.free.scalars["gpu.0.compute"] == 500


def test_what_is_drawn_from_it_is_named_as_the_agent_knows_it() -> None:
    (agent,) = merge_offers([offer(LEGACY, LEGACY_FREE)]).agents
    assert LEGACY_FREE.contains(agent.advertised(agent.free))
    assert legacy.translate(agent.advertised(agent.free)) == agent.free


def test_an_agent_with_both_forms_is_read_by_ours() -> None:
    (agent,) = merge_offers([offer({**GOOD, **LEGACY}, Resources({"gpu.0.mem": 5}))]).agents
    assert not agent.legacy
    assert agent.topology.gpus[0].name == "A100"


@pytest.mark.parametrize(
    ("name", "document", "said"),
    [
        ("numa", [[0, 1], [1]], "sdp.numa.1.cores=[1-1]"),
        ("numa", [[0, -1]], "katsdpcontroller.numa="),
        ("numa", {"a": 1}, "at top"),
        ("gpus", [{"name": "x", "numa_node": 7}], "sdp.gpu.0.numa=7"),
        ("interfaces", [{"name": "eth1"}], "at 0/network"),
    ],
)
def test_contradictions_in_that_form_are_refused(name: str, document: object, said: str) -> None:
    attributes = {**LEGACY, f"katsdpcontroller.{name}": encoded(document)}
    with pytest.raises(TopologyError, match=re.escape(said)):
        Topology.parse(attributes, Resources())


# ---- offers


@settings(max_examples=40, deadline=None)
@given(topologies(), st.integers(1, 4), st.data())
def test_the_offers_of_an_agent_are_merged(
    topology: Topology, parts: int, data: st.DataObject
) -> None:
    whole = topology.resources()
    left, offers = whole, []
    for number in range(parts):
        last = number == parts - 1
        part = Resources(
            {k: v if last else data.draw(st.integers(0, v)) for k, v in left.scalars.items()},
            {k: v if last else v.take(len(v) // 2) for k, v in left.ranges.items()},
        )
        left -= part
        offers.append(offer(topology, part, number=number))
    (agent,) = merge_offers(offers).agents
    assert agent.free == whole
    assert agent.offer_ids == tuple(f"offer-O{n}" for n in range(parts))


def _broken() -> Iterator[tuple[str, dict[str, Any]]]:
    good = offer(GOOD, Resources({"cpus": 1000}), agent="bad")
    yield "hostname", {**good, "hostname": 7}
    yield "id", {**good, "id": {}}
    yield "resources", {**good, "resources": "many"}
    yield "malformed resource", {**good, "resources": [{"name": "cpus", "type": "SCALAR"}]}
    yield "attributes", {**good, "attributes": {"a": 1}}
    yield "type TEXT", {**good, "attributes": [{"name": "sdp.rack", "type": "SET"}]}
    yield "malformed attribute", {**good, "attributes": [{"name": "rack", "type": "RANGES"}]}
    yield "twice", {**good, "attributes": [*good["attributes"], good["attributes"][0]]}
    yield "no such device", {**good, "resources": Resources({"gpu.9.mem": 1}).to_mesos()}


@pytest.mark.parametrize(("reason", "bad"), list(_broken()))
def test_a_malformed_agent_is_set_aside_alone(reason: str, bad: dict[str, Any]) -> None:
    good = offer(GOOD, Resources({"cpus": 1000}), agent="good")
    merged = merge_offers([bad, good])
    assert [agent.agent_id for agent in merged.agents] == ["good"]
    (quarantined,) = merged.quarantined
    assert quarantined.agent_id == "bad"
    assert reason in quarantined.reason


def test_offers_that_disagree_about_their_agent_set_it_aside() -> None:
    other = {**GOOD, "sdp.gpu.0.name": "H100"}
    merged = merge_offers([offer(GOOD, Resources()), offer(other, Resources(), number=1)])
    assert not merged.agents
    assert merged.quarantined[0].offer_ids == ("offer-O0", "offer-O1")
    assert "disagree" in str(merged.quarantined[0])


def test_what_an_agent_changes_is_not_taken_for_what_it_told_before() -> None:
    """Attributes are read once and remembered; 1 and 1.0 are equal in Python, and so may be their texts."""

    def told(value: dict[str, Any]) -> Mapping[str, str]:
        plain = offer(GOOD, Resources({"cpus": 1000}))
        attributes = [*plain["attributes"], {"name": "weight", **value}]
        (agent,) = merge_offers([{**plain, "attributes": attributes}]).agents
        return agent.attributes

    values = [
        ({"type": "SCALAR", "scalar": {"value": 1}}, "1"),
        ({"type": "SCALAR", "scalar": {"value": 1.5}}, "1.5"),
        ({"type": "TEXT", "text": {"value": "1.50"}}, "1.50"),
        ({"type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 10**25}]}}, f"[1-{10**25}]"),
    ]
    for value, text in [*values, *values]:
        assert told(value)["weight"] == text


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "agent_id",
                    "hostname",
                    "value",
                    "url",
                    "address",
                    "ip",
                    "port",
                    "resources",
                    "attributes",
                    "name",
                    "type",
                    "text",
                    "scalar",
                    "ranges",
                    "range",
                    "begin",
                    "end",
                ]
            ),
            children,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["resources", "attributes", "url", "id", "hostname"]), hostile)
)
def test_no_offer_makes_the_others_fail(damage: dict[str, Any]) -> None:
    bad = {**offer(GOOD, Resources({"cpus": 1}), agent="bad"), **damage}
    merged = merge_offers([bad, offer(GOOD, Resources({"cpus": 1}), agent="good")])
    assert "good" in [agent.agent_id for agent in merged.agents]
    assert len(merged.agents) + len(merged.quarantined) == 2


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="recorded traffic of Mesos is not there")
def test_every_recorded_agent_is_read_or_set_aside_with_a_reason() -> None:
    seen = 0
    for line in (RECORDINGS / "03_offers.jsonl").read_text(encoding="utf-8").splitlines():
        for offers in _offers_in(json.loads(line)):
            merged = merge_offers(offers)
            ids = {o["agent_id"]["value"] for o in offers}
            assert len(ids) == len(merged.agents) + len(merged.quarantined)
            # these agents advertise sdp.numa.0.cores, but no schema
            assert all("sdp.schema is missing" in q.reason for q in merged.quarantined)
            seen += len(offers)
    assert seen > 10


def _offers_in(value: object) -> Iterator[list[dict[str, Any]]]:
    if isinstance(value, dict):
        offers = value.get("offers")
        if isinstance(offers, list) and offers and "agent_id" in offers[0]:
            yield offers
        for child in value.values():
            yield from _offers_in(child)
    elif isinstance(value, list):
        for child in value:
            yield from _offers_in(child)
