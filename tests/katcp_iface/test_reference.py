"""The reference is current and complete."""

from __future__ import annotations

from pathlib import Path

from katcp_iface.__main__ import main
from katcp_iface.server import Facade

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_the_page_in_docs_is_what_the_docstrings_make(tmp_path) -> None:
    main(tmp_path)
    message = "docs/reference/katcp.md is stale: run python -m katcp_iface"
    assert (DOCS / "katcp.md").read_text() == (tmp_path / "katcp.md").read_text(), message


def test_every_request_of_ours_is_on_the_page() -> None:
    page = (DOCS / "katcp.md").read_text()
    for attribute in dir(Facade):
        if attribute.startswith("request_"):
            assert f"?{attribute.removeprefix('request_').replace('_', '-')}`" in page
