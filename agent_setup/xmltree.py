"""XML from outside, read into a tree within bounds.

hwloc's documents need neither entities nor external definitions. Those are what makes XML dangerous (a few
lines can stand for gigabytes), so a document that declares an entity is refused, before anything is expanded.
"""

from __future__ import annotations

from typing import NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from agent_setup.errors import DiscoveryError

MAX_BYTES = 64 << 20
MAX_ELEMENTS = 1_000_000
"""Elements of one document: hwloc writes about ten for a logical CPU."""
MAX_DEPTH = 100
"""Elements within elements: hwloc's deepest are devices behind a chain of bridges."""


def parse(xml: str, source: str) -> ElementTree.Element:
    """Return the root of a document.

    Parameters
    ----------
    source
        Who wrote it: for people.

    Raises
    ------
    DiscoveryError
        In one line, if it is not XML, declares entities or is larger than any machine's.
    """
    if len(xml) > MAX_BYTES:
        raise DiscoveryError(f"{source}: more than {MAX_BYTES >> 20} MiB, not a topology")
    reader = _Reader(source)
    try:
        return reader.read(xml)
    except (expat.ExpatError, ValueError) as exc:  # ValueError: NUL or a lone surrogate
        raise DiscoveryError(f"{source}: not XML: {exc}") from exc


class _Reader:
    """What expat calls while it reads one document."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._builder = ElementTree.TreeBuilder()
        self._elements = 0
        self._depth = 0

    def read(self, xml: str) -> ElementTree.Element:
        """Parse a document and return its root; raises `DiscoveryError` where a bound is passed."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.EntityDeclHandler = self._entity
        parser.Parse(xml, True)
        return self._builder.close()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        self._depth += 1
        if self._elements > MAX_ELEMENTS:
            raise DiscoveryError(f"{self._source}: more than {MAX_ELEMENTS} elements")
        if self._depth > MAX_DEPTH:
            raise DiscoveryError(f"{self._source}: elements are nested deeper than {MAX_DEPTH}")
        self._builder.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(tag)

    def _entity(self, name: str, *_: object) -> NoReturn:
        raise DiscoveryError(f"{self._source}: declares the entity {name[:40]!r}, no topology does")
