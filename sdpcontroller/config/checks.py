"""Rules that concern more than one field. Each is a function from the model to the problems it finds.

Rules about shapes look at simulated streams only: what a real correlator sends is not known from the
document. They are asked only when names and sources are in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.catalogue import IMAGER_PARAMETERS
from sdpcontroller.config.inputs import AntennaChannelisedVoltage
from sdpcontroller.config.problems import Problem, suggestion
from sdpcontroller.config.sdp import (
    BeamformerEngineering,
    Cal,
    ContinuumImage,
    Flags,
    SpectralImage,
    Vis,
)
from sdpcontroller.config.simulated import (
    SimAntennaChannelisedVoltage,
    SimBaselineCorrelationProducts,
    SimTiedArrayChannelisedVoltage,
)
from sdpcontroller.config.sky import parse_source
from sdpcontroller.config.stream import Stream

if TYPE_CHECKING:
    from sdpcontroller.config.product import ProductConfig

MIN_CAL_ANTENNAS = 4
"""Fewer antennas do not fix amplitude gains (closure amplitudes need four)."""
MIN_CAL_CHANNELS = 2
"""A delay is a slope over channels."""


def find_problems(config: ProductConfig) -> Iterator[Problem]:
    """Yield everything that is wrong. Shapes are looked at once all names and sources are right."""
    first = [*name_problems(config), *source_problems(config), *antenna_problems(config)]
    yield from first
    if first:
        return
    for rule in (
        band_problems,
        substream_problems,
        vis_problems,
        cal_problems,
        imager_problems,
        flags_problems,
        image_problems,
        beam_problems,
        simulation_problems,
    ):
        yield from rule(config)


def _path(config: ProductConfig, name: str, *more: str | int) -> tuple[str | int, ...]:
    return ("inputs" if name in config.inputs else "outputs", name, *more)


def name_problems(config: ProductConfig) -> Iterator[Problem]:
    """A name is that of one stream."""
    for name in config.outputs:
        if name in config.inputs:
            yield Problem(("outputs", name), "is the name of an input too: names are unique")


def source_problems(config: ProductConfig) -> Iterator[Problem]:
    """Sources exist and are of the right kinds, in the right order. That rules out cycles: kinds go one way."""
    for name, stream in config.streams.items():
        kinds: list[str | None] = []
        for position, source in enumerate(stream.source_names):
            found = config.streams.get(source)
            kinds.append(found.type_name() if found is not None else None)
            if found is None:
                hint = suggestion(source, config.streams)
                path = _path(config, name, "src_streams", position)
                yield Problem(path, f"there is no stream of this name{hint}", source)
        if None not in kinds and stream.SOURCES and not _fits(stream, kinds):
            rule = f"must be {_ways(stream)}, not [{', '.join(map(str, kinds))}]"
            yield Problem(_path(config, name, "src_streams"), rule, stream.source_names)


def _fits(stream: Stream, kinds: list[str | None]) -> bool:
    return any(
        len(way) == len(kinds)
        and all(kind in allowed for kind, allowed in zip(kinds, way, strict=True))
        for way in stream.SOURCES
    )


def _ways(stream: Stream) -> str:
    ways = [", ".join(" or ".join(sorted(types)) for types in way) for way in stream.SOURCES]
    return " or ".join(f"[{way}]" for way in ways)


def antenna_problems(config: ProductConfig) -> Iterator[Problem]:
    """Antennas are listed once."""
    for name, stream in config.streams.items():
        if isinstance(stream, SimAntennaChannelisedVoltage):
            antennas = stream.antenna_names
        elif isinstance(stream, AntennaChannelisedVoltage):
            antennas = stream.antennas
        else:
            continue
        for position, antenna in enumerate(antennas):
            if antenna in antennas[:position]:
                path = _path(config, name, "antennas", position)
                yield Problem(path, f"antenna {antenna} stands twice: antennas are unique")


def band_problems(config: ProductConfig) -> Iterator[Problem]:
    """A band lies above 0 Hz and within what is sampled; a product has one band."""
    bands: dict[str, str] = {}
    for name, stream in config.streams_of(SimAntennaChannelisedVoltage).items():
        if stream.bandwidth > stream.adc_sample_rate / 2:
            rule = f"must be at most half of adc_sample_rate ({stream.adc_sample_rate / 2:g} Hz)"
            yield Problem(_path(config, name, "bandwidth"), rule, stream.bandwidth)
        if stream.centre_frequency < stream.bandwidth / 2:
            rule = f"must be at least half of bandwidth ({stream.bandwidth / 2:g} Hz)"
            yield Problem(_path(config, name, "centre_frequency"), rule, stream.centre_frequency)
        other = bands.setdefault(stream.band, name)
        if len(bands) > 1 and other == name:
            yield Problem(_path(config, name, "band"), "a product has one band", stream.band)


def substream_problems(config: ProductConfig) -> Iterator[Problem]:
    """Channels divide into substreams, substreams into endpoints; an accumulation has a spectrum."""
    for name, stream in config.streams.items():
        if isinstance(stream, SimBaselineCorrelationProducts | SimTiedArrayChannelisedVoltage):
            voltage = config.source(name, SimAntennaChannelisedVoltage)[1]
            yield from _division_problems(config, name, stream, voltage.n_chans)
            if isinstance(stream, SimBaselineCorrelationProducts):
                spectrum = voltage.n_chans / voltage.bandwidth
                if stream.int_time < spectrum:
                    rule = f"must be at least the time of one spectrum ({spectrum:g} s)"
                    yield Problem(_path(config, name, "int_time"), rule, stream.int_time)


def _division_problems(
    config: ProductConfig,
    name: str,
    stream: SimBaselineCorrelationProducts | SimTiedArrayChannelisedVoltage,
    n_chans: int,
) -> Iterator[Problem]:
    per_substream = stream.n_chans_per_substream
    if per_substream is None:
        if n_chans % stream.n_endpoints:
            rule = f"must divide n_chans ({n_chans}), as n_chans_per_substream is not given"
            yield Problem(_path(config, name, "n_endpoints"), rule, stream.n_endpoints)
    elif n_chans % per_substream:
        rule = f"must divide n_chans ({n_chans})"
        yield Problem(_path(config, name, "n_chans_per_substream"), rule, per_substream)
    elif n_chans // per_substream % stream.n_endpoints:
        rule = f"must divide the number of substreams ({n_chans // per_substream})"
        yield Problem(_path(config, name, "n_endpoints"), rule, stream.n_endpoints)


def _range_problems(
    path: tuple[str | int, ...], channels: tuple[int, int] | None, n_chans: int
) -> Iterator[Problem]:
    if channels is not None and not 0 <= channels[0] < channels[1] <= n_chans:
        rule = f"must be [first, last + 1) within [0, {n_chans})"
        yield Problem(path, rule, channels)


def vis_problems(config: ProductConfig) -> Iterator[Problem]:
    """Output channels lie in the band and divide; output dumps are not shorter than the correlator's."""
    for name, stream in config.outputs_of(Vis).items():
        first, end = stream.output_channels or (0, 1)
        if first >= end:
            rule = "must be [first, last + 1) with first <= last"
            yield Problem(_path(config, name, "output_channels"), rule, stream.output_channels)
            continue
        try:
            correlator = config.correlator(name)
        except KeyError:
            continue
        channels = stream.output_channels or (0, correlator.n_chans)
        path = _path(config, name, "output_channels")
        yield from _range_problems(path, channels, correlator.n_chans)
        if (channels[1] - channels[0]) % stream.continuum_factor:
            rule = f"must divide the number of channels kept ({channels[1] - channels[0]})"
            yield Problem(_path(config, name, "continuum_factor"), rule, stream.continuum_factor)
        if stream.output_int_time < correlator.int_time:
            rule = f"must be at least int_time of {correlator.name} ({correlator.int_time:g} s)"
            yield Problem(_path(config, name, "output_int_time"), rule, stream.output_int_time)


def cal_problems(config: ProductConfig) -> Iterator[Problem]:
    """There are antennas enough to solve for, and reference antennas are among them."""
    for name, stream in config.outputs_of(Cal).items():
        antennas = config.antenna_names(name)
        if len(antennas) < MIN_CAL_ANTENNAS:
            rule = f"calibration needs {MIN_CAL_ANTENNAS} antennas, its source has {len(antennas)}"
            yield Problem(_path(config, name, "src_streams"), rule, stream.src_streams)
        yield from _cal_channel_problems(config, name, stream)
        path = _path(config, name, "parameters", "preferred_refants")
        for position, refant in enumerate(stream.parameters.preferred_refants or ()):
            if refant not in antennas:
                rule = f"is no antenna of the product{suggestion(refant, antennas)}"
                yield Problem((*path, position), rule, refant)


def _cal_channel_problems(config: ProductConfig, name: str, stream: Cal) -> Iterator[Problem]:
    """Delays and gains are solved from some channels; how many there are, a simulated stream tells."""
    try:
        n_chans: int | None = config.vis(name).n_chans
    except KeyError:
        n_chans = None
    for solver in ("k", "g"):
        first = getattr(stream.parameters, f"{solver}_bchan") or 0
        end = getattr(stream.parameters, f"{solver}_echan")
        path = _path(config, name, "parameters")
        if n_chans is not None and end is not None and end > n_chans:
            rule = f"is beyond the {n_chans} channels of {stream.src_streams[0]}"
            yield Problem((*path, f"{solver}_echan"), rule, end)
            continue
        last = n_chans if end is None else end
        if last is not None and first + MIN_CAL_CHANNELS > last:
            given = "" if end is None else f"{solver}_echan "
            rule = f"leaves fewer than {MIN_CAL_CHANNELS} channels to {given}{last}"
            yield Problem((*path, f"{solver}_bchan"), rule, first)


def imager_problems(config: ProductConfig) -> Iterator[Problem]:
    """The imager has settings of these names: it would say so hours later, when there is something to image."""
    known = sorted(IMAGER_PARAMETERS)
    listed = ", ".join(known)
    for name, stream in config.outputs_of(ContinuumImage).items():
        for parameter in sorted(stream.parameters.keys() - IMAGER_PARAMETERS):
            guess = suggestion(parameter, known)
            rule = f"is not a setting of the imager{guess} (settings: {listed})"
            yield Problem(_path(config, name, "parameters", parameter), rule)


def flags_problems(config: ProductConfig) -> Iterator[Problem]:
    """Flags made from one vis stream's solutions fit another only if both see the same data alike."""
    for name, stream in config.outputs_of(Flags).items():
        vis_name, cal_name = stream.src_streams
        vis = config.source(vis_name, Vis)[1]
        solved_name, solved = config.source(cal_name, Vis)
        path = _path(config, name, "src_streams")
        for field in ("src_streams", "output_int_time", "output_channels"):
            if getattr(vis, field) != getattr(solved, field):
                rule = f"{vis_name} and {solved_name}, which {cal_name} solves, differ in {field}"
                yield Problem(path, rule, stream.src_streams)
        if vis.continuum_factor % solved.continuum_factor:
            rule = (
                f"continuum_factor of {vis_name} ({vis.continuum_factor}) must be a multiple of "
                f"that of {solved_name} ({solved.continuum_factor}), which {cal_name} solves"
            )
            yield Problem(path, rule, stream.src_streams)


def image_problems(config: ProductConfig) -> Iterator[Problem]:
    """Channels to image lie within those of the visibilities."""
    for name, stream in config.outputs_of(SpectralImage).items():
        path = _path(config, name, "output_channels")
        try:
            n_chans = config.vis(name).n_chans
        except KeyError:
            n_chans = 2**31
        yield from _range_problems(path, stream.output_channels, n_chans)


def beam_problems(config: ProductConfig) -> Iterator[Problem]:
    """The two polarisations of a beam are two streams; channels to write lie in the band."""
    for name, stream in config.outputs.items():
        if stream.type in ("sdp.beamformer", "sdp.beamformer_engineering"):
            if len(set(stream.source_names)) < 2:
                path = _path(config, name, "src_streams")
                yield Problem(path, "must be two different streams", stream.source_names)
            if isinstance(stream, BeamformerEngineering):
                path = _path(config, name, "output_channels")
                yield from _range_problems(path, stream.output_channels, _beam_chans(config, name))


def _beam_chans(config: ProductConfig, name: str) -> int:
    try:
        return config.source(name, SimAntennaChannelisedVoltage)[1].n_chans
    except KeyError:
        return 2**31


def simulation_problems(config: ProductConfig) -> Iterator[Problem]:
    """Either a model of the sky or a recording; sources shine over all of the simulated band."""
    simulation = config.simulation
    if simulation.replay is not None:
        if not config.outputs_of(SimBaselineCorrelationProducts):
            rule = "there is no sim.cbf.baseline_correlation_products that could replay it"
            yield Problem(("simulation", "replay"), rule)
        for field in ("sources", "target"):
            if field in simulation.model_fields_set:
                yield Problem(("simulation", field), "a replayed observation brings its own")
    for name, stream in config.streams_of(SimAntennaChannelisedVoltage).items():
        edges = [stream.centre_frequency + side * stream.bandwidth / 2 for side in (-1, 1)]
        if edges[0] <= 0:
            continue  # told by band_problems
        for position, description in enumerate(simulation.sources):
            source = parse_source(description)
            if not all(source.flux_density(edge / 1e6) > 0 for edge in edges):
                rule = (
                    f"has no flux density over the band of {name} "
                    f"({edges[0] / 1e6:g} to {edges[1] / 1e6:g} MHz)"
                )
                yield Problem(("simulation", "sources", position), rule, description)
