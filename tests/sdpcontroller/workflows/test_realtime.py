from __future__ import annotations

import argparse
import dataclasses
import importlib
import ipaddress
import json
import math
from collections import Counter
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import catalogue
from pipelines.common.program import config_arguments
from scheduler import templates
from scheduler.graph import EdgeIndex, EdgeKind, ReadyKind, Restart, TaskTemplate
from scheduler.packing import pack
from scheduler.placement import Assignment, Placement, Running
from scheduler.quantities import Ranges, Resources
from scheduler.requests import NicRequest, TaskRequest
from scheduler.restart import plan_restart
from scheduler.topology import AgentSnapshot, Nic, NumaNode, Topology
from sdpcontroller import config
from sdpcontroller.cli import demo_config
from sdpcontroller.config import Cal, ProductConfig, Vis
from sdpcontroller.errors import ConfigError
from sdpcontroller.workflows import imaging, realtime, resources
from sdpcontroller.workflows.plan import Workflow
from sdpcontroller.workflows.sizes import correlation_size
from tests.sdpcontroller.documents import build, config_strategy, make_config

SOME = settings(max_examples=40, deadline=None)

REFERENCE_CPUS, REFERENCE_MIB, REFERENCE_MBPS = 32, 256 * 1024, 40_000
"""A server of MeerKAT's class: what one task may ask for at most."""


def of_kind(workflow: Workflow, kind: str) -> list[TaskTemplate]:
    return [task for task in workflow.graph.tasks if task.kind == kind]


def takers(workflow: Workflow) -> list[TaskTemplate]:
    """Who listens to L0 streams."""
    return [t for kind in ("cal", "vis_writer", "display") for t in of_kind(workflow, kind)]


def bandwidth(tasks: list[TaskTemplate], network: str, way: str) -> int:
    """Sum over the tasks, in thousandths of Mbit/s."""
    return sum(
        getattr(nic, f"bandwidth_{way}")
        for task in tasks
        for nic in task.request.nics
        if nic.network == network
    )


def settings_of(workflow: Workflow, task: TaskTemplate) -> dict[str, Any]:
    found: dict[str, Any] = workflow.telstate[f"config.{task.name}"]
    return found


def groups_of(endpoints: str) -> set[str]:
    first, _, more = endpoints.partition(":")[0].partition("+")
    start = ipaddress.IPv4Address(first)
    return {str(start + i) for i in range(int(more or 0) + 1)}


@SOME
@given(config_strategy())
def test_the_same_configuration_gives_the_same_graph(product: ProductConfig) -> None:
    again = config.parse(json.dumps(product.to_json()))
    assert build(product) == build(again)


@SOME
@given(config_strategy())
def test_every_graph_can_be_run(product: ProductConfig) -> None:
    workflow = build(product)
    workflow.graph.validate()
    names = {task.name for task in workflow.graph.tasks}
    assert workflow.telstate_task in names
    assert set(workflow.katcp_tasks) == names - {workflow.telstate_task}
    for name in workflow.katcp_tasks:
        task = workflow.graph.task(name)
        ports = ("katcp", "http") if task.kind in ("display", "cal") else ("katcp",)
        assert task.request.ports == ports
        assert task.ready.kind is ReadyKind.PORTS and task.ready.ports == ports


@SOME
@given(config_strategy())
def test_each_stream_has_its_programs(product: ProductConfig) -> None:
    workflow = build(product)
    kinds = Counter(task.kind for task in workflow.graph.tasks)
    vis = product.outputs_of(Vis)
    assert kinds["telstate"] == kinds["correlator"] == 1
    assert kinds["vis_writer"] == sum(stream.archive for stream in vis.values())
    assert kinds["meta_writer"] == any(stream.archive for stream in vis.values())
    assert kinds["cal"] == len(product.outputs_of(Cal))
    assert kinds["display"] == len(vis)
    for name in vis:
        ingests = [t for t in of_kind(workflow, "ingest") if f".{name}." in t.name]
        assert 1 <= len(ingests) == realtime.multicast_needs(product)[name]


@SOME
@given(config_strategy())
def test_what_is_sent_is_what_is_received(product: ProductConfig) -> None:
    """Within a thousandth of a Mbit/s for each task, to which requests are rounded."""
    workflow = build(product)
    sent = bandwidth(of_kind(workflow, "correlator"), "cbf", "out")
    assert sent > 0
    for name, vis in product.outputs_of(Vis).items():
        ingests = [t for t in of_kind(workflow, "ingest") if f".{name}." in t.name]
        received = bandwidth(ingests, "cbf", "in")
        joined = [groups_of(settings_of(workflow, task)["input"]) for task in ingests]
        if sum(map(len, joined)) == len(set().union(*joined)):  # nobody shares a group
            share = len(set().union(*joined)) / product.correlator(name).n_endpoints
            assert abs(received - share * sent) <= len(ingests)
        else:  # a group comes whole to each who joins it
            assert received > sent * product.vis(name).bandwidth / 856e6
        l0 = bandwidth(ingests, "sdp_10g", "out")
        for taker in takers(workflow):
            stated = settings_of(workflow, taker)
            if name in (stated.get("input_stream"), stated["stream"]):
                assert abs(bandwidth([taker], "sdp_10g", "in") - l0) <= len(ingests)
        assert l0 * vis.continuum_factor <= 3 * received  # 10 or 14 bytes for 8, fewer dumps


@SOME
@given(config_strategy())
def test_requests_name_the_groups_that_programs_are_told_to_use(product: ProductConfig) -> None:
    """So that no receiver is placed where the multicast of a sender by ibverbs does not reach it."""
    workflow = build(product)
    for task in workflow.graph.tasks:
        named = {
            way: [group for nic in task.request.nics for group in getattr(nic, way)]
            for way in ("sends", "receives")
        }
        stated = settings_of(workflow, task) if task.name in workflow.katcp_tasks else {}
        told = {
            "sends": stated.get("endpoints") or stated.get("output"),
            "receives": stated.get("input"),
        }
        for way, endpoints in told.items():
            assert set(named[way]) == (groups_of(endpoints) if endpoints else set()), task.name
        assert not any(nic.ibverbs for nic in task.request.nics), "no program can"


def test_an_ingest_is_not_placed_where_a_senders_multicast_would_not_reach_it() -> None:
    """A correlator outside of the product sends by ibverbs, on an interface that does not loop it back."""
    ingest = of_kind(build(make_config()), "ingest")[0]
    agents = [_receiving_agent("a", loopback=False), _receiving_agent("b", loopback=True)]
    groups = ingest.request.nics[0].receives
    assert groups
    request = TaskRequest.of(nics=[NicRequest.of("cbf", ibverbs=True, sends=groups[:1])])
    for host, reached in (("a", False), ("b", True)):
        sender = Running(request, Assignment(task="feng", agent_id=host, host=host, nics=(0,)))
        where = set()
        for only in agents:
            placed = pack([only], {ingest.name: ingest.request}, iterations=10, running=[sender])
            where |= {only.host} if isinstance(placed, Placement) else set()
        assert where == ({"a", "b"} if reached else {"b"}), host


def _receiving_agent(host: str, *, loopback: bool) -> AgentSnapshot:
    topology = Topology(
        numa=(NumaNode(Ranges(((0, 63),))),),
        nics=(
            Nic(
                name="e0",
                networks=(resources.CBF_NETWORK, resources.SDP_NETWORK),
                address="10.0.0.1",
                numa=0,
                speed_mbps=400_000,
                multicast_loopback=loopback,
                infiniband=("/dev/infiniband/uverbs0",),
            ),
        ),
    )
    amounts = {"cpus": 64_000, "mem": 10**9, "disk": 10**9}
    free = Resources(amounts, {"ports": Ranges(((31000, 32000),))}) + topology.resources()
    return AgentSnapshot(agent_id=host, host=host, topology=topology, free=free, address="10.0.0.1")


@SOME
@given(config_strategy())
def test_what_one_sends_another_listens_to(product: ProductConfig) -> None:
    workflow = build(product)
    (correlator,) = of_kind(workflow, "correlator")
    sent = groups_of(settings_of(workflow, correlator)["endpoints"])
    assert groups_of(workflow.simulated[0].endpoint) == sent
    for name in product.outputs_of(Vis):
        ingests = [t for t in of_kind(workflow, "ingest") if f".{name}." in t.name]
        received = [groups_of(settings_of(workflow, t)["input"]) for t in ingests]
        if product.vis(name).channels == (0, product.correlator(name).n_chans):
            assert set().union(*received) == sent
        else:
            assert set().union(*received) <= sent
        outputs = [groups_of(settings_of(workflow, t)["output"]) for t in ingests]
        l0 = set().union(*outputs)
        assert len(l0) == len(ingests)  # a group for each
        for taker in takers(workflow):
            stated = settings_of(workflow, taker)
            if name in (stated.get("input_stream"), stated["stream"]):
                assert groups_of(stated["input"]) == l0
    assert all(ipaddress.IPv4Address(group).is_multicast for group in sent)


@SOME
@given(config_strategy())
def test_no_task_asks_for_more_than_a_server_has(product: ProductConfig) -> None:
    for task in build(product).graph.tasks:
        request = task.request
        assert request.cpus / 1000 + len(request.cores) <= REFERENCE_CPUS
        assert 0 < request.mem / 1000 <= REFERENCE_MIB
        for nic in request.nics:
            assert 0 <= nic.bandwidth_in + nic.bandwidth_out <= 1000 * REFERENCE_MBPS


def test_meerkat_at_full_size_fits_servers_too() -> None:
    product = make_config(
        n_antennas=64, n_substreams=64, per_substream=512, n_endpoints=16, dumps=16, cal=False
    )
    workflow = build(product)
    for task in workflow.graph.tasks:
        assert task.request.mem / 1000 <= REFERENCE_MIB, task.name
    ingests = of_kind(workflow, "ingest")
    assert len(ingests) >= 4
    for task in ingests:
        assert bandwidth([task], "cbf", "in") / 1000 * 1e6 <= resources.INGEST_MAX_RATE


@SOME
@given(config_strategy())
def test_programs_understand_every_option(product: ProductConfig) -> None:
    """The graph's words against the programs' own parsers."""
    workflow = build(product)
    endpoints = {"endpoint[telstate:telstate]": "127.0.0.1:6379"}
    for task in workflow.graph.tasks:
        fields = dict.fromkeys(templates.own_fields(task.request), "127.0.0.1")
        ports = {field: "7148" for field in fields if field.startswith("ports[")}
        words = [templates.resolve(w, {**fields, **ports, **endpoints}) for w in task.command]
        assert words[:2] == ["python3", "-m"]
        parser: argparse.ArgumentParser = importlib.import_module(f"{words[2]}.__main__").parser()
        argv = words[3:]
        stated = workflow.telstate.get(f"config.{task.name}", {})
        parser.parse_args([*config_arguments(stated, argv), *argv])


def test_clocks_of_sender_and_receivers_agree() -> None:
    """Or ingest would pace its output for the speed of the sky while data comes faster."""
    workflow = build(make_config(clock_ratio=0.25))
    ratios = {
        settings_of(workflow, task)["clock_ratio"]
        for kind in ("correlator", "ingest")
        for task in of_kind(workflow, kind)
    }
    assert ratios == {0.25}


@SOME
@given(config_strategy())
def test_an_ingest_has_threads_and_cores_for_the_rate_that_it_takes(
    product: ProductConfig,
) -> None:
    """One core receives; the others, and as many threads, each take what a core is measured to take."""
    workflow = build(product)
    less = product.config.development.less_resources
    for task in of_kind(workflow, "ingest"):
        stated = settings_of(workflow, task)
        first, last = map(int, stated["channels"].split(":"))
        size = correlation_size(product, stated["input_stream"])
        rate = dataclasses.replace(size, n_chans=last - first).correlation_mbps() * 1e6
        cores = len(task.request.cores)
        assert stated["workers"] == max(1, cores - 1)
        assert cores == 1 if less else (cores - 1) * catalogue.INGEST_CORE_RATE >= rate


def test_ingests_agree_on_the_whole_stream() -> None:
    workflow = build(make_config(output_channels=(256, 768), factors=(2,)))
    ingests = of_kind(workflow, "ingest")
    stated = [settings_of(workflow, task) for task in ingests]
    assert {s["output_channels"] for s in stated} == {"256:768"}
    assert [s["channels"] for s in stated] == ["256:512", "512:768"]


@SOME
@given(config_strategy())
def test_programs_start_after_what_they_need_and_end_with_the_flow(product: ProductConfig) -> None:
    workflow = build(product)
    ready = workflow.graph.networkx(EdgeKind.READY)
    kill = workflow.graph.networkx(EdgeKind.KILL)
    for task in workflow.graph.tasks:
        if task.name != "telstate":
            assert nx.has_path(ready, task.name, "telstate")
            assert nx.has_path(kill, task.name, "telstate")
    for ingest in of_kind(workflow, "ingest"):
        assert nx.has_path(ready, ingest.name, "sim.corr")  # its stream is described at start
        assert nx.has_path(kill, "sim.corr", ingest.name)  # the source falls silent first
    order = workflow.roles.capture_order()
    kinds = [{workflow.graph.task(name).kind for name in stage} for stage in order]
    flow = ("correlator", "ingest", "cal", "vis_writer", "meta_writer", "display")
    assert kinds == [{kind} for kind in flow if {kind} in kinds]
    taking_part = set(workflow.katcp_tasks) - {"quality"}
    assert {name for stage in order for name in stage} == taking_part


@SOME
@given(config_strategy())
def test_what_an_observation_can_do_without_is_started_again_by_itself(
    product: ProductConfig,
) -> None:
    """Nobody else is started with it, wherever it comes to be: its old place may be taken."""
    graph = build(product).graph
    edges = EdgeIndex(graph)
    policies = {task.name: task.restart for task in graph.tasks}
    alive = set(policies)
    for task in graph.tasks:
        if task.critical:
            assert task.restart is Restart.NEVER
        else:
            plan = plan_restart(task.name, edges, policies, alive - {task.name})
            assert (plan.in_place, plan.anywhere) == ((), (task.name,))
            assert (task.restart is Restart.SAME_AGENT) == bool(task.request.volumes)


@given(
    st.floats(0.001, 100), st.integers(1, 2**16), st.integers(1, 80), st.floats(0.1, 10)
)  # fmt: skip
def test_rates_are_proportional(
    int_time: float, n_chans: int, n_antennas: int, speed: float
) -> None:
    size = resources.StreamSize(n_chans, n_antennas, int_time, speed)
    double = dataclasses.replace(size, n_chans=2 * n_chans)
    assert math.isclose(double.correlation_mbps(), 2 * size.correlation_mbps())
    assert math.isclose(double.l0_mbps(), 2 * size.l0_mbps())
    # Bytes of a dump from first principles: two int32 for four products of each pair.
    dump = n_chans * 4 * n_antennas * (n_antennas + 1) / 2 * 8
    wire = size.correlation_mbps() * 1e6 / 8 * (int_time / speed)
    assert math.isclose(wire, dump * catalogue.STREAM_OVERHEAD)


def test_overrides_reach_their_task_only() -> None:
    overrides = {"ingest.l0_0.1": {"config": {"window": 4, "excise": False}, "host": "sdp-7"}}
    plain, changed = (
        build(make_config()),
        build(make_config(config={"service_overrides": overrides})),
    )
    for task in plain.graph.tasks:
        other = changed.graph.task(task.name)
        stated = changed.telstate.get(f"config.{task.name}", {})
        if task.name == "ingest.l0_0.1":
            assert other.request == dataclasses.replace(task.request, host="sdp-7")
            assert stated["window"] == 4 and stated["excise"] is False
        else:
            assert other == task
            assert stated == plain.telstate.get(f"config.{task.name}", {})


_REAL_CORRELATOR = {
    "voltage": {
        "type": "cbf.antenna_channelised_voltage",
        "url": "spead://239.2.1.150+15:7148",
        "antennas": ["m000", "m001", "m002", "m003"],
        "instrument_dev_name": "i0",
    },
    "corr": {
        "type": "cbf.baseline_correlation_products",
        "src_streams": ["voltage"],
        "url": "spead://239.9.3.1+15:7148",
        "instrument_dev_name": "i0",
    },
}


@pytest.mark.parametrize("act", [realtime.multicast_needs, build])
def test_a_real_correlator_is_refused_by_path(act: Any) -> None:
    product = config.parse(
        json.dumps(
            {
                "version": "4.9",
                "inputs": _REAL_CORRELATOR,
                "outputs": {
                    "l0": {
                        "type": "sdp.vis",
                        "src_streams": ["corr"],
                        "output_int_time": 2,
                        "continuum_factor": 1,
                    }
                },
            }
        )
    )
    with pytest.raises(ConfigError, match=r"outputs\.l0\.src_streams: corr is not simulated"):
        act(product)


def test_outputs_that_nothing_makes_are_refused_by_path() -> None:
    flags = {"type": "sdp.flags", "src_streams": ["l0_0", "cal_0"], "archive": True}
    cube = {"type": "sdp.spectral_image", "src_streams": ["flags"]}
    build(make_config(outputs={"flags": flags, "cube": cube}))
    beams = {
        f"beam_{pol}": {
            "type": "sim.cbf.tied_array_channelised_voltage",
            "src_streams": ["voltage"],
            "n_endpoints": 4,
        }
        for pol in "xy"
    }
    beamformer = {"type": "sdp.beamformer", "src_streams": ["beam_x", "beam_y"]}
    polarised = {**cube, "parameters": {"clean_mode": "IQUV"}}
    outputs = {"flags": flags, **beams, "beamformer": beamformer, "cube": polarised}
    with pytest.raises(ConfigError) as caught:
        build(make_config(outputs=outputs))
    lines = str(caught.value).splitlines()
    assert {line.partition(":")[0] for line in lines} == {
        "outputs.beamformer",
        "outputs.cube.parameters.clean_mode",
    }


@pytest.mark.parametrize("archive", [True, False])
def test_flags_are_made_from_l0_and_written_before_the_visibilities_telescope_state(
    archive: bool,
) -> None:
    made = {"type": "sdp.flags", "src_streams": ["l0_0", "cal_0"], "archive": archive}
    product = make_config(outputs={"flags": made | {"rate_ratio": 4.0}})
    workflow = build(product)
    (flagger,) = of_kind(workflow, "flags")
    writers = of_kind(workflow, "flag_writer")
    assert len(writers) == archive
    stated = settings_of(workflow, flagger)
    assert stated["cal_stream"] == "cal_0"
    ingests = of_kind(workflow, "ingest")
    outputs = set().union(*(groups_of(settings_of(workflow, t)["output"]) for t in ingests))
    assert groups_of(stated["input"]) == outputs
    assert len(groups_of(stated["output"])) == len(outputs)
    assert not groups_of(stated["output"]) & outputs
    assert not flagger.critical
    order = [
        {workflow.graph.task(n).kind for n in stage} for stage in workflow.roles.capture_order()
    ]
    if archive:
        assert groups_of(settings_of(workflow, writers[0])["input"]) == groups_of(stated["output"])
        flow = [{"flags"}, {"flag_writer"}, {"vis_writer"}, {"meta_writer"}]
        assert [kinds for kinds in order if kinds in flow] == flow
        sent = bandwidth([flagger], "sdp_10g", "out")
        assert sent == bandwidth(writers, "sdp_10g", "in")
        # a byte of ten (and a scale per channel), four times as fast as real time
        assert sent == pytest.approx(0.4 * bandwidth(ingests, "sdp_10g", "out"), rel=0.02)
    values = workflow.telstate
    assert ("flags" in values["sdp_archived_streams"]) == archive
    assert values["flags_stream_type"] == "sdp.flags"


def test_images_from_flags_are_calibrated() -> None:
    made = {"type": "sdp.flags", "src_streams": ["l0_0", "cal_0"], "archive": True}
    image = {"type": "sdp.continuum_image", "src_streams": ["flags"], "min_time": 1.0}
    product = make_config(outputs={"flags": made, "image": image})
    targets = [imaging.ObservedTarget("t", frozenset(), 10.0)]
    (task,) = imaging.build(product, "p", "1", {"l0_0": targets}).graph.tasks
    assert "--applycal" in task.command


def test_channels_that_cannot_be_split_are_refused_by_path() -> None:
    with pytest.raises(ConfigError, match=r"^outputs\.l0_0\.output_channels"):
        build(make_config(output_channels=(1, 513)))
    with pytest.raises(ConfigError, match=r"^outputs\.l0_0\.continuum_factor"):
        build(make_config(factors=(1024,), cal=False))


def test_telescope_state_has_what_the_interface_promises() -> None:
    """Table in docs/reference/streams.md, rows written by the controller."""
    product = make_config(factors=(1, 2))
    values = build(product).telstate
    assert values["sub_product"] == values["subarray_product_id"] == "array_1"
    assert values["sub_band"] == "l"
    assert values["sub_pool_resources"] == "m000,m001,m002,m003"
    assert values["m002_observer"].startswith("m002, -30:42:39.8")
    assert sorted(values["sdp_archived_streams"]) == ["cal_0", "cal_1", "l0_0", "l0_1"]
    for name, stream in product.outputs.items():
        assert values[f"{name}_src_streams"] == list(stream.source_names)
        assert not values[f"{name}_stream_type"].startswith("sim.")


def test_what_the_demonstration_asks_for() -> None:
    """Golden totals: the demonstration must fit a small machine, and a change must be a decision.

    To renew: run the test, look at what differs and why, and write the new numbers here with the commit that
    changes the formulas of ``sdpcontroller/workflows/resources.py``.
    """
    document = demo_config.simulated(60.0, 20.0).document
    workflow = build(config.parse(json.dumps(document)))
    requests = {task.name: task.request for task in workflow.graph.tasks}
    assert sorted(requests) == [
        "cal.cal",
        "display.sdp_l0",
        "ingest.sdp_l0.0",
        "ingest.sdp_l0.1",
        "meta_writer",
        "quality",
        "sim.i0_baseline_correlation_products",
        "telstate",
        "vis_writer.sdp_l0",
    ]
    total = {
        "cpus": sum(r.cpus for r in requests.values()) / 1000,
        "cores": sum(len(r.cores) for r in requests.values()),
        "mem": sum(r.mem for r in requests.values()) / 1000,
        "cbf in": bandwidth(list(workflow.graph.tasks), "cbf", "in") / 1000,
        "cbf out": bandwidth(list(workflow.graph.tasks), "cbf", "out") / 1000,
        "sdp in": bandwidth(list(workflow.graph.tasks), "sdp_10g", "in") / 1000,
        "sdp out": bandwidth(list(workflow.graph.tasks), "sdp_10g", "out") / 1000,
    }
    assert total == GOLDEN


GOLDEN = {
    "cpus": 3.4,
    "cores": 2,
    "mem": 2821.0,
    "cbf in": 19.818,
    "cbf out": 19.818,
    "sdp in": 18.63,
    "sdp out": 6.21,
}
"""CPUs, pinned cores, MiB, Mbit/s."""
