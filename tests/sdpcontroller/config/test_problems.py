"""A bad document is answered with path, value and rule; a misspelt word with the right one."""

from __future__ import annotations

import pytest

from sdpcontroller.config import ProductConfig
from sdpcontroller.config.problems import MAX_LINES
from sdpcontroller.errors import ConfigError

ACV = "outputs.i0_antenna_channelised_voltage"
BCP = "outputs.i0_baseline_correlation_products"
ANTENNA = "x, -30:42:39.8, 21:26:38.0, 1035.0, 13.5"


def lines(document: dict) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        ProductConfig.from_document(document)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("changes", "start", "rule"),
    [
        ({"version": "2.9"}, 'version: "2.9": ', "must be '3.0'"),
        ({"version": 4.5}, "version: 4.5: ", "did you mean '4.5'"),
        ({"outputs": ...}, "outputs: ", "is required"),
        ({"outputs": []}, "outputs: []: ", "must be an object"),
        ({"output": {}}, "output: ", "did you mean 'outputs'"),
        ({"outputs.a b": {"type": "sdp.cal"}}, "outputs.a b: ", "no valid name"),
        ({"outputs.x": {"type": "sdp.viz"}}, 'outputs.x.type: "sdp.viz": ', "did you mean 'sdp.vis'"),
        ({"outputs.x": {"type": "nothing"}}, 'outputs.x.type: "nothing": ', "known: sim.cbf."),
        ({"outputs.x": {}}, "outputs.x.type: ", "is required"),
        ({"outputs.x": 7}, "outputs.x: 7: ", "must be an object"),
        ({"inputs.x": {"type": "sdp.vis"}}, "inputs.x.type: ", "known: cbf."),
        ({"outputs.sdp_l0.output_int_time": ...}, "outputs.sdp_l0.output_int_time: ", "[s]"),
        ({"outputs.sdp_l0.excize": True}, "outputs.sdp_l0.excize: ", "did you mean 'excise'"),
        ({"outputs.sdp_l0.excise": 1}, "outputs.sdp_l0.excise: 1: ", "boolean"),
        ({"outputs.sdp_l0.output_int_time": "8"}, 'outputs.sdp_l0.output_int_time: "8"', "number"),
        ({"outputs.sdp_l0.output_int_time": True}, "outputs.sdp_l0.output_int_time: true", "number"),
        ({"outputs.sdp_l0.output_int_time": 0}, "outputs.sdp_l0.output_int_time: 0: ", "than 0"),
        ({"outputs.sdp_l0.output_int_time": 0.1}, "outputs.sdp_l0.output_int_time: 0.1", "0.499 s"),
        ({"outputs.sdp_l0.continuum_factor": 3}, "outputs.sdp_l0.continuum_factor: 3: ", "divide"),
        ({"outputs.sdp_l0.continuum_factor": 1.5}, "outputs.sdp_l0.continuum_factor: 1.5", "integer"),
        ({"outputs.sdp_l0.output_channels": [0, 4097]}, "outputs.sdp_l0.output_channels", "4096"),
        ({"outputs.sdp_l0.output_channels": [9, 9]}, "outputs.sdp_l0.output_channels", "[9, 9]"),
        ({"outputs.sdp_l0.src_streams": []}, "outputs.sdp_l0.src_streams: []", "at least 1"),
        ({"outputs.cal.src_streams": ["sdp_10"]}, "outputs.cal.src_streams[0]", "mean 'sdp_l0'"),
        ({"outputs.cal.src_streams": ["cal"]}, "outputs.cal.src_streams", "must be [sdp.vis]"),
        ({"outputs.sdp_l1_flags.src_streams": ["cal", "sdp_l0"]}, "outputs.sdp_l1_flags", "must be"),
        ({"outputs.sdp_l1_flags.rate_ratio": 1}, "outputs.sdp_l1_flags.rate_ratio: 1", "than 1"),
        ({"outputs.sdp_l1_flags.archive": ...}, "outputs.sdp_l1_flags.archive", "required"),
        ({"outputs.cal.parameters": {"k_bchan": 99, "k_echan": 100}},
         "outputs.cal.parameters.k_bchan: 99", "fewer than 2"),
        ({"outputs.cal.parameters": {"g_echan": 4097}},
         "outputs.cal.parameters.g_echan: 4097", "beyond the 4096 channels of sdp_l0"),
        ({"outputs.cal.parameters": {"g_bchan": 4095}},
         "outputs.cal.parameters.g_bchan: 4095", "fewer than 2 channels to 4096"),
        ({"outputs.sdp_l0.output_channels": [7, 8]},
         "outputs.cal.parameters.k_bchan: 0", "fewer than 2 channels to 1"),
        ({"outputs.cal.parameters": {"preferred_refants": ["m009"]}},
         'outputs.cal.parameters.preferred_refants[0]: "m009"', "no antenna"),
        ({"outputs.cal.parameters": {"k_solin": 3}}, "outputs.cal.parameters.k_solin", "k_solint"),
        ({"outputs.sdp_l0_continuum.output_int_time": 16},
         "outputs.sdp_l1_flags_continuum.src_streams", "output_int_time"),
        ({"outputs.spectral_image.output_channels": [0, 5000]},
         "outputs.spectral_image.output_channels: [0, 5000]", "[0, 4096)"),
        ({"outputs.camdata": {"type": "sdp.cal", "src_streams": ["sdp_l0"]}}, "outputs.camdata", "input"),
        ({f"{ACV}.bandwidth": 1e9}, f"{ACV}.bandwidth", "half of adc_sample_rate"),
        ({f"{ACV}.centre_frequency": 1e8}, f"{ACV}.centre_frequency", "half of bandwidth"),
        ({f"{ACV}.centre_frequency": -1}, f"{ACV}.centre_frequency: -1", "greater than 0"),
        ({f"{ACV}.band": "q"}, f'{ACV}.band: "q"', "'l', 's', 'u' or 'x'"),
        ({f"{ACV}.antennas": [ANTENNA, ANTENNA]}, f"{ACV}.antennas[1]", "unique"),
        ({f"{ACV}.antennas": ["m000"]}, f'{ACV}.antennas[0]: "m000"', "no antenna description"),
        ({f"{ACV}.antennas": [ANTENNA.replace("13.5", "-1")]}, f"{ACV}.antennas[0]", "positive"),
        ({f"{ACV}.antennas": [ANTENNA.replace("1035.0", "nan")]}, f"{ACV}.antennas[0]", "finite"),
        ({f"{ACV}.antennas": [ANTENNA.replace("x,", "a.b,")]}, f"{ACV}.antennas[0]", "letters"),
        ({f"{ACV}.antennas": [ANTENNA.replace("-30:", "-130:")]}, f"{ACV}.antennas[0]", "nowhere"),
        ({"outputs.continuum_image.parameters": {"sise": 512}},
         "outputs.continuum_image.parameters.sise: ", "did you mean 'size'"),
        ({"outputs.continuum_image.parameters": {"output": "/etc"}},
         "outputs.continuum_image.parameters.output: ", "is not a setting"),
        ({"outputs.cal.src_streams": ["sdp_l0"] * 2}, "outputs.cal.src_streams", "most 1 item, not 2"),
        ({f"{ACV}.antennas": []}, f"{ACV}.antennas: []", "at least 1"),
        ({f"{BCP}.n_chans_per_substream": 1000}, f"{BCP}.n_chans_per_substream: 1000", "divide"),
        ({f"{BCP}.n_endpoints": 5}, f"{BCP}.n_endpoints: 5", "divide the number of substreams"),
        ({f"{BCP}.int_time": 1e-6}, f"{BCP}.int_time", "one spectrum"),
        ({"inputs.camdata.url": "ftp://x"}, 'inputs.camdata.url: "ftp://x"', "http://"),
        ({"config.develop": "yes"}, 'config.develop: "yes"', "boolean"),
        ({"config.develop": {"any_gpus": True}}, "config.develop.any_gpus", "mean 'any_gpu'"),
        ({"config.service_overrides": {"a.0": {"hots": "x"}}},
         "config.service_overrides.a.0.hots", "mean 'host'"),
        ({"config.image_tag": "-rf /"}, 'config.image_tag: "-rf /"', "pattern"),
        ({"config.shutdown_delay": -1}, "config.shutdown_delay: -1", "greater than or equal"),
        ({"simulation.clock_ratio": 0}, "simulation.clock_ratio: 0", "greater than 0"),
        ({"simulation.sources": ["x, radec, 0, 0"]}, "simulation.sources[0]", "no flux model"),
        ({"simulation.sources": ["x, radec, 0, 0, (900 1200 1)"]}, "simulation.sources[0]", "band"),
        ({"simulation.target": "x, azel, 0, 0"}, "simulation.target", "must be radec"),
        ({"simulation.seed": -1}, "simulation.seed: -1", "greater than or equal"),
        ({"simulation.replay": {"file": "x.ms"}}, "simulation.sources", "brings its own"),
        ({"simulation": {"replay": {"file": "x", "rate": 0}}}, "simulation.replay.rate: 0", "than 0"),
    ],
)  # fmt: skip
def test_a_rule_that_is_broken_is_told_with_path_and_value(changed, changes, start, rule) -> None:
    found = lines(changed(changes))
    assert any(line.startswith(start) and rule in line for line in found), found


def test_every_problem_is_told_at_once(changed) -> None:
    found = lines(changed({"version": "1.0", "outputs.cal.max_scans": 0, "outputs.sdp_l0.x": 1}))
    assert [line.split(":")[0] for line in found] == [
        "version", "outputs.sdp_l0.x", "outputs.cal.max_scans",
    ]  # fmt: skip


def test_a_wrong_item_does_not_make_its_list_too_short(changed) -> None:
    (line,) = lines(changed({f"{ACV}.antennas": ["nonsense"]}))
    assert line.startswith(f"{ACV}.antennas[0]: ")


def test_very_many_problems_are_counted(changed) -> None:
    found = lines(changed({f"outputs.cal.unknown_{i}": 1 for i in range(100)}))
    assert len(found) == MAX_LINES + 1
    assert found[-1] == "and 80 more"


def test_long_values_and_keys_are_cut(changed) -> None:
    found = lines(changed({"outputs.cal.max_scans": "x" * 5000, "y" * 5000: 1}))
    assert max(len(line) for line in found) < 400


def test_calibration_needs_antennas(make) -> None:
    document = make(3, 4096)
    del document["outputs"]["cal"]["parameters"]
    (line,) = lines(document)
    assert line.startswith("outputs.cal.src_streams") and "needs 4 antennas" in line


def test_a_replay_needs_a_correlator_to_replay_it() -> None:
    document = {"version": "4.5", "outputs": {}, "simulation": {"replay": {"file": "x.ms"}}}
    assert lines(document)[0].startswith("simulation.replay: ")


def test_a_product_has_one_band(changed, document) -> None:
    other = {**document["outputs"]["i0_antenna_channelised_voltage"], "band": "u"}
    (line,) = lines(changed({"outputs.other": other}))
    assert line.startswith('outputs.other.band: "u"')


def test_both_polarisations_of_a_beam_are_streams_of_their_own(changed) -> None:
    beam = {
        "type": "sim.cbf.tied_array_channelised_voltage",
        "src_streams": ["i0_antenna_channelised_voltage"],
        "n_endpoints": 4,
    }
    output = {
        "type": "sdp.beamformer_engineering",
        "src_streams": ["x", "x"],
        "output_channels": [0, 5000],
    }
    found = lines(changed({"outputs.x": beam, "outputs.beam": output}))
    assert [line.split(":")[0] for line in found] == [
        "outputs.beam.src_streams",
        "outputs.beam.output_channels",
    ]


@pytest.mark.parametrize(
    "url",
    ["239.1.1.1:7148", "spead://host:7148", "spead://239.1.1.1", "spead://239.1.1.1:0",
     "spead://239.1.1.1:70000", "spead://300.1.1.1:7148", "spead://255.255.255.255+1:7148"],
)  # fmt: skip
def test_addresses_of_streams(changed, url) -> None:
    stream = {
        "type": "cbf.antenna_channelised_voltage",
        "url": url,
        "antennas": ["m000"],
        "instrument_dev_name": "i0",
    }
    (line,) = lines(changed({"inputs.acv": stream}))
    assert line.startswith(f'inputs.acv.url: "{url}": ')
