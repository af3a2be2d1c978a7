"""Whatever a client sends, in whatever pieces: complete lines come out, and each request is answered once."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Any

import aiokatcp
import katcp_codec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from katcp_iface.lines import PERIOD, TOLD, ClientLines

LIMIT = 60

LONG = b"x" * LIMIT
LINES = {
    b"": None,
    b" ": None,
    b"?watchdog": "message",
    b"?watchdog[3]": "message",
    b"?capture-init[9] a {}": "message",
    b"!a ok": "message",
    b"?product-configure[4] a " + LONG: "!product-configure[4] fail",
    b"?product-configure b " + LONG * 4: "!product-configure fail",
    b"?capture-init[5] a\\q": "!capture-init[5] fail",
    b"?capture-done \x00": "!capture-done fail",
    b"?": "#log error",
    b"hello": "#log error",
    b"?watchdog[0]": "#log error",
    b"?a[9999999999] b": "#log error",
    LONG * 2: "#log error",
    b"?" + LONG * 8: "#log error",
}
"""What a client sends, and what becomes of it."""


@dataclass
class Client:
    """Takes what is written to it."""

    address: str = "127.0.0.1:1"
    told: list[str] = field(default_factory=list)

    def write_message(self, message: Any) -> None:
        self.told.append(bytes(message).decode())


def reader(client: Client, refused: list[str], now: list[float] | None = None) -> ClientLines:
    clock = (lambda: 0.0) if now is None else (lambda: now[0])
    return ClientLines(client, LIMIT, refused.append, clock)  # type: ignore[arg-type]


@given(
    st.lists(st.sampled_from(sorted(LINES)), max_size=12),
    st.sampled_from([b"\n", b"\r", b"\r\n"]),
    st.lists(st.integers(1, 80), min_size=1),
)
def test_every_request_is_a_message_or_a_failure(
    lines: list[bytes], end: bytes, pieces: list[int]
) -> None:
    client, refused, messages = Client(), list[str](), list[katcp_codec.Message]()
    parser = reader(client, refused)
    data = memoryview(b"".join(line + end for line in lines))
    sizes = itertools.cycle(pieces)
    while data:
        size = next(sizes)
        messages += parser.append(data[:size])
        data = data[size:]
        assert parser.buffer_size <= LIMIT
    fates = [fate for line in lines if (fate := LINES[line]) is not None]
    read = katcp_codec.Parser(LIMIT).append(
        b"".join(line + b"\n" for line in lines if LINES[line] == "message")
    )
    assert [(m.name, m.mid, m.arguments) for m in messages] == [
        (m.name, m.mid, m.arguments) for m in read
    ]
    replies = [fate for fate in fates if fate.startswith("!")]
    answered = [" ".join(text.split(" ")[:2]) for text in client.told]
    assert [text for text in answered if text != "#log error"] == replies
    assert refused == [re.split(r"[!\[ ]", reply)[1] for reply in replies]
    malformed = [fate for fate in fates if fate != "message"]
    assert answered.count("#log error") == malformed[:TOLD].count("#log error")


def test_what_is_not_told_is_counted_once_in_a_period(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    parser = reader(Client(), [], now)
    parser.append(b"?\n" * (TOLD + 3))
    parser.count_malformed()
    assert "3 more malformed lines" in caplog.records[-1].getMessage()
    parser.append(b"?\n" * 4)
    logged = len(caplog.records)
    parser.count_malformed()
    assert len(caplog.records) == logged == TOLD + 1
    now[0] = PERIOD
    parser.count_malformed()
    assert "4 more malformed lines" in caplog.records[-1].getMessage()
    parser.count_malformed(at_end=True)
    assert len(caplog.records) == logged + 1


def test_a_reply_is_what_a_client_reads() -> None:
    client = Client()
    reader(client, []).append(b"?capture-init[5] " + b"x" * LIMIT)
    (message,) = katcp_codec.Parser(1000).append(client.told[0].encode())
    assert (message.mtype, message.mid) == (aiokatcp.Message.Type.REPLY, 5)
    assert message.arguments[0] == b"fail" and str(LIMIT).encode() in message.arguments[1]
