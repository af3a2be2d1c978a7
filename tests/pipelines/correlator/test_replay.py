"""Replaying recordings: the real one, and variants of it made here."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import katpoint
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.common import uvw
from pipelines.common.spead import MISSING
from pipelines.correlator import describe
from pipelines.correlator.errors import ReplayError
from pipelines.correlator.measurement_set import antenna_name, dump_grid
from pipelines.correlator.replay import Replay, band_letter, describe_replay
from pipelines.correlator.replay_geometry import antenna_descriptions, target_description

ZENITH = katpoint.Target("zenith, azel, 0:0:0, 90:0:0")
J0954 = (2.5959463, 0.3093614)
"""J0954+1743, J2000 rad: what the recording's UVW were computed for."""


def open_table(path: Path | str, **kwargs: Any) -> Any:
    tables = pytest.importorskip("casacore.tables")
    return tables.table(str(path), ack=False, **kwargs)


def all_counts(replay: Replay) -> NDArray[np.int32]:
    stream = replay.stream
    assert replay.n_dumps is not None
    out = np.zeros((replay.n_dumps, stream.n_chans, stream.n_bls, 2), np.int32)
    for dump in range(replay.n_dumps):
        replay.fill(dump, ZENITH, out[dump])
    return out


@pytest.fixture
def variant(recording: Path, tmp_path: Path) -> Callable[[Callable[[Any], None]], Path]:
    """Copies of the recording with changed rows."""

    def make(change: Callable[[Any], None]) -> Path:
        path = tmp_path / "variant.ms"
        shutil.copytree(recording, path)
        main = open_table(path, readonly=False)
        change(main)
        main.close()
        return path

    return make


def change_columns(**functions: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(main: Any) -> None:
        for column, function in functions.items():
            main.putcol(column, function(main.getcol(column)))

    return change


def test_counts_are_the_recordings_visibilities(recording: Path) -> None:
    replay = Replay(recording, name="bcp")
    counts = all_counts(replay)
    main = open_table(recording)
    data, time = main.getcol("DATA"), main.getcol("TIME")
    numbers = sorted(set(main.getcol("ANTENNA1")) | set(main.getcol("ANTENNA2")))
    place = {number: i for i, number in enumerate(numbers)}
    dumps = np.rint((time - time.max()) / 10).astype(int)
    dumps -= dumps.min()
    assert replay.n_dumps == dumps.max() + 1 == 9
    seen = np.zeros(counts.shape[:3], bool)
    for row, (dump, first, second) in enumerate(
        zip(dumps, main.getcol("ANTENNA1"), main.getcol("ANTENNA2"), strict=True)
    ):
        a, b = place[first], place[second]
        assert a < b
        index = 4 * (b * (b + 1) // 2 + a)
        assert not seen[dump, :, index].any()
        seen[dump, :, index : index + 4] = True
        sent = counts[dump, :, index : index + 4].astype(float) * replay.stream.scale
        error = sent[..., 0] + 1j * sent[..., 1] - data[row]
        assert max(np.abs(error.real).max(), np.abs(error.imag).max()) <= 0.51 * replay.stream.scale
    assert np.all(counts[~seen] == MISSING)
    assert not np.any(counts[seen][:, 0] == MISSING[0])
    assert np.median(np.abs(data)) / replay.stream.scale >= 2**16


def test_its_baselines_have_the_interfaces_phase_convention(recording: Path) -> None:
    """Products (A, B) go with ``uvw(A) - uvw(B)``, computed from what is published of the recording."""
    replay = Replay(recording, name="bcp")
    antennas = [katpoint.Antenna(text) for text in replay.description.antennas]
    target = katpoint.Target(replay.description.target)
    main = open_table(recording)
    unix = main.getcol("TIME") - 40587 * 86400.0
    numbers = sorted(set(main.getcol("ANTENNA1")) | set(main.getcol("ANTENNA2")))
    for row in range(0, main.nrows(), 97):
        a, b = (
            numbers.index(main.getcell("ANTENNA1", row)),
            numbers.index(main.getcell("ANTENNA2", row)),
        )
        coordinates = uvw.antenna_uvw(target, unix[row], antennas)[0]
        recorded = main.getcell("UVW", row)
        np.testing.assert_allclose(
            coordinates[a] - coordinates[b], recorded, atol=1e-4 * np.linalg.norm(recorded) + 1e-3
        )


def test_the_direction_is_that_of_the_uvw_when_the_field_table_is_wrong(
    recording: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The recording's FIELD table names J1008+0730, but its UVW are of J0954+1743, 10.7° away."""
    with caplog.at_level(logging.WARNING):
        target = katpoint.Target(describe_replay(recording).target)
    assert target.name == "J1008+0730"
    assert target.tags[1:] == ["gaincal"]
    assert [float(angle) for angle in target.radec()] == pytest.approx(
        J0954, abs=math.radians(2 / 3600)
    )
    assert "10.705 deg from that of the FIELD table" in caplog.text


def test_a_right_field_table_is_believed(
    variant: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = variant(lambda main: None)
    fields = open_table(f"{path}::FIELD", readonly=False)
    fields.putcell("PHASE_DIR", 0, np.array([J0954]))
    fields.putcell("NAME", 0, "J0954, | calibrator")
    fields.close()
    target = katpoint.Target(describe_replay(path).target)
    assert target.name == "J0954_ _ calibrator"
    assert [float(angle) for angle in target.radec()] == pytest.approx(J0954, abs=1e-8)
    assert not caplog.records


def test_reversed_baselines_and_reversed_uvw_are_the_same_data(
    recording: Path, variant: Callable[..., Path]
) -> None:
    expected = all_counts(Replay(recording, name="bcp"))
    reversed_uvw = variant(change_columns(UVW=np.negative, DATA=np.conj))
    np.testing.assert_array_equal(all_counts(Replay(reversed_uvw, name="bcp")), expected)
    shutil.rmtree(reversed_uvw)

    def swap(main: Any) -> None:
        first, second = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        main.putcol("ANTENNA1", second)
        main.putcol("ANTENNA2", first)
        change_columns(UVW=np.negative, DATA=lambda data: data.conj()[..., [0, 2, 1, 3]])(main)

    np.testing.assert_array_equal(all_counts(Replay(variant(swap), name="bcp")), expected)


def test_flagged_and_bad_samples_are_missing(recording: Path, variant: Callable[..., Path]) -> None:
    expected = all_counts(Replay(recording, name="bcp"))

    def spoil(main: Any) -> None:
        flags, data, row_flags = main.getcol("FLAG"), main.getcol("DATA"), main.getcol("FLAG_ROW")
        flags[::3, 5, 1] = True
        data[1, 7, 2] = np.nan
        row_flags[-1] = True
        for column, values in (("FLAG", flags), ("DATA", data), ("FLAG_ROW", row_flags)):
            main.putcol(column, values)

    replay = Replay(variant(spoil), name="bcp")
    counts = all_counts(replay)
    missing = np.all(counts == MISSING, axis=-1)
    before = np.all(expected == MISSING, axis=-1)
    # 1360 rows: every third from 0 (454; the last row is one of them) in one sample, one NaN, one row.
    assert missing.sum() - before.sum() == 454 - 1 + 1 + 64 * 4 + (1359 % 3 != 0)
    assert np.all(missing[before])
    present = ~missing
    scale = replay.stream.scale / Replay(recording, name="bcp").stream.scale
    np.testing.assert_allclose(counts[present] * scale, expected[present], atol=1.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda main: main.removecols("DATA"), "no column DATA"),
        (lambda main: main.renamecol("TIME", "TIMES"), "cannot be replayed"),
        (change_columns(ANTENNA2=lambda x: x + 1000), "name antennas"),
        (change_columns(TIME=lambda x: x * 0), "time between dumps is unknown"),
        (change_columns(TIME=lambda x: x * np.nan), "no numbers"),
        (change_columns(FIELD_ID=lambda x: x + 9), "rows name fields 9 to 9; 1 known"),
        (change_columns(FLAG=lambda x: x | True), "neither flagged nor zero"),
        (change_columns(DATA_DESC_ID=lambda x: x + 3), "cannot be replayed"),
    ],
)
def test_broken_recordings_are_refused(
    variant: Callable[..., Path], change: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(ReplayError, match=message) as error:
        describe_replay(variant(change))
    assert "\n" not in str(error.value)


def test_a_recording_without_rows_is_refused(recording: Path, tmp_path: Path) -> None:
    open_table(recording).selectrows([]).copy(str(tmp_path / "empty.ms"), deep=True).close()
    with pytest.raises(ReplayError, match="has no rows"):
        describe_replay(tmp_path / "empty.ms")


def test_what_is_no_measurement_set_is_refused(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"no file table\.dat"):
        describe_replay(tmp_path)
    (tmp_path / "table.dat").write_bytes(b"rubbish")
    with pytest.raises(ReplayError, match="cannot be replayed"):
        describe_replay(tmp_path)
    with pytest.raises(ReplayError, match="cannot be divided by 3"):
        Replay(recording, name="bcp", n_substreams=3)


def test_its_description_is_printed(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert describe.main([str(recording)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["n_dumps"], values["n_chans"], values["band"]) == (9, 64, "x")
    assert values["int_time"] == pytest.approx(10, abs=1e-3)
    assert values["duration"] == 9 * values["int_time"]
    assert values["antennas"][0].startswith("ea01, ")
    assert len(values["antennas"]) == 18
    assert describe.main(["/no/such"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_dumps_are_found_in_times_that_are_not_quite_regular() -> None:
    rng = np.random.default_rng(2)
    dump = np.repeat([0, 1, 2, 3, 7, 8, 20], 3)
    ant2 = np.tile([1, 2, 3], 7)
    time = 1e9 + 8.0 * dump + rng.uniform(-0.3, 0.3, dump.shape)
    grid = dump_grid(time, np.zeros_like(ant2), ant2)
    np.testing.assert_array_equal(grid.index, dump)
    assert grid.int_time == pytest.approx(8.0, abs=0.05)
    assert grid.n_dumps == 21


def test_antennas_get_names_that_inputs_can_have() -> None:
    assert antenna_name("m007", 3, "MeerKAT") == "m007"
    assert antenna_name("7", 3, "EVLA") == "ea07"
    assert antenna_name(" ", 3, "VLA") == "ea03"
    assert antenna_name("W09, x", 3, "ATCA") == "ant03"


def test_descriptions_survive_being_read_and_written(recording: Path) -> None:
    rng = np.random.default_rng(3)
    centre = np.array(katpoint.lla_to_ecef(-0.536, 0.374, 1086.0))
    positions = centre + rng.uniform(-4000, 4000, (5, 3))
    names = [f"a{i}" for i in range(5)]
    texts = antenna_descriptions(names, positions, [12.0] * 5)
    for text in (*texts, *(katpoint.Antenna(text).description for text in texts)):
        antenna = katpoint.Antenna(text)
        place = katpoint.lla_to_ecef(*antenna.position_wgs84)
        np.testing.assert_allclose(place, positions[names.index(antenna.name)], atol=2e-3)


@pytest.mark.parametrize("direction", [(0.0, 0.0), (6.283185, -1.2), (3.1, 1e-7), (1e-9, -1e-7)])
def test_target_descriptions_keep_their_direction(direction: tuple[float, float]) -> None:
    target = katpoint.Target(target_description("x", *direction))
    ra, dec = (float(angle) for angle in target.radec())
    assert math.sin((ra - direction[0]) / 2) == pytest.approx(0, abs=1e-8)
    assert dec == pytest.approx(direction[1], abs=1e-8)


def test_bands() -> None:
    assert [band_letter(f * 1e6) for f in (300, 816, 1284, 2625, 36000)] == [
        "x",
        "u",
        "l",
        "s",
        "x",
    ]
