"""The model against the measurement equation written out, and its noise against the radiometer equation."""

from __future__ import annotations

import dataclasses
from typing import Any

import katpoint
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.common.baselines import POL_PRODUCTS
from pipelines.common.errors import StreamError
from pipelines.common.spead import MISSING
from pipelines.correlator.errors import ModelError
from pipelines.correlator.gains import GainModel
from pipelines.correlator.meerkat import antenna_description
from pipelines.correlator.model import Model, ModelConfig, spectra
from pipelines.correlator.shapes import shape_of

CENTRE = katpoint.Target("centre, radec, 20:00:00, -30:00:00")
SOURCES = (
    "centre, radec, 20:00:00, -30:00:00, (800 2000 0.5 -0.1)",
    "polarised, radec, 20:00:40, -29:55:00, (800 2000 0.2 0 0 0 0 0 1 0.3 -0.2 0.1)",
    "west, radec, 19:59:00, -30:10:00, (800 2000 0.1)",
)
CONFIG = ModelConfig(
    name="bcp",
    antennas=tuple(katpoint.Antenna(antenna_description(f"m{i:03}")) for i in (0, 48, 57, 60)),
    n_chans=32,
    n_chans_per_substream=8,
    bandwidth=856e6,
    centre_frequency=1284e6,
    adc_sample_rate=1712e6,
    int_time=2.0,
    start_time=1.6e9,
    sources=tuple(katpoint.Target(text) for text in SOURCES),
)


def counts(model: Model, index: int = 3, target: katpoint.Target = CENTRE) -> NDArray[np.float64]:
    stream = model.stream
    out = np.full((stream.n_chans, stream.n_bls, 2), 12345, np.int32)
    model.fill(index, target, out)
    return out.astype(np.float64)


def complex_counts(model: Model, index: int = 3) -> NDArray[np.complex128]:
    parts = counts(model, index)
    return parts[..., 0] + 1j * parts[..., 1]


def jones_row(terms: NDArray[np.complex128], pol: str) -> NDArray[np.complex128]:
    """Row of D = [[1, d_h], [d_v, 1]], shape (2, n_chans)."""
    one = np.ones_like(terms[0])
    return np.array([one, terms[0]] if pol == "h" else [terms[1], one])


def direct(model: Model, index: int) -> NDArray[np.complex128]:
    """The measurement equation of the interface, product by product, with katpoint's own uvw and lmn."""
    config, stream = model.config, model.stream
    time = stream.sync_time + (index + 0.5) * stream.int_time
    freqs = 1284e6 + (np.arange(config.n_chans) - config.n_chans // 2) * 856e6 / config.n_chans
    gains = model.gains.at(time - stream.sync_time, freqs)
    leaks = model.leakage.at(config.n_chans)
    antennas = {antenna.name: antenna for antenna in config.antennas}
    order = list(antennas)
    reference = config.antennas[0].array_reference_antenna()
    basis = CENTRE.uvw_basis(time, reference)
    vis = np.zeros((config.n_chans, stream.n_bls), complex)
    for b, (input_a, input_b) in enumerate(stream.bls_ordering):
        a, pol_a, c, pol_c = input_a[:-1], input_a[-1], input_b[:-1], input_b[-1]
        offset = np.subtract(
            reference.baseline_toward(antennas[a]), reference.baseline_toward(antennas[c])
        )
        u, v, w = basis @ offset
        for source in config.sources:
            envelope = 1.0
            for tag in source.tags:
                if tag.startswith("gaussian:"):
                    widths = np.radians(
                        [float(x) for x in tag.split(":")[1:]] / np.array([3600, 3600, 1])
                    )
                    major, minor, angle = widths
                    along = (u * np.sin(angle) + v * np.cos(angle)) * freqs / 299792458.0
                    across = (u * np.cos(angle) - v * np.sin(angle)) * freqs / 299792458.0
                    exponent = (major * along) ** 2 + (minor * across) ** 2
                    envelope = np.exp(-(np.pi**2) * exponent / (4 * np.log(2)))
            i, q, stokes_u, stokes_v = source.flux_density_stokes(freqs / 1e6).T
            coherency = np.array(
                [[i + q, stokes_u + 1j * stokes_v], [stokes_u - 1j * stokes_v, i - q]]
            )
            row = jones_row(leaks[order.index(a)], pol_a)
            column = jones_row(leaks[order.index(c)], pol_c).conj()
            brightness = np.einsum("if,ijf,jf->f", row, coherency, column)
            l, m, n = CENTRE.lmn(*source.radec(time, reference), time, reference)  # noqa: E741
            turns = (u * l + v * m + w * (n - 1)) * freqs / 299792458.0
            vis[:, b] += brightness * envelope * np.exp(2j * np.pi * turns)
        if input_a == input_b:
            vis[:, b] += config.sefd
        gain_a = gains[order.index(a), "hv".index(pol_a)]
        gain_c = gains[order.index(c), "hv".index(pol_c)]
        vis[:, b] *= gain_a * np.conj(gain_c)
    return vis


@pytest.mark.parametrize("gains", [True, False])
def test_without_noise_counts_are_the_measurement_equation_rounded(gains: bool) -> None:
    model = Model(dataclasses.replace(CONFIG, noise=False, gains=gains))
    check_direct(model)


def check_direct(model: Model) -> None:
    expected = direct(model, 3) / model.stream.scale
    difference = complex_counts(model, 3) - expected
    assert np.abs(expected).max() > 1e6
    assert max(np.abs(difference.real).max(), np.abs(difference.imag).max()) < 0.51


def test_leakage_and_cross_hand_delay_are_those_of_the_measurement_equation() -> None:
    plain = dataclasses.replace(CONFIG, noise=False, scale=2e-5)
    polarised = dataclasses.replace(plain, leakage=0.05, cross_delay=2e-9, cross_phase=30.0)
    model = Model(polarised)
    terms = model.leakage.at(CONFIG.n_chans)
    assert 0.02 < np.sqrt(np.mean(np.abs(terms) ** 2)) < 0.1
    assert np.abs(terms[..., -1] - terms[..., 0]).min() > 0
    check_direct(model)
    # The difference that each makes is far more than the rounding that the comparison allows.
    for without in (plain, dataclasses.replace(polarised, leakage=0.0)):
        assert np.abs(complex_counts(model) - complex_counts(Model(without))).max() > 1000


def test_the_cross_hand_delay_is_that_of_v_against_h() -> None:
    config = dataclasses.replace(CONFIG, gains=False, cross_delay=5e-9, cross_phase=40.0)
    model = Model(config)
    freqs = model.stream.channel_freqs
    gains = model.gains.at(0.0, freqs)
    assert np.all(gains[:, 0] == 1)
    corrected = gains[:, 1] * np.exp(-2j * np.pi * 5e-9 * freqs)  # as katdal corrects a K of 5 ns
    np.testing.assert_allclose(np.angle(corrected, deg=True), 40.0, atol=1e-6)


def test_hot_inputs_are_clipped_where_they_meet_themselves() -> None:
    model = Model(dataclasses.replace(CONFIG, hot_inputs=("m048v",)))
    parts = counts(model)
    for b, pair in enumerate(model.stream.bls_ordering):
        clipped = np.abs(parts[:, b]).max(axis=-1) == 2**31 - 1
        assert clipped.all() if pair == ("m048v", "m048v") else not clipped.any()


def test_sources_outside_the_field_of_view_are_not_seen() -> None:
    config = dataclasses.replace(CONFIG, noise=False, sources=CONFIG.sources[:1], scale=1e-6)
    far = katpoint.Target("far, radec, 20:00:00, -33:30:00, (800 2000 1)")
    with_far = Model(dataclasses.replace(config, sources=(*config.sources, far)))
    np.testing.assert_array_equal(counts(Model(config)), counts(with_far))
    alone = Model(dataclasses.replace(config, sources=(far,)))
    np.testing.assert_array_equal(counts(alone, 3, far), counts(with_far, 3, far))


def test_all_follows_from_the_seed() -> None:
    first, again = Model(CONFIG), Model(CONFIG)
    np.testing.assert_array_equal(counts(first, 5), counts(again, 5))
    assert not np.array_equal(counts(first, 5), counts(first, 6))
    other = Model(dataclasses.replace(CONFIG, seed=1))
    assert not np.array_equal(counts(first, 5), counts(other, 5))


def noise_samples(config: ModelConfig, n_dumps: int) -> NDArray[np.complex128]:
    """Noise in Jy, shape (dumps, channels, products)."""
    noisy = Model(config)
    quiet = Model(dataclasses.replace(config, noise=False))
    samples = [complex_counts(noisy, k) - complex_counts(quiet, k) for k in range(n_dumps)]
    return np.array(samples) * noisy.stream.scale


def test_noise_has_the_radiometers_level_and_no_correlations() -> None:
    """The variance is P_a P_b / (bandwidth × time), to a part in 40 (5 sigma of 20 000 samples)."""
    config = dataclasses.replace(
        CONFIG, antennas=CONFIG.antennas[:2], gains=False, sources=CONFIG.sources[:1], seed=7
    )
    model = Model(config)
    noise = noise_samples(config, 625)
    power = config.sefd + model.flux[0, :, 0].real
    level = power / np.sqrt(model.stream.channel_width * model.stream.int_time)
    normalised = (noise / level[:, np.newaxis]).reshape(-1, model.stream.n_bls)
    assert len(normalised) == 20000
    for b, (input_a, input_b) in enumerate(model.stream.bls_ordering):
        sample = normalised[:, b]
        if input_a == input_b:
            assert np.all(sample.imag == 0)
            assert sample.real.var() == pytest.approx(1, abs=0.05)
        else:
            assert sample.real.var() == pytest.approx(0.5, abs=0.025)
            assert sample.imag.var() == pytest.approx(0.5, abs=0.025)
            assert np.mean(sample.real * sample.imag) == pytest.approx(0, abs=0.018)
            assert np.mean(sample.real**4) / 0.25 == pytest.approx(3, abs=0.3)
        assert abs(sample.mean()) < 0.036
    # vh of one antenna is the conjugate of its hv, all others are independent.
    for a in range(model.stream.n_bls):
        for b in range(a):
            product = np.mean(normalised[:, a] * normalised[:, b].conj())
            mirrored = np.mean(normalised[:, a] * normalised[:, b])
            same_antenna = a // 4 == b // 4 and a // 4 in (0, 2) and {a % 4, b % 4} == {1, 2}
            assert abs(product) < 0.04
            assert abs(mirrored) == pytest.approx(1 if same_antenna else 0, abs=0.04)


def test_consecutive_dumps_and_channels_have_independent_noise() -> None:
    config = dataclasses.replace(CONFIG, antennas=CONFIG.antennas[:2], gains=False, sources=())
    noise = noise_samples(config, 400)[:, :, 4]
    noise /= np.abs(noise).std() or 1
    for shifted in (noise[1:] * noise[:-1].conj(), noise[:, 1:] * noise[:, :-1].conj()):
        assert abs(shifted.mean()) < 5 * shifted.std() / np.sqrt(shifted.size)


def test_counts_are_clipped_and_never_look_missing() -> None:
    model = Model(dataclasses.replace(CONFIG, scale=1e-12))
    parts = counts(model)
    assert parts.max() == 2**31 - 1
    assert parts.min() == -(2**31) + 1
    assert MISSING[0] not in parts


def test_autocorrelations_are_hermitian() -> None:
    parts = complex_counts(Model(dataclasses.replace(CONFIG, gains=True)))
    for ant in range(4):
        first = 4 * (ant * (ant + 1) // 2 + ant)
        assert [POL_PRODUCTS[p] for p in (1, 2)] == [("h", "v"), ("v", "h")]
        np.testing.assert_array_equal(parts[:, first + 1], parts[:, first + 2].conj())
        assert np.all(parts[:, [first, first + 3]].imag == 0)


def test_timing_is_a_whole_number_of_spectra() -> None:
    ticks, n_accs = spectra(4096, 856e6, 1712e6, 2.0)
    assert ticks == 8192
    assert n_accs * ticks / 1712e6 == pytest.approx(2.0, abs=ticks / 1712e6)
    stream = Model(CONFIG).stream
    assert stream.dump_ticks / stream.scale_factor_timestamp == stream.int_time


@pytest.mark.parametrize(
    "change",
    [
        {"antennas": ()},
        {"antennas": CONFIG.antennas[:1] * 2},
        {"n_chans": 0},
        {"bandwidth": float("nan")},
        {"int_time": 0.0},
        {"int_time": 1e-12},
        {"adc_sample_rate": 1e9},
        {"sefd": -1.0},
        {"seed": -1},
        {"rfi": -1},
        {"dead_inputs": ("m999h",)},
        {"hot_inputs": ("m000x",)},
        {"leakage": float("nan")},
        {"cross_delay": 1.0},
        {"cross_phase": float("inf")},
        {"start_time": float("inf")},
        {"n_chans_per_substream": 5},
        {"sources": (CENTRE,)},
        {"sources": (katpoint.Target("s, radec, 0:0, 0:0, (100 200 1)"),)},
    ],
)
def test_models_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ModelError, StreamError)):
        Model(dataclasses.replace(CONFIG, **change))


def test_gains_drift_slowly_and_delays_have_katdals_sign() -> None:
    freqs = np.linspace(1e9, 1.1e9, 200)
    model = GainModel.random(3, seed=1)
    now, later = model.at(0.0, freqs), model.at(60.0, freqs)
    assert 0 < np.abs(np.angle(later / now)).max() < 0.1
    np.testing.assert_allclose(np.abs(later), np.abs(now))
    corrected = now * np.exp(-2j * np.pi * freqs * model.delay[:, None, None])
    np.testing.assert_allclose(corrected, np.broadcast_to(corrected[..., :1], now.shape), atol=1e-9)
    assert np.all(GainModel.unity(2).at(5.0, freqs) == 1)


@pytest.mark.parametrize("shape", ["30:30:0", "120:20:30", "60:0:-75"])
def test_gaussians_are_the_transform_of_their_shape(shape: str) -> None:
    text = SOURCES[0].replace("radec", f"radec gaussian:{shape}", 1)
    source = katpoint.Target(text)
    assert f"gaussian:{shape}" in source.tags
    model = Model(dataclasses.replace(CONFIG, noise=False, sources=(source, *CONFIG.sources[1:])))
    expected = direct(model, 3) / model.stream.scale
    assert np.abs(complex_counts(model, 3) - expected).max() < 0.8
    point = Model(dataclasses.replace(CONFIG, noise=False, sources=CONFIG.sources))
    assert np.abs(complex_counts(model, 3) - complex_counts(point, 3)).max() > 100


@pytest.mark.parametrize(
    "tag", ["1", "1:2:3", "a:b:c", "nan:1:0", "5:-1:0", "90000:1:0", "5:1:1000"]
)
def test_shapes_that_make_no_sense_are_refused(tag: str) -> None:
    source = katpoint.Target(SOURCES[0].replace("radec", f"radec gaussian:{tag}", 1))
    with pytest.raises(ModelError, match="gaussian:MAJOR"):
        counts(Model(dataclasses.replace(CONFIG, sources=(source,))))


def test_a_gaussian_image_has_its_position_angle_from_north_through_east() -> None:
    """An east-west baseline sees less of a source that is wide in right ascension."""
    east_west, north_south = np.array([3e4, 0.0]), np.array([0.0, 3e4])  # wavelengths
    wide = shape_of(katpoint.Target("s, radec gaussian:10:1:90, 0:0, 0:0"))

    def exponent(uv: NDArray[np.float64]) -> float:
        return float(wide @ [uv[0] ** 2, uv[0] * uv[1], uv[1] ** 2])

    assert exponent(east_west) == pytest.approx(100 * exponent(north_south))
    # at the half-power point of the transform: θ u = 2 ln 2 / π
    u = 2 * np.log(2) / np.pi / np.radians(10 / 3600)
    assert np.exp(-exponent(np.array([u, 0.0]))) == pytest.approx(0.5)


def test_interference_is_where_its_emitters_are_and_does_not_stand_still() -> None:
    config = dataclasses.replace(CONFIG, noise=False, gains=False, n_chans=256, rfi=4, seed=3)
    with_rfi, without = Model(config), Model(dataclasses.replace(config, rfi=0))
    freqs = with_rfi.stream.channel_freqs
    seen = set()
    for dump in range(6):
        difference = (complex_counts(with_rfi, dump) - complex_counts(without, dump)) * (
            with_rfi.stream.scale
        )
        on = with_rfi.rfi.on(dump)
        seen.add(tuple(on))
        expected = with_rfi.rfi.flux(freqs)[on].sum(axis=0)
        np.testing.assert_allclose(difference[:, 0], expected[:, 0], atol=0.1)  # of an auto
        first_cross = np.abs(difference[:, 4])
        assert (first_cross <= expected[:, 0].real + 0.1).all()
    assert len(seen) > 1
    delays = [with_rfi.rfi.delays(dump, 4) for dump in (0, 1)]
    assert delays[0].shape[1] == 4 and not np.array_equal(delays[0][:1], delays[1][:1])


def test_dead_inputs_give_nothing() -> None:
    model = Model(dataclasses.replace(CONFIG, dead_inputs=("m048v",)))
    vis = complex_counts(model)
    for b, pair in enumerate(model.stream.bls_ordering):
        assert (vis[:, b] == 0).all() == ("m048v" in pair)
