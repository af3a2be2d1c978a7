"""RecordIO, the framing of Mesos' event streams.

Each record is its length in decimal, a newline and that many bytes (Mesos documentation, *RecordIO response
format*). How records fall into HTTP chunks means nothing.
"""

from __future__ import annotations

MAX_RECORD = 64 * 1024 * 1024
"""Bytes of one record that a :class:`Decoder` accepts by default."""
_MAX_DIGITS = 20


class RecordError(ValueError):
    """What came is not RecordIO, or a record is too long."""


def encode(record: bytes) -> bytes:
    """Frame one record."""
    return b"%d\n%b" % (len(record), record)


class Decoder:
    """Cuts a byte stream into records.

    Parameters
    ----------
    max_record
        Longest record, bytes; what announces more is refused before it is stored.
    """

    def __init__(self, max_record: int = MAX_RECORD) -> None:
        self._max_record = max_record
        self._buffer = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take some bytes and return the records that are complete now.

        Raises
        ------
        RecordError
            If a length is not a decimal number, or above the limit.
        """
        self._buffer += data
        records: list[bytes] = []
        while self._read_length() and self._length is not None:
            if len(self._buffer) < self._length:
                break
            records.append(bytes(self._buffer[: self._length]))
            del self._buffer[: self._length]
            self._length = None
        return records

    def _read_length(self) -> bool:
        """Whether the length of the next record is known."""
        if self._length is not None:
            return True
        line, newline, _ = self._buffer[: _MAX_DIGITS + 1].partition(b"\n")
        if not newline and len(line) <= _MAX_DIGITS:
            return False
        if not newline or not line.isdigit() or int(line) > self._max_record:
            raise RecordError(f"not the length of a record: {bytes(line)!r}")
        self._length = int(line)
        del self._buffer[: len(line) + 1]
        return True
