"""Weights against the radiometer equation, and against the scatter of simulated noise."""

from __future__ import annotations

import katpoint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.common.baselines import canonical_order, correlator_ordering
from pipelines.correlator.meerkat import antenna_description
from pipelines.correlator.model import Model, ModelConfig
from pipelines.ingest.compute import Averager, L0Dump
from pipelines.ingest.layout import InputLayout, OutputLayout
from pipelines.ingest.weights import Weighting, mean_powers

ANTENNAS = ("m000", "m001", "m002")
CONFIG = ModelConfig(
    name="bcp",
    antennas=tuple(katpoint.Antenna(antenna_description(name)) for name in ANTENNAS),
    n_chans=64,
    n_chans_per_substream=32,
    bandwidth=856e6,
    centre_frequency=1284e6,
    adc_sample_rate=1712e6,
    int_time=0.5,
    start_time=1.6e9,
    seed=5,
)
TARGET = katpoint.Target("c, radec, 0:00:00, -30:00:00")
LOST, RFI = (-(2**31), 1), 0x10


def make(model: Model, ratio: int, factor: int, ordering: tuple = ()) -> tuple[Averager, L0Dump]:
    """Return an averager that sends products in the given order, [as the correlator]."""
    stream = model.stream
    source = InputLayout.of(stream, range(stream.n_chans))
    layout = OutputLayout(
        source=source,
        output_channels=range(stream.n_chans),
        ratio=ratio,
        continuum_factor=factor,
    )
    ordering = ordering or stream.bls_ordering
    order = np.array([stream.bls_ordering.index(product) for product in ordering])
    averager = Averager(layout, True, order, Weighting.of(ordering, stream))
    return averager, L0Dump.empty(layout)


def dump(model: Model, index: int) -> np.ndarray:
    counts = np.zeros((model.stream.n_chans, model.stream.n_bls, 2), np.int32)
    model.fill(index, TARGET, counts)
    return counts


def weights_of(out: L0Dump) -> np.ndarray:
    return out.weights * out.weights_channel[:, np.newaxis].astype(float)


def test_weights_are_the_inverse_variance_of_what_is_sent() -> None:
    """Over 400 dumps × 16 channels, to 5 %: three sigma of a variance, and what bytes leave of a weight."""
    model = Model(CONFIG)
    averager, out = make(model, ratio=2, factor=4)
    present = np.ones(2, np.uint8)
    vis, weights = [], []
    for index in range(400):
        for half in range(2):
            averager.add(dump(model, 2 * index + half), present)
        averager.finish(out)
        vis.append(out.vis.copy())
        weights.append(weights_of(out))
    noise = np.array(vis) - np.mean(vis, axis=0)
    scaled = (np.abs(noise) ** 2 * np.array(weights)).mean(axis=(0, 1))
    np.testing.assert_allclose(scaled, 1.0, atol=0.05)
    # The inputs are unequal by what gains are: without powers the weights would be wrong by as much.
    mean = np.mean(weights, axis=(0, 1))
    assert mean.max() > 1.5 * mean.min()


@given(
    seed=st.integers(0, 2**32 - 1),
    loss=st.sampled_from([0.0, 0.3, 0.9]),
    random=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=40)
def test_weights_follow_the_powers_of_the_inputs_in_any_order(
    seed: int, loss: float, random: object
) -> None:
    rng = np.random.default_rng(seed)
    model = Model(CONFIG)
    ordering = list(model.stream.bls_ordering)
    random.shuffle(ordering)  # type: ignore[attr-defined]  # hypothesis' randoms are random.Random
    averager, out = make(model, ratio=1, factor=2, ordering=tuple(ordering))
    stream = model.stream
    counts = rng.integers(1, 2**24, (stream.n_chans, stream.n_bls, 2), np.int32)
    lost = rng.random((stream.n_chans, stream.n_bls)) < loss
    counts[lost] = LOST
    averager.add(counts, np.ones(2, np.uint8))
    averager.finish(out)

    column = {product: i for i, product in enumerate(stream.bls_ordering)}
    inputs = sorted({label for product in ordering for label in product})
    good = (~lost).reshape(32, 2, -1)
    real = stream.scale * counts[..., 0].reshape(32, 2, -1)
    powers = {}
    for label in inputs:
        auto = column[label, label]
        n = good[:, :, auto].sum(axis=1)
        with np.errstate(invalid="ignore"):
            powers[label] = np.where(good[:, :, auto], real[:, :, auto], 0).sum(axis=1) / n
    table = np.array([powers[label] for label in inputs])
    known = np.isfinite(table)
    mean = np.where(known, table, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    mean[~known.any(axis=0)] = mean[known.any(axis=0)].mean()
    exact = np.zeros((32, len(ordering)))
    for i, (a, b) in enumerate(ordering):
        p_a, p_b = (np.where(np.isfinite(powers[x]), powers[x], mean) for x in (a, b))
        # Interference that the flagger sees in random numbers is left out of the average, not of the power.
        n = np.where(out.flags[:, i] & RFI, 0, good[:, :, column[a, b]].sum(axis=1))
        exact[:, i] = n * stream.channel_width * stream.int_time / (p_a * p_b)
    unit = exact.max(axis=1, keepdims=True) / 255
    error = np.abs(weights_of(out) - np.where(exact > 0, np.maximum(exact, unit), 0))
    assert np.all(error <= 0.501 * unit + 1e-5 * exact)


def test_interference_that_is_left_out_of_averages_is_noise_in_weights() -> None:
    """The power of a channel with interference in the autocorrelations alone counts for the baselines."""
    model = Model(CONFIG)
    averager, out = make(model, ratio=1, factor=1)
    counts = dump(model, 0)
    autos = [a == b for a, b in model.stream.bls_ordering]
    counts[20][autos] *= 100
    averager.add(counts, np.ones(2, np.uint8))
    averager.finish(out)
    assert np.all(out.flags[20, autos] == RFI)
    crosses = np.flatnonzero([a[:4] != b[:4] for a, b in model.stream.bls_ordering])
    assert np.all(out.flags[:, crosses] == 0)
    ratio = weights_of(out)[19, crosses] / weights_of(out)[20, crosses]
    np.testing.assert_allclose(ratio, 1e4, rtol=0.1)


def test_a_dead_input_weighs_nothing_and_a_hot_one_little() -> None:
    model = Model(
        ModelConfig(**{**CONFIG.__dict__, "dead_inputs": ("m001h",), "hot_inputs": ("m002v",)})
    )
    averager, out = make(model, ratio=1, factor=1)
    averager.add(dump(model, 0), np.ones(2, np.uint8))
    averager.finish(out)
    for i, pair in enumerate(model.stream.bls_ordering):
        if "m001h" in pair:
            assert np.all(out.weights[:, i] == 0)
        elif "m002v" in pair and pair[0] != pair[1]:
            assert np.all(out.weights[:, i] == 1)
        elif pair[0] != pair[1]:
            assert np.all(out.weights[:, i] > 50)


def test_without_any_autocorrelation_weights_are_numbers_of_samples() -> None:
    model = Model(CONFIG)
    averager, out = make(model, ratio=1, factor=4)
    counts = dump(model, 0)
    counts[:, [a == b for a, b in model.stream.bls_ordering]] = LOST
    averager.add(counts, np.ones(2, np.uint8))
    averager.finish(out)
    stream = model.stream
    expected = 4 * stream.channel_width * stream.int_time
    good = out.flags == 0
    np.testing.assert_allclose(weights_of(out)[good], expected, rtol=1e-5)
    assert np.all(out.weights[~good] == 0)


def test_channels_without_power_take_that_of_the_others() -> None:
    total = np.array([[6, 2], [0, 8], [0, 0]], np.float32)
    count = np.array([[3, 1], [0, 2], [0, 0]], np.uint32)
    expected = [[2, 2, 2], [4, 4, 4], [3, 3, 3]]
    np.testing.assert_allclose(mean_powers(total, count), expected)


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [0, 1, 2, 3]])
def test_positions_of_powers_are_those_of_the_order_that_is_sent(order: list[int]) -> None:
    ordering = tuple(correlator_ordering(["m000"])[i] for i in order)
    weighting = Weighting.of(ordering, Model(CONFIG).stream)
    for i, (a, b) in enumerate(ordering):
        powers = [ordering[weighting.autos[k]] for k in weighting.inputs[i]]
        assert powers == [(a, a), (b, b)]
    assert canonical_order(ordering).tolist() == order
