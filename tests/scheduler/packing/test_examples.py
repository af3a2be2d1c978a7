"""``docs/explanations.md`` shows what people really get."""

from __future__ import annotations

from tests.scheduler.packing.examples import DOCUMENT, EXAMPLES, document, named


def test_the_examples_in_the_document_are_what_is_said() -> None:
    """If not: ``python -m tests.scheduler.packing.examples --write``, and read whether the prose still fits."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert set(named(text)) == set(EXAMPLES)
    assert document(text) == text
