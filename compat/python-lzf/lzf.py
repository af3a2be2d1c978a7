"""LZF compression, the format that Redis puts into its dumps.

A compressed block is a sequence of runs. A control byte below 32 starts a literal run of that many bytes
plus one. Any other starts a back reference: its upper three bits are the length minus 2 (7: an extra byte
is added to it), its lower five and the next byte the distance minus 1 (liblzf, ``lzf_d.c``).
"""

from __future__ import annotations

_MAX_LITERAL = 32
_MAX_DISTANCE = 1 << 13
_MAX_LENGTH = 264
_MIN_LENGTH = 3


def decompress(data: bytes, expected_length: int) -> bytes | None:
    """Return the plain bytes, or None if they would be more than `expected_length`.

    Raises
    ------
    ValueError
        If the data is cut short or refers to before its start.
    """
    out = bytearray()
    source = iter(data)
    try:
        for control in source:
            if control < _MAX_LITERAL:
                out += bytes(next(source) for _ in range(control + 1))
            else:
                length = control >> 5
                if length == 7:
                    length += next(source)
                distance = ((control & 0x1F) << 8) + next(source) + 1
                _copy_back(out, distance, length + 2)
            if len(out) > expected_length:
                return None
    except (StopIteration, RuntimeError) as exc:  # a generator turns the former into the latter
        raise ValueError("LZF data is cut short") from exc
    return bytes(out)


def _copy_back(out: bytearray, distance: int, length: int) -> None:
    if distance > len(out):
        raise ValueError(f"LZF data refers to {distance} bytes back, there are {len(out)}")
    start = len(out) - distance
    if distance >= length:
        out += out[start : start + length]
    else:  # the reference overlaps what it produces: a repeated pattern
        pattern = bytes(out[start:])
        out += (pattern * (length // distance + 1))[:length]


def compress(data: bytes, max_length: int | None = None) -> bytes | None:
    """Return the compressed bytes, or None if they would be more than `max_length`.

    `max_length` defaults to one less than the input, so that the result is never longer.
    """
    limit = len(data) - 1 if max_length is None else max_length
    out = bytearray()
    seen: dict[bytes, int] = {}
    literals = position = 0
    while position < len(data):
        key = data[position : position + _MIN_LENGTH]
        candidate = seen.get(key, -1)
        if len(key) == _MIN_LENGTH:
            seen[key] = position
        if candidate < 0 or position - candidate > _MAX_DISTANCE:
            position += 1
            continue
        length = _match_length(data, candidate, position)
        _put_literals(out, data[literals:position])
        _put_reference(out, position - candidate - 1, length)
        position += length
        literals = position
    _put_literals(out, data[literals:])
    return bytes(out) if len(out) <= limit else None


def _match_length(data: bytes, candidate: int, position: int) -> int:
    longest = min(len(data) - position, _MAX_LENGTH)
    length = _MIN_LENGTH
    while length < longest and data[candidate + length] == data[position + length]:
        length += 1
    return length


def _put_literals(out: bytearray, run: bytes) -> None:
    for start in range(0, len(run), _MAX_LITERAL):
        piece = run[start : start + _MAX_LITERAL]
        out.append(len(piece) - 1)
        out += piece


def _put_reference(out: bytearray, offset: int, length: int) -> None:
    rest = length - 2
    if rest < 7:
        out.append((rest << 5) | (offset >> 8))
    else:
        out += bytes(((7 << 5) | (offset >> 8), rest - 7))
    out.append(offset & 0xFF)
