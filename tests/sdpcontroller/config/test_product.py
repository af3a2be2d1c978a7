"""The document as a whole: read, asked, written back, merged."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from sdpcontroller.config import (
    VERSIONS,
    BaselineCorrelationProducts,
    Cal,
    CamHttp,
    ContinuumImage,
    Flags,
    ProductConfig,
    SimAntennaChannelisedVoltage,
    SimBaselineCorrelationProducts,
    Vis,
    parse,
)
from sdpcontroller.errors import ConfigError
from tests.cpu import least_seconds


def same(a: object, b: object) -> bool:
    """Identical as JSON: 1 is not 1.0."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def test_a_document_of_64_antennas_survives_the_round_trip(make) -> None:
    document = make()
    config = parse(json.dumps(document))
    assert same(config.to_json(), document)
    assert parse(json.dumps(config.to_json())) == config


def test_a_document_of_64_antennas_is_read_in_50_ms(make) -> None:
    """On a core that reads and writes it 360 times in that time as mere JSON: that is what is compared."""
    text = json.dumps(make())

    def read_and_write() -> None:
        for _ in range(360):
            json.dumps(json.loads(text), indent=1)

    assert least_seconds(lambda: parse(text)) < least_seconds(read_and_write)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_versions_are_read(changed, version) -> None:
    document = changed({"version": version})
    assert same(ProductConfig.from_document(document).to_json(), document)


def test_what_is_not_given_has_defaults_that_are_not_written_back() -> None:
    document = {"version": "4.0", "outputs": {}}
    config = ProductConfig.from_document(document)
    assert config.config.development.any_gpu is False
    assert config.simulation.speed == 1.0
    assert same(config.to_json(), document)


def test_a_document_for_a_real_correlator_is_read() -> None:
    document = {
        "version": "3.0",
        "inputs": {
            "camdata": {"type": "cam.http", "url": "https://portal.example/api"},
            "acv": {
                "type": "cbf.antenna_channelised_voltage",
                "url": "spead://239.9.0.0+15:7148",
                "antennas": ["m000", "m001", "m002", "m003"],
                "instrument_dev_name": "i0",
            },
            "bcp": {
                "type": "cbf.baseline_correlation_products",
                "url": "spead://239.9.0.16+15:7148",
                "src_streams": ["acv"],
                "instrument_dev_name": "i0",
            },
            **{
                f"beam_{pol}": {
                    "type": "cbf.tied_array_channelised_voltage",
                    "url": "spead://239.9.0.32+15:7148",
                    "src_streams": ["acv"],
                    "instrument_dev_name": "i0",
                }
                for pol in "xy"
            },
        },
        "outputs": {
            "l0": {
                "type": "sdp.vis",
                "src_streams": ["bcp"],
                "output_int_time": 4.0,
                "continuum_factor": 1,
                "output_channels": [1024, 2048],
            },
            "cal": {"type": "sdp.cal", "src_streams": ["l0"]},
            "beam": {"type": "sdp.beamformer", "src_streams": ["beam_x", "beam_y"]},
            "beam_engineering": {
                "type": "sdp.beamformer_engineering",
                "src_streams": ["beam_x", "beam_y"],
                "store": "ram",
                "output_channels": [0, 100],
            },
        },
        "config": {"develop": True},
    }
    config = ProductConfig.from_document(document)
    assert same(config.to_json(), document)
    assert config.antenna_names("cal") == ("m000", "m001", "m002", "m003")
    endpoints = config.inputs_of(BaselineCorrelationProducts)["bcp"].endpoints
    assert endpoints[0] == ("239.9.0.16", 7148)
    assert endpoints[15] == ("239.9.0.31", 7148)
    assert list(config.inputs_of(CamHttp)) == ["camdata"]
    assert config.config.development.less_resources
    with pytest.raises(KeyError):  # what a real correlator sends is not in the document
        config.vis("l0")


def test_streams_are_found_by_class_and_by_what_they_are_made_from(document) -> None:
    config = ProductConfig.from_document(document)
    assert list(config.outputs_of(Vis)) == ["sdp_l0", "sdp_l0_continuum"]
    assert list(config.streams_of(Flags)) == ["sdp_l1_flags", "sdp_l1_flags_continuum"]
    name, vis = config.source("spectral_image", Vis)
    assert (name, vis) == ("sdp_l0", config.stream("sdp_l0"))
    assert config.source("cal", Cal)[0] == "cal"
    assert config.source("continuum_image", SimBaselineCorrelationProducts)[0].startswith("i0_b")
    assert list(config.sources("sdp_l1_flags")) == ["sdp_l0", "cal"]
    assert list(config.consumers("sdp_l0")) == ["cal", "sdp_l1_flags"]
    assert config.antenna_names("spectral_image")[0] == "m000"
    with pytest.raises(KeyError):
        config.source("camdata", Vis)
    with pytest.raises(KeyError):
        config.source("sdp_l0", ContinuumImage)


def test_shapes_follow_from_the_document(document) -> None:
    config = ProductConfig.from_document(document)
    correlator = config.correlator("cal")
    assert (correlator.n_antennas, correlator.n_bls) == (8, 8 * 9 // 2 * 4)
    assert correlator.n_substreams * correlator.n_chans_per_substream == correlator.n_chans
    vis = config.vis("sdp_l1_flags_continuum")
    assert (vis.name, vis.n_chans, vis.channels) == ("sdp_l0_continuum", 128, (0, 4096))
    assert vis.dumps == 16
    assert vis.int_time == 16 * 0.499
    assert vis.bandwidth == 856e6


def test_without_channels_per_substream_each_endpoint_gets_one_substream(changed) -> None:
    path = "outputs.i0_baseline_correlation_products.n_chans_per_substream"
    correlator = ProductConfig.from_document(changed({path: ...})).correlator("sdp_l0")
    assert correlator.n_substreams == correlator.n_endpoints == 16


def test_antennas_are_parsed(document) -> None:
    config = ProductConfig.from_document(document)
    stream = config.outputs_of(SimAntennaChannelisedVoltage)["i0_antenna_channelised_voltage"]
    assert [antenna.diameter for antenna in stream.katpoint_antennas] == [13.5] * 8
    assert stream.antenna_names == tuple(f"m{i:03d}" for i in range(8))


def test_speed_of_a_replay_and_of_a_simulation(changed) -> None:
    assert ProductConfig.from_document(changed({})).simulation.speed == 2.0
    replay = changed({"simulation": {"replay": {"file": "x.ms", "rate": 4}}})
    assert ProductConfig.from_document(replay).simulation.speed == 4.0


def test_an_override_merges_objects_replaces_the_rest_and_deletes_by_null(document) -> None:
    config = ProductConfig.from_document(document)
    merged = config.merged(
        {
            "outputs": {"cal": {"max_scans": 5, "buffer_time": None}, "continuum_image": None}
            | {"spectral_image": {"src_streams": ["sdp_l1_flags"]}},
            "simulation": {"sources": []},
        }
    )
    cal = merged.outputs_of(Cal)["cal"]
    assert (cal.max_scans, cal.buffer_time) == (5, 1500.0)
    assert cal.parameters == config.outputs_of(Cal)["cal"].parameters
    assert "continuum_image" not in merged.outputs
    assert merged.simulation.sources == ()
    assert merged.simulation.seed == 7
    assert same(config.to_json(), document)
    assert config.merged({}) == config


def test_an_override_that_spoils_the_configuration_is_refused(document) -> None:
    config = ProductConfig.from_document(document)
    with pytest.raises(ConfigError, match=r"outputs\.cal\.src_streams\[0\]"):
        config.merged({"outputs": {"cal": {"src_streams": ["nothing"]}}})


def test_models_are_frozen(document) -> None:
    config = ProductConfig.from_document(document)
    with pytest.raises(ValidationError):
        config.version = "4.0"
    with pytest.raises(ValidationError):
        config.outputs_of(Cal)["cal"].max_scans = 3
