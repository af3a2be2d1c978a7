"""What a MeasurementSet says beside its data: coordinates, fields, scans and the subtables.

Filled in when a block is over, since only then is it known what was observed. Enumerations are those of
casacore: ``Stokes::StokesTypes`` (XX 9 … YY 12), ``MFrequency::TOPO`` (5).
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import katpoint
import numpy as np
import numpy.typing as npt

from pipelines.common.telescope import telescope_of
from pipelines.common.uvw import antenna_uvw, baseline_uvw
from pipelines.writer.measurement_set import MJD_OF_UNIX_EPOCH, MeasurementSetSink
from pipelines.writer.store import StoreError
from pipelines.writer.timeline import Timeline

CORR_TYPE: Final = (9, 10, 11, 12)
"""hh, hv, vh, vv as XX, XY, YX, YY."""
CORR_PRODUCT: Final = ((0, 0), (0, 1), (1, 0), (1, 1))
TOPOCENTRIC: Final = 5
_INTENTS: Final = {
    "bpcal": "CALIBRATE_BANDPASS",
    "delaycal": "CALIBRATE_DELAY",
    "gaincal": "CALIBRATE_PHASE",
    "fluxcal": "CALIBRATE_FLUX",
    "polcal": "CALIBRATE_POLARIZATION",
}
_TARGET_INTENT: Final = "OBSERVE_TARGET"

Rows = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
"""Columns of a subtable by name, all equally long."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the description needs beyond the stream itself."""

    antennas: tuple[katpoint.Antenna, ...]
    """In the order of the sink's antennas."""
    observer: str
    project: str


def intent_of(target: katpoint.Target) -> str:
    """Return the observing mode of a target by its tags, as CASA names it."""
    modes = [mode for tag, mode in _INTENTS.items() if tag in target.tags] or [_TARGET_INTENT]
    return ",".join(f"{mode}#UNSPECIFIED" for mode in modes)


def describe(sink: MeasurementSetSink, facts: Facts, timeline: Timeline) -> None:
    """Fill in everything but the data. Blocks.

    Parameters
    ----------
    timeline
        Of the dumps that the sink has, see :meth:`MeasurementSetSink.times`.

    Raises
    ------
    StoreError
        It could not be written.
    """
    targets = [katpoint.Target(text) for text in timeline.targets] or [_nowhere()]
    times = sink.times()
    intents = [intent_of(target) for target in targets]
    states = list(dict.fromkeys(intents))
    field = np.maximum(timeline.target, 0)
    state = np.array([states.index(intents[f]) for f in field], np.int32)
    try:
        sink.put_per_dump(
            {
                "FIELD_ID": field.astype(np.int32),
                "SCAN_NUMBER": timeline.scan.astype(np.int32),
                "STATE_ID": state,
                "ARRAY_ID": np.zeros(len(times), np.int32),
            }
        )
        _put_uvw(sink, facts, [targets[f] for f in field], times)
        sink.flag(np.flatnonzero(~timeline.tracking).tolist())
        for name, rows in _subtables(sink, facts, targets, states, times).items():
            with sink.subtable(name) as table:
                _fill(table, rows)
    except RuntimeError as exc:
        raise StoreError(f"{sink.path}: {' '.join(str(exc).split())}") from exc


def _nowhere() -> katpoint.Target:
    return katpoint.Target("unknown, radec, 0:00:00.0, -30:00:00.0")


def _put_uvw(
    sink: MeasurementSetSink,
    facts: Facts,
    targets: Sequence[katpoint.Target],
    times: npt.NDArray[np.float64],
) -> None:
    pairs = sink.correlations.pairs.astype(np.int64)
    for dump, (target, when) in enumerate(zip(targets, times, strict=True)):
        uvw = antenna_uvw(target, [when], facts.antennas)[0]
        sink.put_rows("UVW", dump, baseline_uvw(uvw, pairs))


def _fill(table: Any, rows: Rows) -> None:
    n = len(next(iter(rows.values())))
    table.addrows(n - table.nrows())
    for name, values in rows.items():
        if isinstance(values, np.ndarray):
            table.putcol(name, values)
            continue
        for row, value in enumerate(values):
            table.putcell(name, row, value)


def _subtables(
    sink: MeasurementSetSink,
    facts: Facts,
    targets: Sequence[katpoint.Target],
    states: Sequence[str],
    times: npt.NDArray[np.float64],
) -> dict[str, Rows]:
    return {
        "ANTENNA": _antenna(facts),
        "FEED": _feed(len(facts.antennas)),
        "FIELD": _field(targets, facts.antennas[0], times),
        "SPECTRAL_WINDOW": _spectral_window(sink),
        "POLARIZATION": {
            "NUM_CORR": np.array([4], np.int32),
            "CORR_TYPE": np.array([CORR_TYPE], np.int32),
            "CORR_PRODUCT": np.array([CORR_PRODUCT], np.int32),
            "FLAG_ROW": np.zeros(1, np.bool_),
        },
        "DATA_DESCRIPTION": {
            "SPECTRAL_WINDOW_ID": np.zeros(1, np.int32),
            "POLARIZATION_ID": np.zeros(1, np.int32),
            "FLAG_ROW": np.zeros(1, np.bool_),
        },
        "OBSERVATION": _observation(facts, times),
        "STATE": _state(states),
        "HISTORY": _history(),
        "PROCESSOR": {"TYPE": ["CORRELATOR"], "SUB_TYPE": [""], "FLAG_ROW": np.zeros(1, np.bool_)},
    }


def _antenna(facts: Facts) -> Rows:
    n = len(facts.antennas)
    return {
        "NAME": [antenna.name for antenna in facts.antennas],
        "STATION": [antenna.name for antenna in facts.antennas],
        "TYPE": ["GROUND-BASED"] * n,
        "MOUNT": ["ALT-AZ"] * n,
        "POSITION": np.array([antenna.position_ecef for antenna in facts.antennas], np.float64),
        "OFFSET": np.zeros((n, 3)),
        "DISH_DIAMETER": np.array([antenna.diameter for antenna in facts.antennas], np.float64),
        "FLAG_ROW": np.zeros(n, np.bool_),
    }


def _feed(n_antennas: int) -> Rows:
    n = n_antennas
    return {
        "ANTENNA_ID": np.arange(n, dtype=np.int32),
        "FEED_ID": np.zeros(n, np.int32),
        "SPECTRAL_WINDOW_ID": np.full(n, -1, np.int32),
        "TIME": np.zeros(n),
        "INTERVAL": np.zeros(n),
        "NUM_RECEPTORS": np.full(n, 2, np.int32),
        "BEAM_ID": np.full(n, -1, np.int32),
        "BEAM_OFFSET": np.zeros((n, 2, 2)),
        "POLARIZATION_TYPE": [{"shape": [2], "array": ["X", "Y"]}] * n,
        "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (n, 1, 1)),
        "POSITION": np.zeros((n, 3)),
        # Stokes Q is (hh - vv) / 2 in these streams, so h is X without a rotation.
        "RECEPTOR_ANGLE": np.zeros((n, 2)),
    }


def _field(
    targets: Sequence[katpoint.Target], antenna: katpoint.Antenna, times: npt.NDArray[np.float64]
) -> Rows:
    when = float(times.mean()) if len(times) else 0.0
    n = len(targets)
    direction = np.array(
        [target.astrometric_radec(when, antenna) for target in targets], np.float64
    )
    return {
        "NAME": [str(target.name) for target in targets],
        "CODE": ["C" if intent_of(t).startswith("CALIBRATE") else "T" for t in targets],
        "TIME": np.full(n, when + MJD_OF_UNIX_EPOCH),
        "NUM_POLY": np.zeros(n, np.int32),
        **{f"{kind}_DIR": direction.reshape(n, 1, 2) for kind in ("DELAY", "PHASE", "REFERENCE")},
        "SOURCE_ID": np.arange(n, dtype=np.int32),
        "FLAG_ROW": np.zeros(n, np.bool_),
    }


def _spectral_window(sink: MeasurementSetSink) -> Rows:
    stream = sink.stream
    freqs = np.asarray(stream.channel_freqs, np.float64)
    widths = np.full((1, len(freqs)), stream.channel_width)
    return {
        "NAME": [stream.name],
        "NUM_CHAN": np.array([len(freqs)], np.int32),
        "REF_FREQUENCY": np.array([stream.center_freq]),
        "CHAN_FREQ": freqs[np.newaxis],
        **dict.fromkeys(("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"), widths),
        "TOTAL_BANDWIDTH": np.array([stream.bandwidth]),
        "MEAS_FREQ_REF": np.array([TOPOCENTRIC], np.int32),
        "NET_SIDEBAND": np.ones(1, np.int32),
        "IF_CONV_CHAIN": np.zeros(1, np.int32),
        "FREQ_GROUP": np.zeros(1, np.int32),
        "FREQ_GROUP_NAME": [""],
        "FLAG_ROW": np.zeros(1, np.bool_),
    }


def _observation(facts: Facts, times: npt.NDArray[np.float64]) -> Rows:
    ends = [times.min(), times.max()] if len(times) else [0.0, 0.0]
    return {
        "TELESCOPE_NAME": [telescope_of(antenna.name for antenna in facts.antennas) or "unknown"],
        "OBSERVER": [facts.observer],
        "PROJECT": [facts.project],
        "TIME_RANGE": np.array([ends]) + MJD_OF_UNIX_EPOCH,
        "RELEASE_DATE": np.zeros(1),
        "SCHEDULE_TYPE": [""],
        "FLAG_ROW": np.zeros(1, np.bool_),
    }


def _state(states: Sequence[str]) -> Rows:
    n = len(states)
    return {
        "OBS_MODE": list(states),
        "SIG": np.ones(n, np.bool_),
        "REF": np.zeros(n, np.bool_),
        "CAL": np.zeros(n),
        "LOAD": np.zeros(n),
        "SUB_SCAN": np.zeros(n, np.int32),
        "FLAG_ROW": np.zeros(n, np.bool_),
    }


def _history() -> Rows:
    return {
        "TIME": np.array([time.time() + MJD_OF_UNIX_EPOCH]),
        "OBSERVATION_ID": np.zeros(1, np.int32),
        "MESSAGE": [f"written from L0 by {getpass.getuser()}"],
        "PRIORITY": ["INFO"],
        "ORIGIN": ["pipelines.writer"],
        "APPLICATION": ["sdp"],
        "OBJECT_ID": np.zeros(1, np.int32),
    }
