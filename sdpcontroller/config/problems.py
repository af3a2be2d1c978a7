"""What is wrong with a document, one line per problem: path, value, rule, suggestion."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sdpcontroller.errors import ConfigError

MAX_LINES = 20
"""Problems told at once; the rest is counted."""
_MAX_VALUE = 80
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: tuple[str | int, ...]
    """Keys and indices from the document's root."""
    rule: str
    """What must be, for people."""
    value: Any = _MISSING
    """What stands there; not shown where nothing does."""

    def __str__(self) -> str:
        value = [] if self.value is _MISSING else [shown(self.value)]
        return ": ".join([dotted(self.path), *value, self.rule])


def dotted(path: Sequence[str | int]) -> str:
    """Write a path: ``outputs.sdp_l0.src_streams[0]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{_clipped(step)}"
    return text.lstrip(".") or "document"


def shown(value: Any) -> str:
    """Write a value as JSON, cut to a readable length."""
    return _clipped(json.dumps(value, ensure_ascii=False, default=str))


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def suggestion(word: Any, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for a known word that is close to `word`, or nothing."""
    close = difflib.get_close_matches(str(word)[:_MAX_VALUE], list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def refuse(problems: Sequence[Problem]) -> ConfigError:
    """Make the exception that tells of all problems."""
    lines = [str(problem) for problem in problems[:MAX_LINES]]
    if len(problems) > MAX_LINES:
        lines.append(f"and {len(problems) - MAX_LINES} more")
    return ConfigError("\n".join(lines))


def from_pydantic(error: ValidationError, root: type[BaseModel], document: Any) -> list[Problem]:
    """Translate what pydantic found, in the document's own terms."""
    details = error.errors(include_url=False)
    # Of a list, pydantic counts only the items that are right: wrong ones do not make it too short.
    wrong = {detail["loc"][:-1] for detail in details}
    return [
        _translate(detail, root, document)
        for detail in details
        if detail["type"] != "too_short" or detail["loc"] not in wrong
    ]


def _translate(detail: ErrorDetails, root: type[BaseModel], document: Any) -> Problem:
    path = _document_path(detail, document)
    kind = detail["type"]
    if kind == "missing":
        return Problem(path, f"is required: {_field_description(root, path, document)}")
    if kind == "extra_forbidden":
        known = _known_fields(root, path[:-1], document)
        rule = f"is not a field here{suggestion(path[-1], known)} (fields: {', '.join(known)})"
        return Problem(path, rule)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _type_problem(path, detail)
    if detail["loc"] and detail["loc"][-1] == "[key]":
        return Problem(path, "is no valid name: letters, digits, _ and -, at most 63")
    return Problem(path, _rule(detail), detail["input"])


def _type_problem(path: tuple[str | int, ...], detail: ErrorDetails) -> Problem:
    known = [word.strip("' ") for word in detail.get("ctx", {}).get("expected_tags", "").split(",")]
    given = detail["input"].get("type", _MISSING) if isinstance(detail["input"], dict) else _MISSING
    if given is _MISSING:
        return Problem((*path, "type"), "is required: the type of the stream")
    rule = f"is not a known type{suggestion(given, known)} (known: {', '.join(known)})"
    return Problem((*path, "type"), rule, given)


def _rule(detail: ErrorDetails) -> str:
    message = detail["msg"]
    for start in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(start)
    if detail["type"] == "literal_error":
        expected = str(detail["ctx"]["expected"])
        known = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
        return f"must be {expected}{suggestion(detail['input'], known)}"
    if detail["type"] in ("too_short", "too_long"):
        return _length(detail["ctx"])
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "must be an object"
    if detail["type"] == "tuple_type":
        return "must be a list"
    return message.replace("Input should ", "must ").replace("String should ", "must ")


def _length(told: Mapping[str, Any]) -> str:
    """Say how many items a list must have."""
    bound, count = (
        ("at least", told["min_length"])
        if "min_length" in told
        else ("at most", told["max_length"])
    )
    return f"must have {bound} {count} item{'' if count == 1 else 's'}, not {told['actual_length']}"


def _document_path(detail: ErrorDetails, document: Any) -> tuple[str | int, ...]:
    """Drop those parts of pydantic's location that name no place in the document (tags of unions)."""
    path: list[str | int] = []
    here = document
    for step in detail["loc"]:
        inside = isinstance(here, dict) and step in here
        if isinstance(here, list) and isinstance(step, int):
            inside = 0 <= step < len(here)
        if inside:
            path.append(step)
            here = here[step]
    if detail["type"] == "missing":
        path.append(detail["loc"][-1])
    return tuple(path)


def _field_description(root: type[BaseModel], path: tuple[str | int, ...], document: Any) -> str:
    model = _model_at(root, path[:-1], document)
    field = model.model_fields.get(str(path[-1])) if model is not None else None
    return (field.description if field is not None else None) or "it is missing"


def _known_fields(root: type[BaseModel], path: tuple[str | int, ...], document: Any) -> list[str]:
    model = _model_at(root, path, document)
    return list(model.model_fields) if model is not None else []


def _model_at(
    root: type[BaseModel], path: Sequence[str | int], document: Any
) -> type[BaseModel] | None:
    """Find the model that describes the place `path` of the document."""
    annotation: Any = root
    here = document
    for step in path:
        model = _resolve(annotation, here)
        # Not a model: Mapping[key, VALUE] or tuple[VALUE, ...].
        part = model.model_fields[str(step)].annotation if model else _value_type(annotation)
        annotation, here = part, here[step]
    return _resolve(annotation, here)


def _value_type(annotation: Any) -> Any:
    parts = [part for part in get_args(annotation) if part is not Ellipsis]
    return parts[-1] if parts else None


def _resolve(annotation: Any, value: Any) -> type[BaseModel] | None:
    """Choose the model for `value` among those that the annotation allows."""
    candidates = list(_models_in(annotation))
    if len(candidates) == 1:
        return candidates[0]
    given = value.get("type") if isinstance(value, dict) else None
    for model in candidates:
        if given is not None and given in get_args(model.model_fields["type"].annotation):
            return model
    return None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that stand in an annotation by themselves or in a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType):
        for part in get_args(annotation):
            yield from _models_in(part)
