"""What all streams have in common."""

from __future__ import annotations

from typing import ClassVar, TypeAlias, get_args

from sdpcontroller.config.fields import Model

Sources: TypeAlias = tuple[tuple[frozenset[str], ...], ...]
"""The ways to fill ``src_streams``: per way, the types that may stand at each position."""


class Stream(Model):
    """What all streams have in common."""

    SOURCES: ClassVar[Sources] = ()
    """The ways to fill ``src_streams``; empty where a stream has none."""

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the streams that this one is made from, in the document's order."""
        return tuple(getattr(self, "src_streams", ()))

    @classmethod
    def type_name(cls) -> str:
        """Return the word that stands in a document's ``type`` field for this kind of stream."""
        return str(get_args(cls.model_fields["type"].annotation)[0])
