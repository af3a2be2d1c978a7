from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

_SOURCE = Path(__file__).parents[2] / "compat" / "python-lzf" / "lzf.py"


def _load() -> Any:
    """The checkout's module, not the one that happens to be installed."""
    spec = importlib.util.spec_from_file_location("compat_lzf", _SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lzf = _load()

plain = st.one_of(
    st.binary(max_size=400),
    st.lists(st.sampled_from([b"a", b"ab", b"\0" * 7, b"telstate_"]), max_size=300).map(b"".join),
    st.tuples(st.binary(max_size=40), st.integers(0, 300)).map(lambda p: p[0] * p[1]),
)


@settings(deadline=None)
@given(plain)
@example(bytes(range(256)) * 40)  # distances beyond 8192
@example(b"x" * 20_000)
def test_what_is_compressed_comes_back(data: bytes) -> None:
    packed = lzf.compress(data, 2 * len(data) + 1)
    assert lzf.decompress(packed, len(data)) == data


@settings(deadline=None)
@given(plain)
def test_it_is_none_where_it_would_not_be_shorter(data: bytes) -> None:
    packed = lzf.compress(data)
    assert packed is None or len(packed) < len(data)
    if len(data) > 20 and len(set(data)) == 1:
        assert packed is not None


@settings(deadline=None)
@given(plain, st.integers(0, 500))
def test_more_than_was_expected_is_none(data: bytes, length: int) -> None:
    packed = lzf.compress(data, 2 * len(data) + 1)
    found = lzf.decompress(packed, length)
    assert found == (data if len(data) <= length else None)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1000))
def test_hostile_data_is_refused_or_bounded(data: bytes, length: int) -> None:
    try:
        found = lzf.decompress(data, length)
    except ValueError:
        return
    assert found is None or len(found) <= length


@settings(deadline=None)
@given(plain.filter(bool), st.data())
def test_what_is_cut_short_never_passes_for_whole(data: bytes, draw: st.DataObject) -> None:
    packed = lzf.compress(data, 2 * len(data) + 1)
    cut = packed[: draw.draw(st.integers(0, len(packed) - 1))]
    try:
        found = lzf.decompress(cut, len(data))
    except ValueError:
        return
    assert found is not None and len(found) < len(data) and data.startswith(found)


@pytest.mark.parametrize(
    ("packed", "data"),
    [
        # From the format's description: control bytes by hand.
        (b"\x00a", b"a"),
        (b"\x02abc\x20\x02", b"abcabc"),
        (b"\x00a\xe0\x00\x00", b"a" * 10),
        (b"\x00a\xe0\xff\x00", b"a" * 265),
        (b"", b""),
    ],
)
def test_known_blocks(packed: bytes, data: bytes) -> None:
    assert lzf.decompress(packed, 1000) == data


@pytest.mark.parametrize("packed", [b"\x05abc", b"\x20", b"\xe0", b"\xe0\x01", b"\x20\x00"])
def test_known_nonsense(packed: bytes) -> None:
    with pytest.raises(ValueError, match="LZF data"):
        lzf.decompress(packed, 1000)
