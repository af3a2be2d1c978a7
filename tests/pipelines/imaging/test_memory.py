"""What the programs are given, by the controller's formulas, is enough: their memory is measured."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.imaging_data import Simulation, write_measurement_set
from pipelines import catalogue
from pipelines.imaging.geometry import MAX_DEFAULT_SIZE, MAX_SIZE
from pipelines.imaging.spectrum import MAX_TERMS
from pipelines.imaging.visibilities import BLOCK_SAMPLES, TILE_BYTES

SIZE = 1000
MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", *sys.argv[1:]], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def measured(*command: object) -> float:
    """Largest resident memory of a program, MiB."""
    words = [sys.executable, "-c", MEASURE, *map(str, command)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600)
    return float(done.stdout)


def granted(arrays: int) -> float:
    return math.ceil(catalogue.PYTHON_MIB + arrays / 2**20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "a.ms"
    write_measurement_set(path, Simulation(antennas=12, dumps=20, channels=4, noise=0.02))
    return path


def test_a_cube_takes_no_more_than_is_granted(data: Path, tmp_path: Path) -> None:
    options = ["--size", SIZE, "--pixel", 3, "--niter", 50, "--threads", 1, "--output", tmp_path]
    used = measured("pipelines.imaging.spectral", data, *options, "--channels", "1:3", "--part")
    assert used <= granted(catalogue.spectral_imager_bytes(SIZE, 12, 20))
    assert used >= 0.3 * granted(catalogue.spectral_imager_bytes(SIZE, 12, 20))
    assert measured("pipelines.imaging.join", tmp_path) <= granted(
        catalogue.cube_joiner_bytes(SIZE)
    )


def test_spectral_terms_take_no_more_than_is_granted(data: Path, tmp_path: Path) -> None:
    options = ["--size", SIZE, "--pixel", 3, "--niter", 50, "--threads", 1, "--output", tmp_path]
    used = measured("pipelines.imaging", data, *options, "--terms", 3)
    assert used <= granted(catalogue.imager_bytes(SIZE, 3))


def test_the_formulas_know_the_programs_own_bounds() -> None:
    assert catalogue.IMAGE_SIZE == MAX_DEFAULT_SIZE and catalogue.MAX_IMAGE_SIZE == MAX_SIZE
    assert catalogue.MAX_SPECTRAL_TERMS == MAX_TERMS
    assert catalogue.IMAGING_BLOCK_BYTES == 3 * BLOCK_SAMPLES * 8
    assert catalogue.IMAGING_READ_BYTES >= 4 * TILE_BYTES
