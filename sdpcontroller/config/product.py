"""The whole document, checked, with what workflows ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from sdpcontroller.config import problems
from sdpcontroller.config.checks import find_problems
from sdpcontroller.config.document import load, merge
from sdpcontroller.config.fields import Model, Name
from sdpcontroller.config.geometry import CorrelatorGeometry, VisGeometry
from sdpcontroller.config.inputs import AntennaChannelisedVoltage, Input
from sdpcontroller.config.options import Options, Simulation
from sdpcontroller.config.sdp import Output, Vis
from sdpcontroller.config.simulated import (
    SimAntennaChannelisedVoltage,
    SimBaselineCorrelationProducts,
)
from sdpcontroller.config.stream import Stream

S = TypeVar("S", bound=Stream)

Version = Literal[
    "3.0", "3.1", "3.2", "3.3", "3.4", "3.5",
    "4.0", "4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8", "4.9",
]  # fmt: skip
VERSIONS: tuple[str, ...] = get_args(Version)
"""Versions of the document that are read. They differ in what they may contain, not in what it means."""


class ProductConfig(Model):
    """A product configuration: which streams come in, which products must come out, and how.

    An instance has passed all checks, whichever way it was made: those that fail raise
    :exc:`~sdpcontroller.errors.ConfigError` (several fields) or :exc:`pydantic.ValidationError` (one field);
    :meth:`from_document` and :func:`parse` raise the first only.
    """

    version: Version = Field(description="Version of the document's format.")
    inputs: Mapping[Name, Annotated[Input, Field()]] = Field(
        {}, max_length=256, description="Streams that come from outside, by name."
    )
    outputs: Mapping[Name, Annotated[Output, Field()]] = Field(
        max_length=256, description="Streams to make, by name."
    )
    config: Options = Field(Options(), description="How the product is run.")
    simulation: Simulation = Field(Simulation(), description="What simulated streams show.")

    @model_validator(mode="after")
    def _check_across(self) -> Self:
        found = list(find_problems(self))
        if found:
            raise problems.refuse(found)
        return self

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Build from plain data, as JSON gives it.

        Raises
        ------
        ConfigError
            One line per problem: path, value, rule, and a suggestion for misspelt names.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise problems.refuse(problems.from_pydantic(error, cls, document)) from None

    def to_json(self) -> dict[str, Any]:
        """Return the document: what was given, and only that, exactly as it was given."""
        plain = _plain(self)
        assert isinstance(plain, dict)  # noqa: S101  # a model becomes a dict
        return plain

    def merged(self, override: Mapping[str, Any]) -> Self:
        """Return this configuration with a JSON merge patch (RFC 7386) applied: null deletes.

        Raises
        ------
        ConfigError
            If the result is not valid.
        """
        return self.from_document(merge(self.to_json(), override))

    @cached_property
    def streams(self) -> Mapping[str, Stream]:
        """All streams by name, inputs first."""
        return {**self.inputs, **self.outputs}

    def stream(self, name: str) -> Stream:
        """Return the stream of that name, input or output, or raise ``KeyError``."""
        return self.streams[name]

    def streams_of(self, kind: type[S]) -> Mapping[str, S]:
        """Return all streams of one class, by name, in the document's order."""
        return {name: s for name, s in self.streams.items() if isinstance(s, kind)}

    def outputs_of(self, kind: type[S]) -> Mapping[str, S]:
        """Return the outputs of one class, by name, in the document's order."""
        return {name: s for name, s in self.outputs.items() if isinstance(s, kind)}

    def inputs_of(self, kind: type[S]) -> Mapping[str, S]:
        """Return the inputs of one class, by name, in the document's order."""
        return {name: s for name, s in self.inputs.items() if isinstance(s, kind)}

    def sources(self, name: str) -> Mapping[str, Stream]:
        """Return the streams that a stream is made from directly, by name, in the document's order."""
        return {source: self.streams[source] for source in self.streams[name].source_names}

    def source(self, name: str, kind: type[S]) -> tuple[str, S]:
        """Return name and model of the nearest stream of class `kind` that `name` is made from.

        A stream is its own nearest one. Search is breadth first, in the order of ``src_streams``.

        Raises
        ------
        KeyError
            If there is none.
        """
        level = [name]
        while level:
            for candidate in level:
                stream = self.streams[candidate]
                if isinstance(stream, kind):
                    return candidate, stream
            level = [s for candidate in level for s in self.streams[candidate].source_names]
        raise KeyError(f"{name} is not made from a {kind.__name__}")

    def consumers(self, name: str) -> Mapping[str, Stream]:
        """Return the streams that are made from this one directly, by name."""
        return {other: s for other, s in self.streams.items() if name in s.source_names}

    def antenna_names(self, name: str) -> tuple[str, ...]:
        """Return the names of the antennas behind a stream, in the correlator's order."""
        try:
            return self.source(name, SimAntennaChannelisedVoltage)[1].antenna_names
        except KeyError:
            return self.source(name, AntennaChannelisedVoltage)[1].antennas

    def correlator(self, name: str) -> CorrelatorGeometry:
        """Return the shape of the simulated correlation stream that `name` is, or is made from.

        Raises
        ------
        KeyError
            If there is none: what a real correlator sends is not known from the document.
        """
        correlation_name, correlation = self.source(name, SimBaselineCorrelationProducts)
        voltage = self.source(correlation_name, SimAntennaChannelisedVoltage)[1]
        return CorrelatorGeometry.of(correlation_name, correlation, voltage)

    def vis(self, name: str) -> VisGeometry:
        """Return the shape of the visibility stream that `name` is, or is made from.

        Raises
        ------
        KeyError
            As :meth:`correlator`.
        """
        vis_name, vis = self.source(name, Vis)
        return VisGeometry.of(vis_name, vis, self.correlator(vis_name))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        given = [name for name in type(value).model_fields if name in value.model_fields_set]
        return {name: _plain(getattr(value, name)) for name in given}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def parse(text: str | bytes) -> ProductConfig:
    """Read a product configuration.

    Raises
    ------
    ConfigError
        One line per problem: path, value, rule, and a suggestion for misspelt names; or why the text is not
        read as JSON, with the position.
    """
    return ProductConfig.from_document(load(text))
