from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from scheduler.embedded.recordio import Decoder, RecordError, encode


@given(st.lists(st.binary(max_size=50)), st.integers(1, 20))
def test_records_survive_any_cutting(records: list[bytes], step: int) -> None:
    data = b"".join(map(encode, records))
    decoder = Decoder()
    found: list[bytes] = []
    for begin in range(0, len(data), step):
        found += decoder.feed(data[begin : begin + step])
    assert found == records


@pytest.mark.parametrize("data", [b"x\n", b"-1\n", b"\n", b"101\n", b"9" * 30, b"1.0\nx"])
def test_what_is_no_length_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError):
        Decoder(max_record=100).feed(data)
