"""What the models say of themselves: JSON Schema, and the reference page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sdpcontroller.config.inputs import Input
from sdpcontroller.config.options import (
    Develop,
    Options,
    Replay,
    ServiceOverride,
    Simulation,
    VlbiMeta,
)
from sdpcontroller.config.product import VERSIONS, ProductConfig
from sdpcontroller.config.sdp import CalParameters, Output, SpectralImageParameters

_INTRODUCTION = """\
# The product configuration

<!-- Made from the models by `python -m sdpcontroller.config`: change those, not this page. -->

A JSON object with the members below; fields in **bold** are required. Each member of `inputs` and `outputs`
is a stream, under a name of its own; its `type` says which further fields it has. A field that is not
listed is an error, and so is a key that stands twice, `NaN`, and a string in the place of a number. Errors
name path, value and rule, one line each. The same as JSON Schema:
[product-config.schema.json](product-config.schema.json); rules that concern several fields (sources exist
and fit, channels divide, antennas are unique) stand in `sdpcontroller/config/checks.py`.

"""
_OPTION_MODELS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("`config`", Options),
    ("`config.develop`, as an object", Develop),
    ("`config.service_overrides`, each", ServiceOverride),
    ("`config.vlbimeta`", VlbiMeta),
    ("`simulation`", Simulation),
    ("`simulation.replay`", Replay),
    ("`parameters` of `sdp.cal`", CalParameters),
    ("`parameters` of `sdp.spectral_image`", SpectralImageParameters),
)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the document.

    It holds what one field can say; what several fields say together only the checks know.
    """
    schema = ProductConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def reference_page() -> str:
    """Return the reference page, in Markdown."""
    return _INTRODUCTION + "\n".join(_sections()) + "\n"


def _sections() -> Iterator[str]:
    yield "## The document\n"
    yield from _table(ProductConfig)
    yield f"Versions: {', '.join(VERSIONS)}.\n"
    for title, union in (("Inputs", Input), ("Outputs", Output)):
        yield f"## {title}\n"
        for model in _members(union):
            yield f"### `{model.type_name()}`\n"
            yield from described(model)
    yield "## Options and parameters\n"
    for title, option in _OPTION_MODELS:
        yield f"### {title}\n"
        yield from described(option)


def _members(union: Any) -> tuple[Any, ...]:
    return get_args(get_args(union)[0])


def described(model: type[BaseModel]) -> Iterator[str]:
    """Yield what a model is, and the table of its fields, in Markdown."""
    yield f"{_summary(model)}\n"
    yield from _table(model)


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| field | type | unit | default | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        meaning, unit = _split_unit(field.description or "")
        shown = f"**{name}**" if field.is_required() else name
        cells = (shown, _type(field.annotation), unit, _default(field), meaning)
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    yield ""


_UNIT = re.compile(r" \[([A-Za-z0-9]+( over [A-Za-z]+)?)\]")


def _split_unit(description: str) -> tuple[str, str]:
    """Take the unit, ``[s]``, out of a description that names one; several stay where they are."""
    units = _UNIT.findall(description)
    if len(units) != 1:
        return description, ""
    return _UNIT.sub("", description), str(units[0][0])


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or value is None or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value == {} else str(value)


def _type(annotation: Any) -> str:
    """Write a type in JSON's words."""
    origin = get_origin(annotation)
    arguments = [part for part in get_args(annotation) if part not in (NoneType, Ellipsis)]
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in arguments) if len(arguments) < 9 else "string"
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in arguments))
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object"
    return _NAMES.get(annotation, "object")


_NAMES: dict[Any, str] = {
    str: "string",
    float: "number",
    int: "integer",
    bool: "boolean",
}
