from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

_SOURCE = Path(__file__).parents[2] / "compat" / "http-parser" / "http_parser" / "http.py"


def _load() -> Any:
    """The checkout's module, not the one that happens to be installed."""
    spec = importlib.util.spec_from_file_location("compat_http_parser", _SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HttpParser = _load().HttpParser

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    b"Mesos-Stream-Id: 130ae4e3\r\nX-Twice: a\r\nx-twice: b\r\n\r\n"
)


def chunked(chunks: list[bytes]) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + body + b"0\r\n\r\n"


def feed(pieces: list[bytes]) -> tuple[Any, bytes]:
    """Parse as pymesos does: after each piece, take the body that came."""
    parser, body = HttpParser(), b""
    for piece in pieces:
        assert parser.execute(piece, len(piece)) == len(piece)
        if parser.is_partial_body():
            body += parser.recv_body()
        assert not parser.is_partial_body() and parser.recv_body() == b""
    return parser, body


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


chunks_strategy = st.lists(st.binary(min_size=1, max_size=60), max_size=8)


@settings(deadline=None)
@given(chunks_strategy, st.lists(st.integers(0, 10_000), max_size=12))
def test_wherever_the_network_cuts_the_stream_it_is_the_same(
    chunks: list[bytes], cuts: list[int]
) -> None:
    data = chunked(chunks)
    parser, body = feed(split(data, cuts))
    assert body == b"".join(chunks)
    assert parser.is_message_complete() and parser.is_headers_complete()
    assert (parser.get_errno(), parser.get_status_code()) == (0, 200)
    assert parser.is_chunked()
    assert parser.get_headers() == feed([data])[0].get_headers()


def test_byte_by_byte_and_what_is_known_when() -> None:
    data = chunked([b"17\n", b'{"type": "HEARTBEAT"}'])
    parser, body = HttpParser(), b""
    for position, byte in enumerate(data):
        assert parser.execute(bytes([byte]), 1) == 1
        assert parser.is_headers_complete() == (position >= len(HEAD) - 1)
        assert parser.is_message_complete() == (position == len(data) - 1)
        body += parser.recv_body()
    assert body == b'17\n{"type": "HEARTBEAT"}'


def test_headers_keep_their_spelling_and_repeated_ones_are_joined() -> None:
    headers = feed([HEAD])[0].get_headers()
    assert headers["Mesos-Stream-Id"] == "130ae4e3"
    assert headers["X-Twice"] == "a, b"


def test_only_what_is_said_to_be_there_is_read() -> None:
    parser = HttpParser()
    data = chunked([b"abc"])
    assert parser.execute(data + b"garbage", len(data)) == len(data)
    assert parser.get_errno() == 0 and parser.recv_body() == b"abc"


@pytest.mark.parametrize("code", [202, 307, 400, 403, 503])
def test_other_answers(code: int) -> None:
    text = b"HTTP/1.1 %d X\r\nLocation: //10.0.0.2:5050\r\nContent-Length: 4\r\n\r\nsaid" % code
    parser, body = feed([text])
    assert (parser.get_status_code(), body) == (code, b"said")
    assert not parser.is_chunked() and parser.is_message_complete()
    assert parser.get_headers()["Location"] == "//10.0.0.2:5050"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        HEAD + b"zz\r\nabc\r\n",
        HEAD + b"3\r\nabcdef\r\n",
        HEAD.replace(b"OK", b"OK\0") + b"-1\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_malformed_is_an_error_from_then_on(data: bytes) -> None:
    parser = HttpParser()
    assert parser.execute(data, len(data)) != len(data)
    assert parser.get_errno() != 0
    good = chunked([b"abc"])
    assert parser.execute(good, len(good)) == 0


@settings(deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_hostile_bytes_never_raise(pieces: list[bytes], after_head: bool) -> None:
    parser = HttpParser()
    if after_head:
        parser.execute(HEAD, len(HEAD))
    for piece in pieces:
        understood = parser.execute(piece, len(piece))
        assert understood in (0, len(piece))
        assert isinstance(parser.get_status_code(), int)
        assert isinstance(parser.recv_body(), bytes)
