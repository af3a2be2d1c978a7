"""The reference is current, and the models say in which units they speak."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel

from sdpcontroller.config import json_schema
from sdpcontroller.config.__main__ import main
from sdpcontroller.config.fields import Model

DOCS = Path(__file__).parents[3] / "docs" / "reference"


def test_the_files_in_docs_are_those_that_the_models_make(tmp_path) -> None:
    main(tmp_path)
    for name in ("product-config.md", "product-config.schema.json"):
        message = f"docs/reference/{name} is stale: run python -m sdpcontroller.config"
        assert (DOCS / name).read_text() == (tmp_path / name).read_text(), message


def subclasses(model: type[BaseModel]) -> set[type[BaseModel]]:
    return {model}.union(*(subclasses(below) for below in model.__subclasses__()))


def leaves(annotation: Any) -> set[Any]:
    inner = [part for part in get_args(annotation) if part is not NoneType]
    return set().union(*(leaves(part) for part in inner)) if inner else {annotation}


def test_every_field_is_described_and_every_number_has_a_unit() -> None:
    numbers = 0
    for model in subclasses(Model):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            if leaves(field.annotation) & {int, float}:
                numbers += 1
                assert re.search(r" \[[^]]+\]", field.description), f"{model.__name__}.{name}"
    assert numbers > 40


def test_the_schema_stands_alone() -> None:
    schema = json_schema()
    references = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema)))
    assert references <= schema["$defs"].keys()
    assert schema["additionalProperties"] is False
    assert all(d["additionalProperties"] is False for d in schema["$defs"].values())


def attributes(folder: Path) -> set[str]:
    """Names that the code there asks things for, as attributes or as words."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_a_field_that_changes_nothing_says_so() -> None:
    """Who writes it may hope for something."""
    used = attributes(DOCS.parents[1] / "sdpcontroller")
    for model in subclasses(Model):
        for name, field in model.model_fields.items():
            kept = "kept, not used here" in (field.description or "").lower()
            assert kept or name in used, (
                f"{model.__name__}.{name} is used nowhere, and says nothing of it"
            )
