"""Skies computed by independent simulators, beside ours.

::

    python3 -m benchmarks.skies [--fields 3] [--antennas 16]

Fields are random: points and Gaussians with spectra or polarisation, up to a degree from the centre, MeerKAT's
positions. Printed is the largest difference from what :mod:`pipelines.correlator` computes, as part of the
largest visibility.

DP3
    predicts from the coordinates (uvw) of the MeasurementSet that our writer made: shapes, spectra,
    polarisation, signs, and the MeasurementSet itself.
matvis
    from positions of antennas, right ascension, declination and time, total intensity of points: signs, the
    coordinates, phase tracking. *as seen*: its sources are where katpoint sees them, which leaves the
    interferometer; *by catalogue*: at the same right ascension and declination, and what is compared is the
    direction: astropy's reduction to the horizon beside katpoint's, in arcseconds.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import casacore.tables
import katpoint
import numpy as np
from numpy.typing import NDArray

from benchmarks import referees
from pipelines.common.baselines import POL_PRODUCTS, antenna_pairs
from pipelines.common.l0 import Dump, DumpPart, L0Layout
from pipelines.common.stream_info import VisStream
from pipelines.common.uvw import SPEED_OF_LIGHT, antenna_offsets, direction_cosines
from pipelines.correlator.meerkat import ENU, antenna_description
from pipelines.correlator.model import Model, ModelConfig
from pipelines.writer.describe_ms import Facts, describe
from pipelines.writer.measurement_set import MeasurementSetSink
from pipelines.writer.timeline import timeline

START: Final = 1_577_836_800.0
"""2020-01-01, within the tables of the Earth's rotation."""
INT_TIME: Final = 8.0
FULL_SCALE: Final = 2.0**30
"""Counts of the largest visibility: rounding is then a part in 10⁹."""
REFERENCE_FREQUENCY: Final = 1284e6
ARCSECOND: Final = np.radians(1 / 3600)


@dataclass(frozen=True)
class Field:
    """A sky, and the array that sees it."""

    centre: katpoint.Target
    sources: tuple[katpoint.Target, ...]
    antennas: tuple[katpoint.Antenna, ...]

    @property
    def model(self) -> Model:
        """Our simulator, without noise, gains and receivers."""
        flux = sum(float(source.flux_density(REFERENCE_FREQUENCY / 1e6)) for source in self.sources)
        return Model(
            ModelConfig(
                name="bcp",
                antennas=self.antennas,
                n_chans=8,
                n_chans_per_substream=8,
                bandwidth=428e6,
                centre_frequency=REFERENCE_FREQUENCY,
                adc_sample_rate=1712e6,
                int_time=INT_TIME,
                start_time=START,
                sources=self.sources,
                sefd=0.0,
                noise=False,
                gains=False,
                scale=2 * flux / FULL_SCALE,
            )
        )

    def points(self) -> Field:
        """The same field with points for Gaussians, and without polarisation."""
        return Field(
            self.centre,
            tuple(
                katpoint.Target(
                    f"{source.name}, radec, {source.description.split(',')[2]}, "
                    f"{source.description.split(',')[3]}, (800 2000 "
                    f"{source.flux_model.coefs[0]} {source.flux_model.coefs[1]})"
                )
                for source in self.sources
            ),
            self.antennas,
        )


def draw(seed: int, n_sources: int = 8, n_antennas: int = 16) -> Field:
    """Draw a field: half of the sources are Gaussians; half are polarised, the others have spectral slopes.

    To DP3 the slope of a source is one of its total intensity alone, so that no source has both.
    """
    rng = np.random.default_rng(seed)
    names = rng.choice(sorted(ENU), n_antennas, replace=False)
    antennas = tuple(katpoint.Antenna(antenna_description(name)) for name in names)
    # Three hours before it culminates, so that it is up for six.
    ra = (np.degrees(antennas[0].local_sidereal_time(START)) / 15 + rng.uniform(2.5, 3.5)) % 24
    dec = rng.uniform(-60, 0)
    sources = []
    for number in range(n_sources):
        distance, angle = np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        source_dec = dec + distance * np.cos(angle)
        source_ra = ra + distance * np.sin(angle) / np.cos(np.radians(dec)) / 15
        tag = ""
        if number % 2:
            major, minor = np.sort(rng.uniform(2, 60, 2))[::-1]
            tag = f" gaussian:{major:.3f}:{minor:.3f}:{rng.uniform(0, 180):.3f}"
        level, slope, polarisation = rng.uniform(0.0, 1.0), 0.0, np.zeros(3)
        if number // 2 % 2:
            polarisation = rng.uniform(-0.2, 0.2, 3)
        else:
            slope = rng.uniform(-1.0, 0.2)
        quv = " ".join(f"{part:.4f}" for part in polarisation)
        # log10(S/Jy) = level + slope log10(ν/MHz)
        level -= slope * np.log10(REFERENCE_FREQUENCY / 1e6)
        sources.append(
            f"s{number}, radec{tag}, {_sexagesimal(source_ra % 24)}, {_sexagesimal(source_dec)}, "
            f"(800 2000 {level:.6f} {slope:.6f} 0 0 0 0 1 {quv})"
        )
    return Field(
        katpoint.Target(f"centre, radec, {_sexagesimal(ra)}, {_sexagesimal(dec)}"),
        tuple(map(katpoint.Target, sources)),
        antennas,
    )


def _sexagesimal(value: float) -> str:
    tenths = round(abs(value) * 36000)
    sign = "-" if value < 0 else ""
    return f"{sign}{tenths // 36000}:{tenths // 600 % 60:02}:{tenths % 600 / 10:04.1f}"


def ours(field: Field, dumps: list[int]) -> NDArray[np.complex128]:
    """Visibilities of our simulator, Jy, shape (n_dumps, n_chans, n_pairs, 4)."""
    model = field.model
    stream = model.stream
    counts = np.empty((len(dumps), stream.n_chans, stream.n_bls, 2), np.int32)
    for row, dump in zip(counts, dumps, strict=True):
        model.fill(dump, field.centre, row)
    vis = (counts[..., 0] + 1j * counts[..., 1]) * stream.scale
    return vis.reshape(len(dumps), stream.n_chans, -1, len(POL_PRODUCTS))


# ------------------------------------------------------------------ DP3


def by_dp3(field: Field, n_dumps: int, folder: Path) -> NDArray[np.complex128]:
    """Visibilities that DP3 predicts for the MeasurementSet of `field`, shape as :func:`ours`."""
    path = folder / "field.ms"
    _write_measurement_set(field, n_dumps, path)
    (folder / "sky.skymodel").write_text(skymodel(field))
    referees.run_dp3(
        [
            *("msin=field.ms", "msout=.", "msout.datacolumn=MODEL_DATA", "steps=[predict]"),
            "predict.sourcedb=sky.skymodel",
        ],
        folder,
    )
    with casacore.tables.table(str(path), ack=False) as main:
        rows = np.asarray(main.getcol("MODEL_DATA"), np.complex128)
    by_dump = rows.reshape(n_dumps, -1, *rows.shape[1:])
    return by_dump.transpose(0, 2, 1, 3)


def cross(field: Field, vis: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return the visibilities of pairs of different antennas: DP3 predicts no others."""
    pairs = antenna_pairs(len(field.antennas))
    return vis[:, :, pairs[:, 0] != pairs[:, 1]]


def skymodel(field: Field) -> str:
    """Return the sources as DP3 reads them."""
    lines = [
        "FORMAT = Name, Type, Ra, Dec, I, Q, U, V, SpectralIndex, LogarithmicSI, ReferenceFrequency, "
        "MajorAxis, MinorAxis, Orientation"
    ]
    for source in field.sources:
        ra, dec = (part.strip() for part in source.description.split(",")[2:4])
        stokes = source.flux_density_stokes(REFERENCE_FREQUENCY / 1e6)
        shape = [tag.split(":")[1:] for tag in source.tags if tag.startswith("gaussian:")]
        lines.append(
            ", ".join(
                [
                    *(source.name, "GAUSSIAN" if shape else "POINT", ra, dec.replace(":", ".")),
                    *(f"{value:.12g}" for value in stokes),
                    f"[{source.flux_model.coefs[1]}], true, {REFERENCE_FREQUENCY}",
                    *(shape[0] if shape else ("", "", "")),
                ]
            )
        )
    return "\n".join(lines) + "\n"


def _write_measurement_set(field: Field, n_dumps: int, path: Path) -> None:
    source = field.model.stream
    stream = VisStream(
        name="sdp_l0",
        n_chans=source.n_chans,
        bandwidth=source.bandwidth,
        center_freq=source.center_freq,
        sync_time=source.sync_time,
        int_time=source.int_time,
        bls_ordering=source.bls_ordering,
        src_streams=("bcp",),
    )
    sink = MeasurementSetSink(
        path, stream, L0Layout(stream.n_chans, stream.n_bls, 1, stream.int_time)
    )
    for index, vis in enumerate(ours(field, list(range(n_dumps)))):
        flat = vis.reshape(stream.n_chans, -1).astype(np.complex64)
        part = DumpPart(
            range(stream.n_chans),
            flat,
            np.zeros(flat.shape, np.uint8),
            np.ones(flat.shape, np.uint8),
            np.ones(stream.n_chans, np.float32),
        )
        sink.write(Dump(index, (index + 0.5) * stream.int_time, (part,)))
    targets = [(field.centre.description, START - 1)]
    seen = timeline(targets, [("track", START - 1)], sink.times(), stream.int_time)
    describe(sink, Facts(field.antennas, "", ""), seen)
    sink.finish()


# ------------------------------------------------------------------ matvis


@dataclass(frozen=True)
class MatvisAnswer:
    """What matvis says of a field of unpolarised points."""

    vis: NDArray[np.complex128]
    """Total intensity, phases tracked by our own w of the centre, shape (n_dumps, n_chans, n_pairs)."""
    separation: NDArray[np.float64]
    """Of the directions in which astropy and katpoint see the sources, rad, shape (n_dumps, n_sources)."""


def by_matvis(field: Field, dumps: list[int], folder: Path, *, as_seen: bool) -> MatvisAnswer:
    """Let matvis compute a field whose sources are unpolarised points.

    Parameters
    ----------
    as_seen
        Whether its sources are in the directions that our coordinates mean, or have the same right ascension
        and declination.
    """
    model = field.model
    freqs = np.asarray(model.stream.channel_freqs)
    times = [model.dump_centre(dump) for dump in dumps]
    reference = field.antennas[0].array_reference_antenna()
    seen = np.array([_directions(field, time) for time in times])
    pairs = antenna_pairs(len(field.antennas))
    question: dict[str, Any] = {
        "enu": antenna_offsets(field.antennas),
        "freqs": freqs,
        "times": times,
        "site": reference.position_wgs84,
        "flux": [source.flux_density(freqs / 1e6) for source in field.sources],
        # Its V(i, j) has the phase of x_j - x_i.
        "pairs": pairs[:, ::-1],
    }
    if as_seen:
        question["seen"] = seen
    else:
        question["radec"] = [source.astrometric_radec(START, reference) for source in field.sources]
    np.savez(folder / "question.npz", **question)
    referees.run_matvis(folder / "question.npz", folder / "answer.npz")
    answer = np.load(folder / "answer.npz")
    w = np.array([model.uvw(dump, field.centre)[:, 2] for dump in dumps])
    delay = (w[:, pairs[:, 0]] - w[:, pairs[:, 1]]) / SPEED_OF_LIGHT
    tracking = np.exp(-2j * np.pi * delay[:, np.newaxis, :] * freqs[:, np.newaxis])
    apart = np.linalg.norm(answer["direction"] - seen, axis=-1)
    return MatvisAnswer(answer["vis"] * tracking, apart)


def _directions(field: Field, time: float) -> NDArray[np.float64]:
    """Where our coordinates have the sources, east, north and up, shape (n_sources, 3)."""
    reference = field.antennas[0].array_reference_antenna()
    basis = np.asarray(field.centre.uvw_basis(time, reference))
    cosines = [direction_cosines(field.centre, source, time, reference) for source in field.sources]
    return np.asarray(np.add(cosines, [0, 0, 1]) @ basis)


# ------------------------------------------------------------------ the table


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference as part of the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fields", type=int, default=3, help="random fields [%(default)s]")
    parser.add_argument("--antennas", type=int, default=16, help="[%(default)s]")
    options = parser.parse_args()
    hours = [0, 450, 1350, 2700]  # dumps of 8 s: over six hours
    print("field  DP3 - ours  matvis - ours (as seen)  directions apart (by catalogue)")
    for seed in range(options.fields):
        field = draw(seed, n_antennas=options.antennas)
        points = field.points()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            predicted, expected = by_dp3(field, 4, folder), ours(field, list(range(4)))
            dp3 = difference(cross(field, predicted), cross(field, expected))
            seen = by_matvis(points, hours, folder, as_seen=True)
            apart = by_matvis(points, hours, folder, as_seen=False).separation
        total = ours(points, hours)[..., [0, 3]].mean(axis=-1)
        print(
            f"{seed:5}  {dp3:10.1e}  {difference(seen.vis, total):23.1e}"
            f'  {apart.max() / ARCSECOND:30.2f}"'
        )


if __name__ == "__main__":
    main()
