"""Averages, flags and weights against a model in numpy float64."""

from __future__ import annotations

from dataclasses import dataclass

import katpoint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.catalogue import INGEST_OUTPUT_BUFFERS
from pipelines.common.baselines import correlator_ordering
from pipelines.correlator.meerkat import antenna_description
from pipelines.correlator.model import Model, ModelConfig
from pipelines.ingest.compute import Averager, L0Dump
from pipelines.ingest.layout import InputLayout, OutputLayout
from pipelines.ingest.memory import memory_bytes
from pipelines.ingest.receive import Receiver
from pipelines.ingest.weights import Weighting

SATURATED, LOST, RFI = 0x01, 0x08, 0x10
LIMIT = 2**31 - 1
SCALE = 0.37


def make_layout(
    n_heaps: int = 2, per_heap: int = 4, n_bls: int = 8, ratio: int = 3, factor: int = 2
) -> OutputLayout:
    n_chans = n_heaps * per_heap
    source = InputLayout(
        n_chans=n_chans,
        n_chans_per_substream=per_heap,
        n_bls=n_bls,
        channels=range(n_chans),
        ticks_per_dump=1000,
        scale_factor_timestamp=1e4,
        scale=SCALE,
    )
    return OutputLayout(
        source=source, output_channels=range(n_chans), ratio=ratio, continuum_factor=factor
    )


@dataclass
class Expected:
    vis: np.ndarray
    flags: np.ndarray
    count: np.ndarray


def model(counts: np.ndarray, flags: np.ndarray, factor: int, excise: bool) -> Expected:
    """Average over dumps and groups of channels; inputs are (dump, chan, bls[, 2])."""
    flags = flags.astype(int)
    n_dumps, n_chans, n_bls = flags.shape
    vis = SCALE * (counts[..., 0].astype(float) + 1j * counts[..., 1].astype(float))
    reject = SATURATED | LOST | (RFI if excise else 0)
    good = (flags & reject) == 0
    grouped = (n_dumps, n_chans // factor, factor, n_bls)
    count = good.reshape(grouped).sum(axis=(0, 2))
    total = np.where(good, vis, 0).reshape(grouped).sum(axis=(0, 2))
    either = np.bitwise_or.reduce(np.bitwise_or.reduce(flags.reshape(grouped), axis=0), axis=1)
    out_flags = np.where(count > 0, either & ~reject, either)
    return Expected(total / np.maximum(count, 1), out_flags, count)


def check_weights(out: L0Dump, expected: np.ndarray) -> None:
    """Compare with exact weights: they are kept to half of a 255th of the channel's greatest, at least one."""
    weights = out.weights * out.weights_channel[:, np.newaxis]
    unit = expected.max(axis=1, keepdims=True) / 255
    error = np.abs(weights - np.where(expected > 0, np.maximum(expected, unit), 0))
    assert np.all(error <= 0.5001 * unit)
    np.testing.assert_array_equal(weights == 0, expected == 0)


def check(out: L0Dump, expected: Expected) -> None:
    np.testing.assert_array_equal(out.flags, expected.flags)
    np.testing.assert_allclose(out.vis, expected.vis, rtol=2e-6, atol=1e-3)
    check_weights(out, expected.count)
    assert np.all(out.vis[expected.count == 0] == 0)


@given(
    seed=st.integers(0, 2**32 - 1),
    ratio=st.integers(1, 5),
    factor=st.sampled_from([1, 2, 4]),
    workers=st.sampled_from([1, 3]),
    loss=st.floats(0, 1),
)
@settings(deadline=None, max_examples=40)
def test_averages_count_what_came_and_nothing_else(
    seed: int, ratio: int, factor: int, workers: int, loss: float
) -> None:
    rng = np.random.default_rng(seed)
    layout = make_layout(ratio=ratio, factor=factor)
    n_bls = layout.source.n_bls
    order = rng.permutation(n_bls)
    averager = Averager(layout, excise=True, order=order, workers=workers)
    out = L0Dump.empty(layout)
    for _ in range(2):  # the second output dump knows nothing of the first
        counts = rng.integers(-(2**20), 2**20, (ratio, 8, n_bls, 2), np.int32)
        present = (rng.random((ratio, 2)) >= loss).astype(np.uint8)
        clipped = rng.random((ratio, 8, n_bls)) < 0.1
        counts[clipped, rng.integers(2)] = rng.choice([-LIMIT, LIMIT])
        marked = rng.random((ratio, 8, n_bls)) < 0.1
        counts[marked] = (-(2**31), 1)
        flags = np.where(clipped, SATURATED, 0)
        flags[marked | (np.repeat(present, 4, axis=1) == 0)[..., None]] = LOST
        for t in range(ratio):
            found = averager.add(counts[t], present[t])
            assert found.lost == np.count_nonzero(flags[t][:, order] == LOST)
            assert found.saturated == np.count_nonzero(flags[t][:, order] == SATURATED)
        averager.finish(out)
        check(out, model(counts[:, :, order], flags[:, :, order], factor, excise=True))
        assert out.flagged == np.count_nonzero(out.flags)
    averager.close()


COUNT = st.sampled_from([-(2**31), -LIMIT, 1 - LIMIT, -1, 0, 1, LIMIT - 1, LIMIT]) | st.integers(
    -(2**31), LIMIT
)


@given(samples=st.lists(st.tuples(COUNT, COUNT), min_size=8, max_size=8), excise=st.booleans())
@settings(deadline=None, max_examples=200)
def test_every_clipped_sample_is_flagged_and_no_other(
    samples: list[tuple[int, int]], excise: bool
) -> None:
    layout = make_layout(n_heaps=1, per_heap=2, n_bls=4, ratio=1, factor=1)
    averager = Averager(layout, excise=excise)
    found = averager.add(np.array(samples, np.int32).reshape(2, 4, 2), np.ones(1, np.uint8))
    out = L0Dump.empty(layout)
    averager.finish(out)
    expected = [
        LOST if sample == (-(2**31), 1)
        else SATURATED if max(abs(part) for part in sample) >= LIMIT
        else 0
        for sample in samples
    ]  # fmt: skip
    assert out.flags.ravel().tolist() == expected
    assert (found.lost, found.saturated) == (expected.count(LOST), expected.count(SATURATED))
    assert np.all((out.weights == 0) == (out.flags != 0))


def test_what_the_simulator_clips_is_flagged() -> None:
    model = Model(
        ModelConfig(
            name="bcp",
            antennas=tuple(katpoint.Antenna(antenna_description(f"m{i:03}")) for i in (0, 1)),
            n_chans=64,
            n_chans_per_substream=64,
            bandwidth=856e6,
            centre_frequency=1284e6,
            adc_sample_rate=1712e6,
            int_time=1.0,
            start_time=1.6e9,
            hot_inputs=("m000h", "m001v"),
        )
    )
    stream = model.stream
    counts = np.zeros((64, stream.n_bls, 2), np.int32)
    model.fill(0, katpoint.Target("c, radec, 0:00:00, -30:00:00"), counts)
    layout = OutputLayout(
        source=InputLayout.of(stream, range(64)), output_channels=range(64), ratio=1, continuum_factor=1
    )  # fmt: skip
    averager = Averager(layout, excise=True)
    assert averager.add(counts, np.ones(1, np.uint8)).saturated == 2 * 64
    out = L0Dump.empty(layout)
    averager.finish(out)
    hot = [a == b and a in ("m000h", "m001v") for a, b in stream.bls_ordering]
    np.testing.assert_array_equal(
        (out.flags & SATURATED) != 0, np.broadcast_to(hot, out.flags.shape)
    )


@pytest.mark.parametrize("excise", [True, False])
def test_excision_keeps_interference_out_of_averages(excise: bool) -> None:
    rng = np.random.default_rng(7)
    layout = make_layout(n_heaps=1, per_heap=128, n_bls=4, ratio=2, factor=4)
    counts = rng.normal(0, 1000, (2, 128, 4, 2)).astype(np.int32)
    counts[1, 57, 2] = 10**6  # one sample of eight of an average
    counts[:, 80:84, 1] = 10**6  # all samples of an average
    flags = np.zeros((2, 128, 4), np.uint8)
    flags[1, 57, 2] = RFI
    flags[:, 80:84, 1] = RFI
    averager = Averager(layout, excise=excise)
    out = L0Dump.empty(layout)
    found = sum(averager.add(counts[t], np.ones(1, np.uint8)).rfi for t in range(2))
    averager.finish(out)
    assert found == 9
    check(out, model(counts, flags, 4, excise))
    assert (out.flags[57 // 4, 2] == 0) == excise
    assert out.flags[20, 1] == RFI


def test_many_samples_share_the_range_of_a_weight() -> None:
    layout = make_layout(n_heaps=1, per_heap=512, n_bls=4, ratio=2, factor=256)
    averager = Averager(layout, excise=True)
    counts = np.ones((512, 4, 2), np.int32)
    counts[:256, 1] = (-(2**31), 1)
    averager.add(counts, np.ones(1, np.uint8))
    counts[1:256, 2] = (-(2**31), 1)
    averager.add(counts, np.ones(1, np.uint8))
    out = L0Dump.empty(layout)
    averager.finish(out)
    check_weights(out, np.array([[512, 0, 257, 512], [512, 512, 512, 512]]))
    assert out.flags[0].tolist() == [0, LOST, 0, 0]


def test_reset_forgets() -> None:
    layout = make_layout()
    averager = Averager(layout, excise=True)
    counts = np.ones((8, 8, 2), np.int32)
    averager.add(counts, np.ones(2, np.uint8))
    averager.reset()
    out = L0Dump.empty(layout)
    averager.finish(out)
    assert np.all(out.flags == LOST)


@pytest.mark.parametrize("window", [2, 4, 7])
def test_memory_is_what_the_formula_says(window: int) -> None:
    layout = make_layout(n_heaps=4, per_heap=16, n_bls=12, factor=4)
    receiver = Receiver(layout.source, [], ["127.0.0.1"], window)
    receiver.open()
    autos = np.flatnonzero([a == b for a, b in correlator_ordering(["m000", "m001"])])
    weighting = Weighting(autos, np.zeros((12, 2), np.int64), 1.0)
    averager = Averager(layout, excise=True, weighting=weighting)
    buffers = INGEST_OUTPUT_BUFFERS * L0Dump.empty(layout).nbytes
    assert memory_bytes(layout, window) == receiver.nbytes + averager.nbytes + buffers
