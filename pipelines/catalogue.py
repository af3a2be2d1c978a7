"""What the controller has to know of the programs: declarations, no code of theirs.

This is the only module of the package that the controller reads, so it imports none of the others: names,
ports, the order in which data flows, and formulas for the memory and the bandwidth of a program as functions
of its streams. The formulas follow from what a program keeps in memory; the tests of each program hold it to
them.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

SPEAD_PORT: Final = 7148
"""Default UDP port of a SPEAD stream."""

BYTES_PER_CORRELATION: Final = 8
"""Correlator: two int32 counts per product and channel."""

BYTES_PER_L0_SAMPLE: Final = 10
"""L0: complex64 visibility, uint8 flags, uint8 weight."""

STREAM_OVERHEAD: Final = 1.05
"""Senders run this much faster than real time, and packets have headers."""

PYTHON_MIB: Final = 350
"""Resident memory of an interpreter with numpy, numba and the radio libraries loaded, MiB."""


class CaptureStage(enum.IntEnum):
    """Where a program stands in the flow of data: captures begin at the end and end at the beginning."""

    SOURCE = 0
    INGEST = 1
    CALIBRATION = 2
    FLAGS = 3
    FLAG_WRITER = 4
    WRITER = 5
    METADATA = 6
    """After all that is in telescope state: solutions, and what the writers have written."""
    DISPLAY = 7


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the package."""

    kind: str
    module: str
    """``python3 -m MODULE`` starts it."""
    ports: tuple[str, ...]
    """Names of its TCP ports."""
    stage: CaptureStage | None = None
    """None: it takes no part in captures."""
    katcp: bool = True
    """Whether its port ``katcp`` speaks KATCP."""


TELSTATE: Final = Program("telstate", "pipelines.telstate", ("telstate",), katcp=False)
CORRELATOR: Final = Program("correlator", "pipelines.correlator", ("katcp",), CaptureStage.SOURCE)
INGEST: Final = Program("ingest", "pipelines.ingest", ("katcp",), CaptureStage.INGEST)
CALIBRATION: Final = Program(
    "cal", "pipelines.calibration", ("katcp", "http"), CaptureStage.CALIBRATION
)
FLAGS: Final = Program("flags", "pipelines.flags", ("katcp",), CaptureStage.FLAGS)
FLAG_WRITER: Final = Program(
    "flag_writer", "pipelines.writer", ("katcp",), CaptureStage.FLAG_WRITER
)
WRITER: Final = Program("vis_writer", "pipelines.writer", ("katcp",), CaptureStage.WRITER)
METADATA: Final = Program("meta_writer", "pipelines.metadata", ("katcp",), CaptureStage.METADATA)
DISPLAY: Final = Program("display", "pipelines.display", ("katcp", "http"), CaptureStage.DISPLAY)
QUALITY: Final = Program("quality", "pipelines.quality", ("katcp",))
IMAGING: Final = Program("imager", "pipelines.imaging", (), katcp=False)
SPECTRAL_IMAGING: Final = Program("spectral_imager", "pipelines.imaging.spectral", (), katcp=False)
CUBE_JOINING: Final = Program("cube_joiner", "pipelines.imaging.join", (), katcp=False)

PROGRAMS: Final = {
    program.kind: program
    for program in (
        TELSTATE,
        CORRELATOR,
        INGEST,
        CALIBRATION,
        FLAGS,
        FLAG_WRITER,
        WRITER,
        METADATA,
        DISPLAY,
        QUALITY,
        IMAGING,
        SPECTRAL_IMAGING,
        CUBE_JOINING,
    )
}

EXPORTED_SENSORS: Final[dict[str, dict[str, str]]] = {
    INGEST.kind: {
        "input-heaps-total": "Correlator heaps received in the capture block",
        "input-heaps-lost": "Correlator heaps that should have come",
        "input-samples-saturated": "Samples that the correlator clipped",
        "output-heaps-total": "L0 heaps sent",
        "flagged-fraction": "Part of the samples that is flagged",
        "input-rate": "Bytes of good heaps received, a second",
    },
    CALIBRATION.kind: {
        "input-heaps-total": "L0 heaps received",
        "input-heaps-lost": "L0 heaps that should have come",
        "scans-unsolved": "Scans without a solution",
        "phase-rms": "Phase of the last calibrated scan, rad",
    },
    FLAGS.kind: {
        "input-heaps-lost": "L0 heaps that should have come",
        "flagged-fraction": "Part of the window with a flag",
        "rfi-fraction": "Part of the window with interference that ingest had not seen",
    },
    FLAG_WRITER.kind: {
        "input-heaps-lost": "Heaps of flags that should have come",
        "heaps-not-written": "Heaps that the disk refused",
    },
    WRITER.kind: {
        "input-heaps-total": "L0 heaps received",
        "input-heaps-lost": "L0 heaps that should have come",
        "heaps-dropped": "Heaps dropped since the disk did not keep up",
        "heaps-not-written": "Heaps that the disk refused",
        "bytes-written": "Bytes of arrays written",
        "disk-free": "Bytes left on the data volume",
    },
    METADATA.kind: {
        "write-failures": "Files of telescope state that could not be written",
        "files-owed": "Files of telescope state that are not written yet",
    },
    DISPLAY.kind: {"dumps-skipped": "Dumps left out of the display"},
}
"""Sensors of tasks that become figures for Prometheus, with what they mean, by kind of program."""


def n_products(n_antennas: int) -> int:
    """Correlation products of an array with two polarisations, autocorrelations included."""
    return 2 * n_antennas * (n_antennas + 1)


def n_inputs(products: int) -> int:
    """Inputs of an array with so many products, the inverse of :func:`n_products`."""
    return math.isqrt(2 * products + 1) - 1


def correlation_rate(n_chans: int, n_antennas: int, int_time: float) -> float:
    """Bit rate of a correlation stream on the wire, bit/s.

    Parameters
    ----------
    n_chans
        Channels, of the whole stream or of the part that is asked about.
    n_antennas
        Antennas, two polarisations each.
    int_time
        Seconds of wall time between dumps.
    """
    size = n_chans * n_products(n_antennas) * BYTES_PER_CORRELATION
    return size * 8 / int_time * STREAM_OVERHEAD


def l0_rate(n_chans: int, n_antennas: int, int_time: float) -> float:
    """Bit rate of an L0 stream on the wire, bit/s; parameters as :func:`correlation_rate`."""
    size = n_chans * (n_products(n_antennas) * BYTES_PER_L0_SAMPLE + 4)
    return size * 8 / int_time * STREAM_OVERHEAD


INGEST_CORE_RATE: Final = 1e9
"""Bit/s of correlator data that a core flags and averages; two thirds of what `benchmarks.ingest` measures."""
INGEST_WINDOW: Final = 4
"""Dumps that an ingest's receiver holds open for late heaps."""
INGEST_SPARE_CHUNKS: Final = 4
"""Dumps that it has on their way through the processing and back."""
INGEST_OUTPUT_BUFFERS: Final = 4
"""Output dumps that an ingest may have on their way out."""


def ingest_bytes(
    chans_in: int, chans_out: int, products: int, n_heaps: int, window: int = INGEST_WINDOW
) -> int:
    """Memory of the arrays of an ingest, bytes; the interpreter (:data:`PYTHON_MIB`) is not in it.

    The receiver's dumps, one input dump as visibilities and flags, one output dump as sums, counts, flags and
    powers of the inputs, and the output buffers.

    Parameters
    ----------
    chans_in, chans_out
        Channels that it receives and sends.
    products
        Correlation products, see :func:`n_products`.
    n_heaps
        Substreams that it receives.
    window
        Dumps that its receiver holds open.
    """
    received = chans_in * products * BYTES_PER_CORRELATION + n_heaps
    chunks = (window + INGEST_SPARE_CHUNKS) * received
    sums = chans_in * products * (8 + 1) + chans_out * products * (8 + 4 + 1)
    powers = chans_out * n_inputs(products) * (4 + 4)
    buffers = INGEST_OUTPUT_BUFFERS * chans_out * (products * BYTES_PER_L0_SAMPLE + 4)
    return chunks + sums + powers + buffers


L0_BUFFERED: Final = 16
"""Dumps that a receiver of L0 has: eight that may be incomplete, seven held by its program, one to refill."""
CALIBRATION_THREADS: Final = 2
"""Threads in which calibration solves."""
BYTES_PER_SCAN_SAMPLE: Final = 12
"""Calibration: complex64 visibility and float32 weight."""


def l0_buffer_bytes(n_chans: int, products: int) -> int:
    """Memory of the dumps that a receiver of an L0 stream holds, bytes; end heaps are a few hundred more."""
    return L0_BUFFERED * n_chans * (products * BYTES_PER_L0_SAMPLE + 4)


CALIBRATION_BATCH: Final = 8
"""Solution intervals that calibration solves together; as many again are filled meanwhile."""
BYTES_PER_GAIN: Final = 8
"""complex64"""
_CALIBRATION_GAINS: Final = 6
"""Arrays of a gain per channel and input that calibration has at a time, at most."""
_CALIBRATION_FIXED: Final = 64 * 2**20
"""Bytes: delay spectra of some pairs, averages of a batch over the band, gains of a long scan, plots."""


def calibration_interval_bytes(n_chans: int, n_antennas: int, products: int) -> int:
    """Memory of a solution interval of calibration: weighted visibilities, weights, and counts per antenna.

    Parameters
    ----------
    products
        Those of pairs of different antennas.
    """
    return n_chans * (products * BYTES_PER_SCAN_SAMPLE + 4 * n_antennas)


def calibration_bytes(n_chans: int, n_antennas: int, batch: int = CALIBRATION_BATCH) -> int:
    """Memory of calibration's arrays, bytes, without the receiver's buffer and the interpreter.

    All four products of all pairs of antennas, for two batches of solution intervals (one is filled while the
    other is solved) and for the sums of the scan; half a product more where weak channels are solved
    together; gains per channel. It does not depend on how long a scan or an observation is.

    Parameters
    ----------
    n_chans, n_antennas
        Of the L0 stream.
    batch
        Solution intervals that are solved together.
    """
    pairs = n_antennas * (n_antennas - 1) // 2
    interval = calibration_interval_bytes(n_chans, n_antennas, 4 * pairs)
    weak = n_chans * pairs * BYTES_PER_SCAN_SAMPLE // 2
    gains = _CALIBRATION_GAINS * n_chans * 2 * n_antennas * BYTES_PER_GAIN
    return (2 * batch + 1) * interval + weak + gains + _CALIBRATION_FIXED


def dumps_per_gain(g_solint: float, int_time: float) -> int:
    """Whole dumps of `int_time` seconds in a solution interval of `g_solint` seconds; 0 means one dump."""
    return max(1, round(g_solint / int_time))


def calibration_batch(buffer_time: float, interval: float) -> int:
    """Solution intervals, of `interval` seconds, in a batch; two batches are not longer than `buffer_time`."""
    return max(1, min(CALIBRATION_BATCH, int(buffer_time / interval) // 2))


TELSTATE_SOLUTIONS: Final = 16
"""Solutions of the size of a bandpass that a telescope state has room for: they stay as long as the product."""


def solution_bytes(n_chans: int, n_antennas: int) -> int:
    """Size of a solution for all channels and inputs, such as a bandpass, bytes."""
    return n_chans * n_antennas * 2 * 8


METADATA_COPIES: Final = 4
"""Copies of one sensor's samples that are in memory while it is written to a file, as measured."""
METADATA_BANDPASSES: Final = 4
"""Bandpass solutions of a capture block, its largest sensor."""
METADATA_PYTHON_MIB: Final = 128
"""Resident memory of the metadata writer's interpreter, which has no radio libraries loaded, MiB."""


def metadata_bytes(n_chans: int, n_antennas: int) -> int:
    """Memory of the metadata writer, bytes, without the interpreter: one key of telescope state at a time."""
    return METADATA_COPIES * METADATA_BANDPASSES * solution_bytes(n_chans, n_antennas)


DISPLAY_BINS: Final = 512
"""Bins of frequency that the signal display shows at most."""
DISPLAY_DEPTH: Final = 300
"""Dumps that it remembers."""
DISPLAY_WATCHED: Final = 16
"""Products, beside those of inputs with themselves, whose spectra over time it remembers."""


def display_bytes(n_chans: int, n_antennas: int) -> int:
    """Memory of what the signal display remembers, bytes, without the receiver's buffer and the interpreter.

    The newest spectrum of all products as sums, counts and flags; their means over the band, and the spectra of
    inputs and of watched products, for all remembered dumps.
    """
    bins, products = min(n_chans, DISPLAY_BINS), n_products(n_antennas)
    newest = bins * products * (8 + 4 + 4) + 4 * products
    means = DISPLAY_DEPTH * (8 + 8 * products + 4 * bins)
    spectra = DISPLAY_DEPTH * bins * 4 * (2 * n_antennas + DISPLAY_WATCHED)
    return newest + means + spectra


FLAGS_WINDOW: Final = 8
"""Dumps that the flagger looks at together."""


def flags_bytes(n_chans: int, products: int, window: int = FLAGS_WINDOW) -> int:
    """Memory of the flagger's two windows, bytes, without the receiver's buffer and the interpreter."""
    return 2 * window * n_chans * products * (4 + 1)


def bandpass_bytes(n_chans: int, n_antennas: int) -> int:
    """Memory of the bandpass that the flagger divides by, bytes: as it came, by input, and its amplitudes."""
    return n_chans * 2 * n_antennas * (8 + 8 + 4)


def flags_rate(n_chans: int, n_antennas: int, int_time: float) -> float:
    """Bit rate of a stream of flags in real time on the wire, bit/s; as :func:`correlation_rate`."""
    return n_chans * n_products(n_antennas) * 8 / int_time * STREAM_OVERHEAD


IMAGE_SIZE: Final = 2048
"""Pixels along a side that imagers choose at most by themselves."""
MAX_IMAGE_SIZE: Final = 16384
"""Pixels along a side that they make at all."""
MAX_SPECTRAL_TERMS: Final = 4
"""Terms of the polynomials that spectra are fitted with, at most."""
IMAGER_PARAMETERS: Final = frozenset(
    {
        *(
            "size",
            "pixel",
            "weighting",
            "robust",
            "epsilon",
            "terms",
            "name",
            "threads",
            "log_level",
        ),
        *("niter", "sigmas", "threshold", "gain", "major_cycles"),
    }
)
"""Settings of the continuum imager that a document may choose: not what is imaged, nor where that goes."""
CUBE_CHANNELS: Final = 64
"""Channels of a cube that one task images."""
IMAGING_BLOCK_BYTES: Final = 3 * 2**24 * 8
"""Imager: visibilities at the nodes of the tracks, of a block: predicted, weighted, and times a spectrum."""
IMAGING_READ_BYTES: Final = 4 * 32 * 2**20
"""Reading through katdal: a tile, and what its calibration makes of it."""


def image_bytes(size: int, terms: int = 1) -> int:
    """Memory of the images of one CLEAN and of the gridder, bytes.

    Of each term a dozen images, and a byte or four of each pixel for masks; point spread functions of twice the
    size for each pair of terms; the gridder's grid for the largest of them, at its highest oversampling.

    Parameters
    ----------
    size
        Pixels along a side.
    terms
        Spectral terms.
    """
    images = (12 * terms + 4) * 4 * size**2
    responses = terms * (terms + 1) // 2 * 4 * (2 * size) ** 2
    grid = 8 * (2 * 2 * size) ** 2
    return images + responses + grid


def imager_bytes(size: int, terms: int = 1) -> int:
    """Memory of the arrays of an imager, bytes, without the interpreter; parameters as :func:`image_bytes`."""
    return image_bytes(size, terms) + max(IMAGING_BLOCK_BYTES, IMAGING_READ_BYTES)


def spectral_imager_bytes(size: int, n_antennas: int, dumps: int) -> int:
    """Memory of the arrays of a spectral imager, bytes, without the interpreter.

    It works on one channel at a time, so it does not depend on how many there are: coordinates (24 bytes a
    sample, and again for the nodes of three grids), visibilities, weights, and what is made of them.

    Parameters
    ----------
    size
        Pixels along a side.
    n_antennas, dumps
        Of what was observed.
    """
    samples = n_antennas * (n_antennas - 1) // 2 * dumps
    return image_bytes(size) + samples * (4 * 24 + 16 + 24) + IMAGING_READ_BYTES


def cube_joiner_bytes(size: int) -> int:
    """Memory of whoever joins a cube, bytes: some planes and the picture, however many channels there are."""
    return 8 * 4 * size**2
