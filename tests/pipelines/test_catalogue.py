"""What the controller asks for a program is at least what the program's own code allocates."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipelines import catalogue
from pipelines.common.l0.layout import L0Layout
from pipelines.common.l0.receiver import buffer_bytes

N_CHANS = st.integers(1, 4096).map(lambda half: 2 * half)
N_ANTENNAS = st.integers(2, 64)


@given(N_CHANS, N_ANTENNAS)
def test_l0_buffers_are_those_of_the_receiver(n_chans: int, n_antennas: int) -> None:
    products = catalogue.n_products(n_antennas)
    layout = L0Layout(n_chans, products, 2, 2.0)
    asked = catalogue.l0_buffer_bytes(n_chans, products)
    # end heaps, and the places that the receiver keeps to flush itself, are a few hundred bytes a dump
    assert asked <= buffer_bytes(layout) <= asked + catalogue.L0_BUFFERED * 4096


def test_every_program_can_be_started_as_a_module() -> None:
    for kind, program in catalogue.PROGRAMS.items():
        assert kind == program.kind
        found = importlib.util.find_spec(program.module)
        assert found is not None and found.origin is not None, program
        if found.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{program.module}.__main__") is not None, program
        else:
            assert 'if __name__ == "__main__":' in Path(found.origin).read_text(), program
