"""The real-time workflow: from a correlator's heaps to a data set.

::

    correlator ──► ingest × n ──► cal
        │              │  ├─────► flags ──► flag_writer
        │              │  ├─────► vis_writer
        │              │  └─────► display
        └───────┬──────┘
             telstate   (everybody)   quality   (what everybody says of his work)
                 └──► meta_writer

Pure: the same configuration, name and multicast addresses give the same graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipelines import catalogue
from pipelines.catalogue import Program
from scheduler.graph import (
    Edge,
    EdgeKind,
    LogicalGraph,
    ReadyCheck,
    ReadyKind,
    Restart,
    TaskTemplate,
)
from scheduler.requests import TaskRequest
from sdpcontroller.config import (
    Cal,
    ProductConfig,
    SimAntennaChannelisedVoltage,
    SimBaselineCorrelationProducts,
    Vis,
)
from sdpcontroller.config.sdp import Flags
from sdpcontroller.errors import ConfigError
from sdpcontroller.workflows import refusals, resources
from sdpcontroller.workflows.bands import Band, endpoint_range, naming_groups, split_band
from sdpcontroller.workflows.plan import (
    KILL_GRACE,
    LAUNCH_TIMEOUT,
    CaptureTask,
    SimulatedStream,
    Workflow,
)
from sdpcontroller.workflows.resources import CBF_NETWORK, SDP_NETWORK, Asked
from sdpcontroller.workflows.sizes import correlation_size, l0_size

TELSTATE_TASK: Final = "telstate"
QUALITY_TASK: Final = "quality"
METADATA_TASK: Final = "meta_writer"

_FLOW: Final[Mapping[str, frozenset[str]]] = {
    catalogue.CORRELATOR.kind: frozenset({catalogue.INGEST.kind}),
    catalogue.INGEST.kind: frozenset(
        {
            catalogue.CALIBRATION.kind,
            catalogue.FLAGS.kind,
            catalogue.WRITER.kind,
            catalogue.DISPLAY.kind,
        }
    ),
    catalogue.FLAGS.kind: frozenset({catalogue.FLAG_WRITER.kind}),
}
"""Who sends data to whom, by kind of program."""

_EXPENDABLE: Final = frozenset(
    {
        catalogue.DISPLAY.kind,
        catalogue.FLAGS.kind,
        catalogue.FLAG_WRITER.kind,
        catalogue.METADATA.kind,
        catalogue.QUALITY.kind,
    }
)
"""Programs without which an observation is whole; one that dies is started again."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A task of the graph and the settings that it reads from telescope state."""

    template: TaskTemplate
    settings: Mapping[str, Any]
    program: Program
    asked: Asked


def multicast_needs(config: ProductConfig) -> dict[str, int]:
    """How many multicast groups each stream needs, by stream name; raises as :func:`build`."""
    refusals.check_is_made(config)
    correlations = config.outputs_of(SimBaselineCorrelationProducts)
    needs = {name: stream.n_endpoints for name, stream in correlations.items()}
    needs |= {vis: len(_bands(config, vis)) for vis in config.outputs_of(Vis)}
    return needs | {name: needs[config.source(name, Vis)[0]] for name in config.outputs_of(Flags)}


def build(config: ProductConfig, product: str, multicast: Mapping[str, str]) -> Workflow:
    """Make the graph of a product.

    Parameters
    ----------
    config
        The configuration, checked.
    product
        The product's name.
    multicast
        First address of each stream of :func:`multicast_needs`.

    Raises
    ------
    ConfigError
        If the configuration asks for an output that no workflow makes, or takes input from a correlator that is
        not simulated.
    """
    refusals.check_is_made(config)
    tasks = list(_tasks(config, multicast))
    graph = LogicalGraph(
        product, tuple(task.template for task in tasks), tuple(_edges([t.template for t in tasks]))
    )
    settings = {f"config.{task.template.name}": dict(task.settings) for task in tasks}
    return Workflow(
        graph=graph,
        telstate_task=TELSTATE_TASK,
        katcp_tasks=tuple(t.template.name for t in tasks if t.program.katcp),
        captures=tuple(
            CaptureTask(task.template.name, int(task.program.stage))
            for task in tasks
            if task.program.stage is not None
        ),
        simulated=tuple(_simulated(config, multicast)),
        telstate={**_attributes(config, product), **settings},
        asked={task.template.name: task.asked.quantities for task in tasks},
    )


def _bands(config: ProductConfig, vis: str) -> tuple[Band, ...]:
    """Parts of the band of visibility stream `vis`, one per ingest."""
    source, wanted = config.correlator(vis), config.vis(vis)
    try:
        return split_band(
            n_chans=source.n_chans,
            n_chans_per_substream=source.n_chans_per_substream,
            n_endpoints=source.n_endpoints,
            output_channels=wanted.channels,
            continuum_factor=wanted.continuum_factor,
            chan_mbps=correlation_size(config, source.name).correlation_mbps() / source.n_chans,
            max_mbps=resources.INGEST_MAX_RATE / 1e6,
        )
    except ConfigError as exc:
        raise ConfigError(f"outputs.{vis}.{exc}") from None


def _tasks(config: ProductConfig, multicast: Mapping[str, str]) -> Iterator[_Task]:
    yield _task(
        config,
        catalogue.TELSTATE,
        TELSTATE_TASK,
        resources.telstate(
            [l0_size(config, cal.src_streams[0]) for cal in config.outputs_of(Cal).values()]
        ),
        options=("--host", "{address}", "--port", "{ports[telstate]}", "--dir", "{sandbox}"),
    )
    yield _task(config, catalogue.QUALITY, QUALITY_TASK, resources.quality())
    yield from _metadata(config)
    for name in config.outputs_of(SimBaselineCorrelationProducts):
        yield _correlator(config, name, multicast)
    for name, vis in config.outputs_of(Vis).items():
        bands = _bands(config, name)
        for number, band in enumerate(bands):
            yield _ingest(config, name, number, band, multicast)
        l0 = _groups(multicast[name], len(bands))
        if vis.archive:
            yield _writer(config, name, l0)
        yield _display(config, name, l0)
        for flags, made in config.outputs_of(Flags).items():
            if made.src_streams[0] == name:
                groups = _groups(multicast[flags], len(bands))
                yield _flags(config, flags, l0, groups)
                if made.archive:
                    yield _flag_writer(config, flags, groups)
        for cal, stream in config.outputs_of(Cal).items():
            if stream.src_streams[0] == name:
                yield _calibration(config, cal, l0)


def _task(
    config: ProductConfig,
    program: Program,
    name: str,
    asked: Asked,
    *,
    network: str | None = None,
    options: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    sends: Mapping[str, str] | None = None,
    receives: Mapping[str, str] | None = None,
) -> _Task:
    """Make one task, with the options that all programs share and the document's overrides.

    What it sends and receives are endpoints by network.
    """
    override = config.config.service_overrides.get(name)
    request = naming_groups(asked.request, sends or {}, receives or {})
    command = ["python3", "-m", program.module]
    if program.katcp:
        command += ["--name", "{task.name}", "--host", "{address}", "--port", "{ports[katcp]}"]
        command += ["--telstate", f"{{endpoint[{TELSTATE_TASK}:telstate]}}"]
        command += ["--config-key", f"config.{name}"]
    if network is not None:
        command += ["--interface", f"{{interface[{network}].address}}"]
    if override is not None and override.host is not None:
        request = dataclasses.replace(request, host=override.host)
    template = TaskTemplate(
        name=name,
        kind=program.kind,
        command=(*command, *options),
        request=request,
        ready=ReadyCheck(ReadyKind.PORTS, program.ports),
        critical=program.kind not in _EXPENDABLE,
        restart=_restart(program, request),
        launch_timeout=LAUNCH_TIMEOUT,
        kill_grace=KILL_GRACE,
    )
    overriding = {} if override is None else override.config
    return _Task(template, {**(settings or {}), **overriding}, program, asked)


def _restart(program: Program, request: TaskRequest) -> Restart:
    """Decide where a task may be started again: what it had may belong to somebody else by then."""
    if program.kind not in _EXPENDABLE:
        return Restart.NEVER
    return Restart.SAME_AGENT if request.volumes else Restart.ANYWHERE


def _correlator(config: ProductConfig, name: str, multicast: Mapping[str, str]) -> _Task:
    shape = config.correlator(name)
    _, voltage = config.source(name, SimAntennaChannelisedVoltage)
    simulation = config.simulation
    settings: dict[str, Any] = {
        "stream": name,
        "endpoints": _groups(multicast[name], shape.n_endpoints),
        "antenna": list(voltage.antennas),
        "n_chans": shape.n_chans,
        "n_chans_per_substream": shape.n_chans_per_substream,
        "bandwidth": shape.bandwidth,
        "centre_frequency": shape.centre_frequency,
        "adc_sample_rate": shape.adc_sample_rate,
        "int_time": shape.int_time,
        "source": list(simulation.sources),
        "seed": simulation.seed,
        "clock_ratio": 1.0 / simulation.speed,
        "max_rate": 1.2e6 * correlation_size(config, name).correlation_mbps() + 1e6,
    }
    if simulation.start_time is not None:
        settings["start_time"] = simulation.start_time
    if simulation.target is not None:
        settings["target"] = simulation.target
    if simulation.replay is not None:
        settings["replay"] = simulation.replay.file
    return _task(
        config,
        catalogue.CORRELATOR,
        f"sim.{name}",
        resources.correlator(correlation_size(config, name)),
        network=CBF_NETWORK,
        settings=settings,
        sends={CBF_NETWORK: settings["endpoints"]},
    )


def _ingest(
    config: ProductConfig, vis: str, number: int, band: Band, multicast: Mapping[str, str]
) -> _Task:
    _, model = config.source(vis, Vis)
    source = model.src_streams[0]
    whole = correlation_size(config, source)
    part = dataclasses.replace(whole, n_chans=band.n_chans)
    per_group = whole.n_chans // config.correlator(source).n_endpoints
    n_groups = band.endpoints[1] - band.endpoints[0]
    groups = dataclasses.replace(whole, n_chans=n_groups * per_group)
    n_heaps = band.n_chans // config.correlator(source).n_chans_per_substream
    output = dataclasses.replace(
        l0_size(config, vis), n_chans=band.n_chans // model.continuum_factor
    )
    less = config.config.development.less_resources
    asked = resources.ingest(part, groups, output, n_heaps=n_heaps, less=less)
    settings: dict[str, Any] = {
        "input_stream": source,
        "input": endpoint_range(multicast[source], *band.endpoints, catalogue.SPEAD_PORT),
        "output_stream": vis,
        "output": endpoint_range(multicast[vis], number, number + 1, catalogue.SPEAD_PORT),
        "channels": f"{band.channels[0]}:{band.channels[1]}",
        "output_channels": "{}:{}".format(*config.vis(vis).channels),
        "output_int_time": model.output_int_time,
        "continuum_factor": model.continuum_factor,
        "excise": model.excise,
        "clock_ratio": 1.0 / config.simulation.speed,
        # A thread for each core that does not receive.
        "workers": max(1, len(asked.request.cores) - 1),
    }
    return _task(
        config,
        catalogue.INGEST,
        f"ingest.{vis}.{number}",
        asked,
        network=CBF_NETWORK,
        options=("--output-interface", f"{{interface[{SDP_NETWORK}].address}}"),
        settings=settings,
        receives={CBF_NETWORK: settings["input"]},
        sends={SDP_NETWORK: settings["output"]},
    )


def _calibration(config: ProductConfig, name: str, l0: str) -> _Task:
    _, model = config.source(name, Cal)
    size = l0_size(config, model.src_streams[0])
    settings: dict[str, Any] = {
        "stream": name,
        "input_stream": model.src_streams[0],
        "input": l0,
        "buffer_time": model.buffer_time,
    }
    parameters = model.parameters
    for setting in ("g_solint", "k_bchan", "k_echan", "g_bchan", "g_echan"):
        value = getattr(parameters, setting)
        if value is not None:
            settings[setting] = value
    if parameters.preferred_refants is not None:
        settings["preferred_refants"] = list(parameters.preferred_refants)
    less = config.config.development.less_resources
    return _task(
        config,
        catalogue.CALIBRATION,
        f"cal.{name}",
        resources.calibration(size, model.buffer_time, parameters.g_solint or 0.0, less=less),
        network=SDP_NETWORK,
        options=(
            *("--http-port", "{ports[http]}"),
            *("--data", f"{{volume[{resources.DATA_VOLUME}].path}}"),
        ),
        settings=settings,
        receives={SDP_NETWORK: l0},
    )


def _writer(config: ProductConfig, vis: str, l0: str) -> _Task:
    return _task(
        config,
        catalogue.WRITER,
        f"vis_writer.{vis}",
        resources.writer(l0_size(config, vis)),
        network=SDP_NETWORK,
        options=("--data", f"{{volume[{resources.DATA_VOLUME}].path}}"),
        settings={"stream": vis, "input": l0},
        receives={SDP_NETWORK: l0},
    )


def _metadata(config: ProductConfig) -> Iterator[_Task]:
    """One for all streams that are written: what it writes is the telescope state of the product."""
    archived = [name for name, vis in config.outputs_of(Vis).items() if vis.archive]
    if archived:
        yield _task(
            config,
            catalogue.METADATA,
            METADATA_TASK,
            resources.metadata([l0_size(config, name) for name in archived]),
            options=("--data", f"{{volume[{resources.DATA_VOLUME}].path}}"),
            settings={"stream": archived},
        )


def _flags(config: ProductConfig, name: str, l0: str, groups: str) -> _Task:
    vis, _ = config.source(name, Vis)
    cal, _ = config.source(name, Cal)
    ratio = config.outputs_of(Flags)[name].rate_ratio
    return _task(
        config,
        catalogue.FLAGS,
        f"flags.{name}",
        resources.flags(l0_size(config, vis), ratio),
        network=SDP_NETWORK,
        settings={
            "stream": name,
            "input_stream": vis,
            "cal_stream": cal,
            "input": l0,
            "output": groups,
            "rate_ratio": ratio,
            "clock_ratio": 1.0 / config.simulation.speed,
        },
        receives={SDP_NETWORK: l0},
        sends={SDP_NETWORK: groups},
    )


def _flag_writer(config: ProductConfig, name: str, groups: str) -> _Task:
    vis, _ = config.source(name, Vis)
    ratio = config.outputs_of(Flags)[name].rate_ratio
    return _task(
        config,
        catalogue.FLAG_WRITER,
        f"flag_writer.{name}",
        resources.flag_writer(l0_size(config, vis), ratio),
        network=SDP_NETWORK,
        options=("--data", f"{{volume[{resources.DATA_VOLUME}].path}}"),
        settings={"stream": name, "flags_of": vis, "input": groups},
        receives={SDP_NETWORK: groups},
    )


def _display(config: ProductConfig, vis: str, l0: str) -> _Task:
    return _task(
        config,
        catalogue.DISPLAY,
        f"display.{vis}",
        resources.display(l0_size(config, vis)),
        network=SDP_NETWORK,
        options=("--http-port", "{ports[http]}"),
        settings={"stream": vis, "input": l0},
        receives={SDP_NETWORK: l0},
    )


def _edges(tasks: list[TaskTemplate]) -> Iterator[Edge]:
    """Everybody needs the telescope state; programs start, and end, in the direction of the data."""
    for task in tasks:
        if task.name == TELSTATE_TASK:
            continue
        yield Edge(task.name, TELSTATE_TASK, EdgeKind.PORT)
        yield Edge(task.name, TELSTATE_TASK, EdgeKind.READY)
        yield Edge(task.name, TELSTATE_TASK, EdgeKind.KILL)
    for upstream_kind, downstream_kinds in _FLOW.items():
        for upstream in (task for task in tasks if task.kind == upstream_kind):
            for downstream in (task for task in tasks if task.kind in downstream_kinds):
                # The attributes of a stream are published by its sender before it is ready.
                yield Edge(downstream.name, upstream.name, EdgeKind.READY)
                if downstream.critical:  # others can be restarted by themselves, while data flow
                    yield Edge(upstream.name, downstream.name, EdgeKind.KILL)


def _groups(first: str, count: int) -> str:
    return endpoint_range(first, 0, count, catalogue.SPEAD_PORT)


def _simulated(config: ProductConfig, multicast: Mapping[str, str]) -> Iterator[SimulatedStream]:
    for name, stream in config.outputs_of(SimBaselineCorrelationProducts).items():
        yield SimulatedStream(name, _groups(multicast[name], stream.n_endpoints), f"sim.{name}")


def _attributes(config: ProductConfig, product: str) -> dict[str, Any]:
    """Values of the telescope state that the controller knows from the document."""
    values: dict[str, Any] = {"subarray_product_id": product, "sub_product": product}
    antennas: dict[str, str] = {}
    for voltage in config.outputs_of(SimAntennaChannelisedVoltage).values():
        values["sub_band"] = voltage.band
        antennas |= dict(zip(voltage.antenna_names, voltage.antennas, strict=True))
    values["sub_pool_resources"] = ",".join(antennas)
    values |= {f"{name}_observer": description for name, description in antennas.items()}
    values["sdp_archived_streams"] = [
        *(name for name, vis in config.outputs_of(Vis).items() if vis.archive),
        *config.outputs_of(Cal),
        *(name for name, flags in config.outputs_of(Flags).items() if flags.archive),
    ]
    for name, stream in config.outputs.items():
        values[f"{name}_stream_type"] = stream.type.removeprefix("sim.")
        values[f"{name}_src_streams"] = list(stream.source_names)
    return values
